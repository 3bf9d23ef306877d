//! A registry: Debian's `docker-registry`, which is CNCF Distribution 2.8.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
};

use model::Digest;

use crate::{
    artifact::{Artifact, Document, StoredBlob},
    http,
    process::{self, Process},
    temp_dir,
};

/// The user that a registry with authentication knows.
pub const USERNAME: &str = "tester";
/// The user's password.
pub const PASSWORD: &str = "secret";

/// `tester:secret`, as bcrypt with the smallest cost.
const HTPASSWD: &str = "tester:$2b$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
/// `tester:secret` as basic authentication sends it.
const BASIC: &str = "Basic dGVzdGVyOnNlY3JldA==";

/// How a registry is set up.
#[derive(Clone, Debug, Default)]
pub struct RegistryOptions {
    /// Whether it wants [`USERNAME`] and [`PASSWORD`].
    pub password: bool,
    /// Where it sends its events.
    pub notifications: Option<Notifications>,
    /// Further lines for its configuration (YAML, top level), as an `auth` section of another kind.
    pub extra: String,
    /// Whether it remembers which blobs there are, as Debian's package sets it up. What is done
    /// behind its back may then go unseen.
    pub remembers_blobs: bool,
    /// Variables of its environment, as for the collection of garbage.
    pub environment: Vec<(String, String)>,
}

/// Where a registry sends its events.
#[derive(Clone, Debug)]
pub struct Notifications {
    /// The URL.
    pub url: String,
    /// The header `Authorization`, as `Bearer …`.
    pub authorization: Option<String>,
}

/// A registry on a free port of 127.0.0.1, with its storage in a temporary directory.
#[derive(Debug)]
pub struct RegistryServer {
    process: Option<Process>,
    program: PathBuf,
    port: u16,
    dir: tempfile::TempDir,
    options: RegistryOptions,
}

/// A line of the access log: somebody fetched a blob.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BlobGet {
    /// The repository.
    pub repository: String,
    /// The blob.
    pub digest: Digest,
    /// The client's name for itself.
    pub user_agent: String,
}

// === impl RegistryServer ===

impl RegistryServer {
    /// Starts a registry; `None`, with a reason on standard error, where it is not installed.
    pub fn start(options: RegistryOptions) -> Option<Self> {
        let program = process::find_program("docker-registry", "docker-registry")?;
        let (process, port, dir) = (None, 0, temp_dir());
        let mut server = Self {
            process,
            program,
            port,
            dir,
            options,
        };
        for _ in 0..5 {
            server.port = process::free_port();
            if server.try_start() {
                return Some(server);
            }
        }
        panic!("docker-registry does not start");
    }

    /// Host and port, as in a reference.
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// Its process id while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Kills it. Its storage stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills it if it runs, and starts it again on the same port and storage.
    pub fn restart(&mut self) {
        self.kill();
        assert!(
            self.try_start(),
            "docker-registry does not start again: {}",
            self.log()
        );
    }

    /// Pushes an image or an index under a tag; returns its digest.
    ///
    /// A blob whose bytes do not have the digest that it is stored under is put into the storage
    /// behind the registry's back, for it would refuse it.
    pub fn push(&self, artifact: impl Into<Artifact>, repository: &str, tag: &str) -> Digest {
        let artifact = artifact.into();
        for blob in &artifact.blobs {
            self.push_blob(repository, blob);
        }
        for child in &artifact.children {
            self.push_manifest(repository, &child.digest.to_string(), child);
        }
        self.push_manifest(repository, tag, &artifact.root);
        artifact.root.digest
    }

    /// Pushes a single blob.
    pub fn push_blob(&self, repository: &str, blob: &StoredBlob) {
        if Digest::of(&blob.bytes) != blob.digest {
            self.plant_blob(repository, blob);
            return;
        }
        let path = format!("/v2/{repository}/blobs/{}", blob.digest);
        if self.send("HEAD", &path, &[], b"").status == 200 {
            return;
        }
        let start = self.send(
            "POST",
            &format!("/v2/{repository}/blobs/uploads/"),
            &[],
            b"",
        );
        let start = start.expect(202, "starting an upload");
        let location = start.header("location").expect("a location").to_owned();
        let path = location
            .strip_prefix(&format!("http://{}", self.host()))
            .unwrap_or(&location);
        let separator = if path.contains('?') { '&' } else { '?' };
        let path = format!("{path}{separator}digest={}", blob.digest);
        let headers = [("Content-Type", "application/octet-stream")];
        self.send("PUT", &path, &headers, &blob.bytes)
            .expect(201, "uploading a blob");
    }

    /// Pushes a manifest or index under a tag or digest.
    pub fn push_manifest(&self, repository: &str, reference: &str, document: &Document) {
        let path = format!("/v2/{repository}/manifests/{reference}");
        let headers = [("Content-Type", document.media_type.as_str())];
        self.send("PUT", &path, &headers, &document.bytes)
            .expect(201, "pushing a manifest");
    }

    /// Deletes a manifest, and with it its tags.
    pub fn delete_manifest(&self, repository: &str, digest: Digest) {
        let path = format!("/v2/{repository}/manifests/{digest}");
        self.send("DELETE", &path, &[], b"")
            .expect(202, "deleting a manifest");
    }

    /// Writes a blob's bytes into the storage, whatever they are.
    pub fn plant_blob(&self, repository: &str, blob: &StoredBlob) {
        let link = format!(
            "repositories/{repository}/_layers/sha256/{}/link",
            blob.digest.hex()
        );
        plant(&self.storage(&link), blob.digest.to_string().as_bytes());
        plant(&self.blob_path(blob.digest), &blob.bytes);
    }

    /// Writes an image or index into the storage, as if it had been pushed; nobody is told. Much
    /// faster than pushing.
    pub fn plant(&self, artifact: impl Into<Artifact>, repository: &str, tag: &str) -> Digest {
        let artifact = artifact.into();
        for blob in &artifact.blobs {
            if !self.blob_path(blob.digest).exists() {
                plant(&self.blob_path(blob.digest), &blob.bytes);
            }
            let hex = blob.digest.hex();
            let link = format!("repositories/{repository}/_layers/sha256/{hex}/link");
            if !self.storage(&link).exists() {
                plant(&self.storage(&link), blob.digest.to_string().as_bytes());
            }
        }
        let manifests = format!("repositories/{repository}/_manifests");
        for document in artifact.children.iter().chain([&artifact.root]) {
            plant(&self.blob_path(document.digest), &document.bytes);
            let (digest, hex) = (document.digest.to_string(), document.digest.hex());
            let link = format!("{manifests}/revisions/sha256/{hex}/link");
            plant(&self.storage(&link), digest.as_bytes());
        }
        let (digest, hex) = (artifact.root.digest.to_string(), artifact.root.digest.hex());
        for link in [
            "current/link".to_owned(),
            format!("index/sha256/{hex}/link"),
        ] {
            let link = format!("{manifests}/tags/{tag}/{link}");
            plant(&self.storage(&link), digest.as_bytes());
        }
        artifact.root.digest
    }

    /// Removes a blob's bytes from the storage, as a garbage collection that went wrong.
    pub fn lose_blob(&self, digest: Digest) {
        fs::remove_file(self.blob_path(digest)).expect("the blob is there");
    }

    /// Everything that it logged, errors and accesses.
    #[expect(clippy::disallowed_methods, reason = "a log file of a test")]
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Which blobs were fetched, in order, as the access log says. Configs are blobs, too.
    pub fn blob_gets(&self) -> Vec<BlobGet> {
        self.log().lines().filter_map(BlobGet::parse).collect()
    }

    /// Starts [`RegistryServer::log`] and [`RegistryServer::blob_gets`] anew.
    pub fn clear_log(&self) {
        let log = File::options()
            .write(true)
            .open(self.log_path())
            .expect("a log file");
        log.set_len(0).expect("a log file");
    }

    fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> http::Answer {
        let mut headers = headers.to_vec();
        if self.options.password {
            headers.push(("Authorization", BASIC));
        }
        http::send(&self.host(), method, path, &headers, body)
    }

    fn try_start(&mut self) -> bool {
        let config = self.dir.path().join("config.yml");
        fs::write(self.dir.path().join("htpasswd"), HTPASSWD).expect("the directory is writable");
        fs::write(&config, self.config()).expect("the directory is writable");
        let mut command = Command::new(&self.program);
        command
            .arg("serve")
            .arg(config)
            .env("OTEL_TRACES_EXPORTER", "none")
            .envs(self.options.environment.iter().cloned());
        self.process = Process::start(&mut command, &self.log_path(), self.port);
        self.process.is_some()
    }

    fn config(&self) -> String {
        let dir = self.dir.path().display();
        let cache = if self.options.remembers_blobs {
            "  cache:\n    blobdescriptor: inmemory\n"
        } else {
            ""
        };
        let mut text = format!(
            "version: 0.1\n\
             log:\n  level: warn\n\
             storage:\n  filesystem:\n    rootdirectory: {dir}/storage\n  delete:\n    enabled: true\n{cache}\
             http:\n  addr: 127.0.0.1:{}\n",
            self.port
        );
        if self.options.password {
            text.extend([format!(
                "auth:\n  htpasswd:\n    realm: tests\n    path: {dir}/htpasswd\n"
            )]);
        }
        if let Some(Notifications { url, authorization }) = &self.options.notifications {
            text.extend([format!(
                "notifications:\n  endpoints:\n    - name: tests\n      url: {url}\n      \
                 timeout: 2s\n      threshold: 3\n      backoff: 1s\n"
            )]);
            if let Some(authorization) = authorization {
                text.extend([format!(
                    "      headers:\n        Authorization: [\"{authorization}\"]\n"
                )]);
            }
        }
        text.push_str(&self.options.extra);
        text
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    fn storage(&self, path: &str) -> PathBuf {
        self.dir
            .path()
            .join("storage/docker/registry/v2")
            .join(path)
    }

    fn blob_path(&self, digest: Digest) -> PathBuf {
        let hex = digest.hex();
        self.storage(&format!("blobs/sha256/{}/{hex}/data", &hex[..2]))
    }
}

// === impl BlobGet ===

impl BlobGet {
    /// Reads a line as `127.0.0.1 - - [date] "GET /v2/app/blobs/sha256:… HTTP/1.1" 200 …`.
    fn parse(line: &str) -> Option<Self> {
        let mut quoted = line.split('"').skip(1).step_by(2);
        let mut request = quoted.next()?.split(' ');
        let status = line.split('"').nth(2)?.trim_start().split(' ').next()?;
        let user_agent = quoted.last().unwrap_or_default().to_owned();
        if request.next()? != "GET" || !status.starts_with('2') {
            return None;
        }
        let path = request.next()?.strip_prefix("/v2/")?;
        let (repository, digest) = path.split_once("/blobs/")?;
        let digest = digest.split('?').next()?.parse().ok()?;
        Some(Self {
            repository: repository.to_owned(),
            digest,
            user_agent,
        })
    }
}

fn plant(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("the storage is writable");
    fs::write(path, bytes).expect("the storage is writable");
}
