//! A registry that stands in for a slow or a huge one: it answers as late and sends as slowly as it
//! is told, and it holds layers that take no memory.

use std::{
    collections::{BTreeSet, HashMap},
    io::{self, BufRead as _, BufReader, Read as _, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use model::Digest;

use crate::{
    artifact::{Artifact, Document},
    registry::BlobGet,
    seeded::SeededLayer,
};

/// Bytes that are sent between two looks at the clock.
const PIECE: u64 = 16 << 10;
/// How long a connection may say nothing.
const IDLE: Duration = Duration::from_mins(1);
const HEAD_BYTES_MAX: u64 = 64 << 10;

/// How slow it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct StandInOptions {
    /// How long each answer takes to begin.
    pub delay: Duration,
    /// How many bytes a second each connection gets; as many as it can where `None`.
    pub bytes_per_second: Option<u64>,
}

/// The stand-in, on a free port of 127.0.0.1; it ends when it is dropped.
#[derive(Debug)]
pub struct StandInRegistry {
    port: u16,
    shared: Arc<Shared>,
}

/// What all connections have in common.
#[derive(Debug)]
struct Shared {
    options: StandInOptions,
    /// By repository and tag or digest.
    manifests: Mutex<HashMap<(String, String), Arc<Document>>>,
    blobs: Mutex<HashMap<Digest, Blob>>,
    gets: Mutex<Vec<Noted>>,
    bytes_sent: AtomicU64,
    is_stopping: AtomicBool,
}

/// A blob that was fetched.
#[derive(Clone, Debug)]
struct Noted {
    get: BlobGet,
    began: Instant,
    ended: Option<Instant>,
}

#[derive(Clone, Debug)]
enum Blob {
    Bytes(Arc<[u8]>),
    Seeded(SeededLayer),
}

/// A request without a body.
struct Request {
    method: String,
    path: String,
    headers: HashMap<String, String>,
}

/// An answer's head, and which bytes of what follow.
struct Reply {
    status: &'static str,
    headers: Vec<(&'static str, String)>,
    body: Option<(Blob, u64, u64)>,
    /// Where it is noted that a blob was fetched.
    note: Option<usize>,
}

// === impl StandInRegistry ===

impl StandInRegistry {
    /// Starts one that holds nothing.
    pub fn start(options: StandInOptions) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let shared = Arc::new(Shared {
            options,
            manifests: Mutex::default(),
            blobs: Mutex::default(),
            gets: Mutex::default(),
            bytes_sent: AtomicU64::new(0),
            is_stopping: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if accepting.is_stopping() {
                    return;
                }
                let serving = Arc::clone(&accepting);
                // A client that hangs up in the middle is the client's business.
                thread::spawn(move || drop(serving.serve(&stream)));
            }
        });
        Self { port, shared }
    }

    /// Host and port, as in a reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Takes an image or index in under a tag. Layers of a [`SeededLayer`] have no bytes: see
    /// [`Self::seed`].
    pub fn put(&self, artifact: impl Into<Artifact>, repository: &str, tag: &str) -> Digest {
        let artifact = artifact.into();
        let digest = artifact.root.digest;
        let mut blobs = lock(&self.shared.blobs);
        for blob in artifact.blobs {
            if !blob.bytes.is_empty() {
                blobs
                    .entry(blob.digest)
                    .or_insert_with(|| Blob::Bytes(blob.bytes.into()));
            }
        }
        drop(blobs);
        let mut manifests = lock(&self.shared.manifests);
        for document in artifact.children.into_iter().chain([artifact.root]) {
            let document = Arc::new(document);
            let key = (repository.to_owned(), document.digest.to_string());
            manifests.insert(key, Arc::clone(&document));
            if document.digest == digest {
                manifests.insert((repository.to_owned(), tag.to_owned()), document);
            }
        }
        digest
    }

    /// Takes in a layer that is made whenever it is read.
    pub fn seed(&self, layer: SeededLayer, digest: Digest) {
        lock(&self.shared.blobs).insert(digest, Blob::Seeded(layer));
    }

    /// Which blobs were fetched, in order; each is noted before its first byte is sent.
    pub fn blob_gets(&self) -> Vec<BlobGet> {
        let gets = lock(&self.shared.gets);
        gets.iter().map(|noted| noted.get.clone()).collect()
    }

    /// From the first request for one of these blobs to the last byte of one.
    pub fn busy(&self, blobs: &BTreeSet<Digest>) -> Option<(Instant, Instant)> {
        let gets = lock(&self.shared.gets);
        let of_these = gets
            .iter()
            .filter(|noted| blobs.contains(&noted.get.digest));
        let began = of_these.clone().map(|noted| noted.began).min()?;
        let ended = of_these.filter_map(|noted| noted.ended).max()?;
        Some((began, ended))
    }

    /// Starts [`Self::blob_gets`] and [`Self::bytes_sent`] anew.
    pub fn clear_log(&self) {
        lock(&self.shared.gets).clear();
        self.shared.bytes_sent.store(0, Ordering::Relaxed);
    }

    /// Bytes of manifests and blobs that were sent.
    pub fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::Relaxed)
    }
}

impl Drop for StandInRegistry {
    fn drop(&mut self) {
        self.shared.is_stopping.store(true, Ordering::Relaxed);
        // Wakes the thread that accepts; where that does not work, it ends with the process.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

// === impl Shared ===

impl Shared {
    fn is_stopping(&self) -> bool {
        self.is_stopping.load(Ordering::Relaxed)
    }

    fn serve(&self, stream: &TcpStream) -> io::Result<()> {
        stream.set_read_timeout(Some(IDLE))?;
        stream.set_nodelay(true)?;
        let mut reader = BufReader::new(stream);
        while !self.is_stopping() {
            let Some(request) = Request::read(&mut reader)? else {
                break;
            };
            thread::sleep(self.options.delay);
            let reply = self.reply(&request);
            self.send(stream, &request, &reply)?;
            if request.header("connection").eq_ignore_ascii_case("close") {
                break;
            }
        }
        stream.shutdown(Shutdown::Both)
    }

    fn reply(&self, request: &Request) -> Reply {
        if request.path == "/v2/" || request.path == "/v2" {
            let body = Blob::Bytes(b"{}".as_slice().into());
            return Reply::ok("application/json", body, 2);
        }
        let path = request.path.strip_prefix("/v2/").unwrap_or_default();
        let found = if let Some((repository, digest)) = path.rsplit_once("/blobs/") {
            self.blob(request, repository, digest)
        } else {
            path.rsplit_once("/manifests/")
                .and_then(|(repository, reference)| self.manifest(repository, reference))
        };
        found.unwrap_or(Reply {
            status: "404 Not Found",
            headers: Vec::new(),
            body: None,
            note: None,
        })
    }

    fn manifest(&self, repository: &str, reference: &str) -> Option<Reply> {
        let key = (repository.to_owned(), reference.to_owned());
        let document = lock(&self.manifests).get(&key).cloned()?;
        let size = document.bytes.len() as u64;
        let body = Blob::Bytes(document.bytes.as_slice().into());
        let mut reply = Reply::ok(&document.media_type, body, size);
        let digest = document.digest.to_string();
        reply.headers.push(("Docker-Content-Digest", digest));
        Some(reply)
    }

    fn blob(&self, request: &Request, repository: &str, digest: &str) -> Option<Reply> {
        let digest: Digest = digest.parse().ok()?;
        let blob = lock(&self.blobs).get(&digest).cloned()?;
        let size = blob.size();
        let mut note = None;
        if request.method == "GET" {
            let get = BlobGet {
                repository: repository.to_owned(),
                digest,
                user_agent: request.header("user-agent").to_owned(),
            };
            let mut gets = lock(&self.gets);
            note = Some(gets.len());
            gets.push(Noted {
                get,
                began: Instant::now(),
                ended: None,
            });
        }
        let mut reply = Reply::ok("application/octet-stream", blob, size);
        reply.note = note;
        if let Some((from, to)) = request.range(size) {
            reply.status = "206 Partial Content";
            let last = to.saturating_sub(1);
            reply
                .headers
                .push(("Content-Range", format!("bytes {from}-{last}/{size}")));
            reply.body = reply.body.map(|(blob, ..)| (blob, from, to));
        }
        reply.headers.push(("Accept-Ranges", "bytes".to_owned()));
        Some(reply)
    }

    fn send(&self, mut stream: &TcpStream, request: &Request, reply: &Reply) -> io::Result<()> {
        let length = reply.body.as_ref().map_or(0, |(_, from, to)| to - from);
        let mut head = format!("HTTP/1.1 {}\r\nContent-Length: {length}\r\n", reply.status);
        for (name, value) in &reply.headers {
            head.extend([format!("{name}: {value}\r\n")]);
        }
        head.push_str("\r\n");
        stream.write_all(head.as_bytes())?;
        let Some((blob, from, to)) = reply.body.as_ref().filter(|_| request.method == "GET") else {
            return Ok(());
        };
        let (began, mut at) = (Instant::now(), *from);
        while at < *to {
            let end = (*to).min(at + PIECE);
            blob.write_range(at, end, &mut stream)?;
            self.bytes_sent.fetch_add(end - at, Ordering::Relaxed);
            at = end;
            self.pace(began, at - from);
        }
        let mut gets = lock(&self.gets);
        if let Some(noted) = reply.note.and_then(|note| gets.get_mut(note)) {
            noted.ended = Some(Instant::now());
        }
        Ok(())
    }

    /// Sleeps until so many bytes were allowed since `began`.
    fn pace(&self, began: Instant, sent: u64) {
        let Some(rate) = self.options.bytes_per_second else {
            return;
        };
        let micros = sent.saturating_mul(1_000_000) / rate.max(1);
        let due = began + Duration::from_micros(micros);
        thread::sleep(due.saturating_duration_since(Instant::now()));
    }
}

// === impl Blob ===

impl Blob {
    fn size(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Seeded(layer) => layer.size(),
        }
    }

    fn write_range(&self, from: u64, to: u64, out: &mut impl Write) -> io::Result<()> {
        match self {
            Self::Bytes(bytes) => {
                let at = |position: u64| usize::try_from(position).expect("it is in memory");
                out.write_all(&bytes[at(from)..at(to)])
            }
            Self::Seeded(layer) => layer.write_range(from, to, out),
        }
    }
}

// === impl Request ===

impl Request {
    /// Reads one; `None` where the client is gone.
    fn read(reader: &mut BufReader<&TcpStream>) -> io::Result<Option<Self>> {
        let mut lines = reader.by_ref().take(HEAD_BYTES_MAX).lines();
        let Some(first) = lines.next().transpose()? else {
            return Ok(None);
        };
        let mut words = first.split(' ');
        let (method, path) = (words.next(), words.next());
        let mut headers = HashMap::new();
        for line in lines {
            let line = line?;
            let Some((name, value)) = line.split_once(':') else {
                break;
            };
            headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
        }
        let path = path.unwrap_or_default().split('?').next();
        Ok(Some(Self {
            method: method.unwrap_or_default().to_owned(),
            path: path.unwrap_or_default().to_owned(),
            headers,
        }))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// The bytes `from..to` that are asked for, of so many.
    fn range(&self, size: u64) -> Option<(u64, u64)> {
        let (from, last) = self
            .header("range")
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let from: u64 = from.parse().ok()?;
        let to = match last {
            "" => size,
            last => last.parse::<u64>().ok()?.saturating_add(1).min(size),
        };
        (from < to).then_some((from, to))
    }
}

// === impl Reply ===

impl Reply {
    fn ok(media_type: &str, body: Blob, size: u64) -> Self {
        Self {
            status: "200 OK",
            headers: vec![("Content-Type", media_type.to_owned())],
            body: Some((body, 0, size)),
            note: None,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
