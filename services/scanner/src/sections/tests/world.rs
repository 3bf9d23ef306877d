//! Workers of a fleet on a real broker, and sources that misbehave on demand.

use std::{
    collections::HashMap,
    io::{self, Read, Write as _},
    net::TcpStream,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bus::Bus;
use cache::SectionCache;
use chassis::Cx;
use futures::future::BoxFuture;
use model::{Digest, ImageConfig, Slug};
use oci::{BlobReader, Descriptor, Image, Manifest, OciError, Resolved, Source};
use testkit::{NatsServer, TempDir};
use tokio::sync::watch;

use super::{CacheSections, LeasedSections, Sections, Stored, Wanted};
use crate::scan::{Reader, Scan, ScanError, Settings, scan};

pub(super) const PATIENCE: Duration = Duration::from_secs(30);
pub(super) const LEASE_MS: u64 = 1_500;
/// How long the broker may take; and how long a layer may, in milliseconds.
pub(super) const DEADLINE: Duration = Duration::from_millis(700);
pub(super) const TIME_MS: u64 = 1_500;

/// A broker with everything provisioned.
pub(super) struct Fleet {
    pub(super) server: NatsServer,
    pub(super) bus: Bus,
    pub(super) cache_bytes_max: u64,
    pub(super) shared_layer_bytes_min: u64,
    config: bus::Config,
}

/// A worker with a disk of its own.
pub(super) struct Worker {
    pub(super) cx: Cx,
    pub(super) sections: Arc<LeasedSections>,
    bus: Bus,
    reader: Reader,
    dir: TempDir,
    bounds: Bounds,
}

/// Bytes that a worker's cache may take, and from how many on a layer is shared.
type Bounds = (u64, u64);

/// How a source behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    Works,
    /// 401.
    Refuses,
    /// 404.
    DoesNotHaveIt,
    /// 503.
    IsAway,
    /// The stream ends after half.
    CutsOff,
    /// The stream breaks after half.
    Breaks,
    /// The stream ends in a 503 after half.
    GoesAway,
    /// Other bytes of the same length.
    Lies,
    /// The stream stops for longer than a layer may take.
    Stalls,
}

/// A source of layers.
pub(super) struct Origin {
    blobs: Mutex<HashMap<Digest, Vec<u8>>>,
    opened: watch::Sender<Vec<Digest>>,
    held: watch::Sender<Option<Digest>>,
    way: Mutex<Way>,
}

/// A stream that misbehaves at its end.
struct Stream {
    bytes: io::Cursor<Vec<u8>>,
    end: Way,
}

// === impl Fleet ===

impl Fleet {
    pub(super) async fn start() -> Option<Self> {
        Self::start_with(|_| ()).await
    }

    pub(super) async fn start_with(change: impl FnOnce(&mut bus::Config)) -> Option<Self> {
        let server = NatsServer::start()?;
        let mut config = bus::Config {
            url: Some(server.url()),
            lease_ms: LEASE_MS,
            ..bus::Config::default()
        };
        change(&mut config);
        let bus = Bus::connect(&Cx::for_tests(), &config, "test")
            .await
            .unwrap();
        bus.provision().await.unwrap();
        Some(Self {
            server,
            bus,
            cache_bytes_max: 1 << 30,
            shared_layer_bytes_min: 0,
            config,
        })
    }

    pub(super) async fn worker(&self) -> Worker {
        let cx = Cx::for_tests();
        let bus = Bus::connect(&cx, &self.config, "worker").await.unwrap();
        let bounds = (self.cache_bytes_max, self.shared_layer_bytes_min);
        Worker::open(bus, testkit::temp_dir(), bounds, cx).await
    }

    /// Leaves a lease behind as a process does that was killed. Its name.
    pub(super) fn die_holding(&self, wanted: &Wanted, blob: Digest) -> String {
        let (config, name) = (
            self.config.clone(),
            LeasedSections::lease_name(blob, wanted),
        );
        let lease = name.clone();
        let process = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(async {
                let cx = Cx::for_tests();
                let bus = Bus::connect(&cx, &config, "victim").await.unwrap();
                std::mem::forget(bus.lease(&cx, &lease).await.unwrap().unwrap());
            });
            runtime.shutdown_background();
        });
        process.join().unwrap();
        name
    }

    /// Stores a message without headers.
    pub(super) fn publish_raw(&self, subject: &str, body: &[u8]) {
        let url = self.server.url();
        let mut stream = TcpStream::connect(url.trim_start_matches("nats://")).unwrap();
        let head = format!(
            "CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n",
            body.len()
        );
        let message = [head.as_bytes(), body, b"\r\nPING\r\n"].concat();
        stream.write_all(&message).unwrap();
        let mut answer = String::new();
        while !answer.contains("PONG") {
            let mut buffer = [0; 1024];
            let read = stream.read(&mut buffer).unwrap();
            assert!(read > 0, "{answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..read]));
        }
    }
}

// === impl Worker ===

impl Worker {
    async fn open(bus: Bus, dir: TempDir, bounds: Bounds, cx: Cx) -> Self {
        let (cache_bytes_max, shared_min) = bounds;
        let path = dir.path().to_owned();
        let cache = cx.blocking(move || SectionCache::open(&path, cache_bytes_max));
        let cache = Arc::new(cache.await.unwrap().unwrap());
        let local = CacheSections::new(cx.clone(), cache, 64 << 20);
        let sections = LeasedSections::new(cx.clone(), bus.clone(), local, shared_min, DEADLINE);
        Self {
            sections: Arc::new(sections),
            reader: Reader::new(settings()),
            cx,
            bus,
            dir,
            bounds,
        }
    }

    /// The same disk under a new process.
    pub(super) async fn restarted(self) -> Self {
        let Self {
            cx,
            sections,
            bus,
            dir,
            bounds,
            ..
        } = self;
        drop(sections);
        Self::open(bus, dir, bounds, cx).await
    }

    pub(super) async fn scan(
        &self,
        image: &Image,
        origin: &Arc<Origin>,
    ) -> Result<Scan, ScanError> {
        let source: Arc<dyn Source> = Arc::clone(origin) as Arc<dyn Source>;
        scan(&self.cx, &self.reader, image, &source, &self.sections).await
    }

    pub(super) async fn get(&self, blob: Digest) -> Stored {
        self.sections.get(blob, &wanted()).await.unwrap()
    }

    /// Waits until somebody here waits for another worker.
    pub(super) async fn until_waiting(&self) {
        let mut waiting = self.sections.waiting.subscribe();
        waiting.wait_for(|waiting| *waiting > 0).await.unwrap();
    }
}

// === impl Origin ===

impl Origin {
    pub(super) fn of(layers: &[&testkit::Layer]) -> Arc<Self> {
        let origin = Arc::new(Self {
            blobs: Mutex::default(),
            opened: watch::Sender::new(Vec::new()),
            held: watch::Sender::new(None),
            way: Mutex::new(Way::Works),
        });
        for layer in layers {
            origin.add(layer);
        }
        origin
    }

    pub(super) fn add(&self, layer: &testkit::Layer) {
        let mut blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        blobs.insert(layer.digest, layer.blob.clone());
    }

    pub(super) fn set(&self, way: Way) {
        *self.way.lock().unwrap_or_else(PoisonError::into_inner) = way;
    }

    /// Opens no stream of a layer until [`Self::release`].
    pub(super) fn hold(&self, layer: Digest) {
        self.held.send_replace(Some(layer));
    }

    pub(super) fn release(&self) {
        self.held.send_replace(None);
    }

    /// How often a layer was asked for.
    pub(super) fn opened(&self, layer: Digest) -> usize {
        let opened = self.opened.borrow();
        opened.iter().filter(|digest| **digest == layer).count()
    }

    pub(super) fn all_opened(&self) -> usize {
        self.opened.borrow().len()
    }

    pub(super) async fn until_opened(&self, layer: Digest) {
        let mut opened = self.opened.subscribe();
        let is_there = opened.wait_for(|opened| opened.contains(&layer));
        is_there.await.unwrap();
    }

    fn stream(&self, blob: &Descriptor) -> Result<BlobReader, OciError> {
        let way = *self.way.lock().unwrap_or_else(PoisonError::into_inner);
        let (host, text) = ("registry.test".to_owned(), blob.digest.to_string());
        let error = match way {
            Way::Refuses => OciError::Unauthorized {
                host,
                repository: text,
                detail: "401".to_owned(),
                authenticated: false,
            },
            Way::DoesNotHaveIt => OciError::NotFound {
                what: text,
                place: host,
                missing: oci::Missing::Unsaid,
            },
            Way::IsAway => away(),
            _ => return Ok(Box::new(self.bytes(blob, way))),
        };
        Err(error)
    }

    fn bytes(&self, blob: &Descriptor, way: Way) -> Stream {
        let blobs = self.blobs.lock().unwrap_or_else(PoisonError::into_inner);
        let mut bytes = blobs[&blob.digest].clone();
        let half = bytes.len() / 2;
        match way {
            Way::CutsOff | Way::Breaks | Way::GoesAway | Way::Stalls => bytes.truncate(half),
            // Behind the archive's end, so that all else looks right.
            Way::Lies => *bytes.last_mut().unwrap() ^= 1,
            _ => {}
        }
        Stream {
            bytes: io::Cursor::new(bytes),
            end: way,
        }
    }
}

impl Source for Origin {
    fn resolve<'a>(
        &'a self,
        _wanted: &'a oci::Wanted,
    ) -> BoxFuture<'a, Result<Resolved, OciError>> {
        unreachable!("a scan gets its image resolved")
    }

    fn open_blob<'a>(
        &'a self,
        _repository: &'a str,
        blob: &'a Descriptor,
    ) -> BoxFuture<'a, Result<BlobReader, OciError>> {
        Box::pin(async move {
            self.opened.send_modify(|opened| opened.push(blob.digest));
            let mut held = self.held.subscribe();
            let is_free = held.wait_for(|held| *held != Some(blob.digest)).await;
            is_free.unwrap();
            self.stream(blob)
        })
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.bytes.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        match self.end {
            Way::Breaks => Err(io::Error::other("connection reset")),
            Way::GoesAway => Err(io::Error::other(away())),
            Way::Stalls => {
                // What is tested is a clock that runs out.
                std::thread::sleep(Duration::from_millis(TIME_MS + 200));
                Ok(0)
            }
            _ => Ok(0),
        }
    }
}

fn away() -> OciError {
    OciError::Unavailable {
        host: "registry.test".to_owned(),
        detail: "503".to_owned(),
        retry_after: None,
    }
}

fn settings() -> Settings {
    Settings {
        domain: Slug::default_tenant(),
        analyzers: analyzers::Config::default(),
        malware: None,
        lock_files: false,
        limits: archive::Limits {
            time_ms: TIME_MS,
            ..archive::Limits::default()
        },
        layers_at_once: 1,
        layers_max: 100,
    }
}

pub(super) fn wanted() -> Wanted {
    Wanted::clone(&Reader::new(settings()).wanted)
}

pub(super) async fn scan_with(
    cx: &Cx,
    image: &Image,
    origin: &Arc<Origin>,
    sections: &dyn Sections,
) -> Result<Scan, ScanError> {
    let source: Arc<dyn Source> = Arc::clone(origin) as Arc<dyn Source>;
    scan(cx, &Reader::new(settings()), image, &source, sections).await
}

/// An image of these layers.
pub(super) fn image_of(layers: &[&testkit::Layer]) -> Image {
    let digests: Vec<String> = layers.iter().map(|layer| layer.digest.hex()).collect();
    let digest = Digest::of(digests.join(" ").as_bytes());
    let descriptor = |layer: &&testkit::Layer| Descriptor {
        digest: layer.digest,
        size: layer.size,
        media_type: layer.media_type(false),
    };
    Image {
        digest,
        reference: "registry.test/app:1".to_owned(),
        repository: "app".to_owned(),
        platform: model::Platform::default(),
        manifest: Manifest {
            config: Descriptor {
                digest,
                size: 1,
                media_type: String::new(),
            },
            layers: layers.iter().map(descriptor).collect(),
        },
        config: ImageConfig {
            diff_ids: layers.iter().map(|layer| layer.diff_id).collect(),
            ..ImageConfig::default()
        },
        image_id: digest,
        has_registry_manifest: true,
        index: None,
        gaps: Vec::new(),
    }
}

/// A future that must end in time.
pub(super) async fn soon<T>(future: impl Future<Output = T>) -> T {
    let ended = tokio::time::timeout(PATIENCE, future).await;
    ended.expect("in time")
}
