//! What this crate's tests need: a nats-server of their own each.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::{Duration, Instant},
};

use chassis::Cx;
use jiff::Timestamp;
use model::{
    AlertState, Fingerprint, Severity,
    event::{Alert, DeadLetter, ImagePushed, JOBS},
};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::{Bus, Config, Consume, Handler};

/// Names another server binary than the `nats-server` on the path, to run the suite on it.
const BINARY: &str = "TIDEWAITER_NATS_SERVER";
/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Option<Child>,
    dir: TempDir,
    port: u16,
    /// Settings beside those of every test.
    config: String,
}

/// A disk of its own, in memory.
pub(crate) struct Disk(TempDir);

impl Disk {
    /// One of so many KiB. `None`, with the reason printed, where this process may mount none.
    pub(crate) fn mount(kib: u32) -> Option<Self> {
        let dir = TempDir::new().unwrap();
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={kib}k"), "tmpfs"]);
        let mounted = mount.arg(dir.path()).stderr(Stdio::null()).status();
        if mounted.is_ok_and(|status| status.success()) {
            return Some(Self(dir));
        }
        println!("skipped: this process cannot mount a small disk");
        None
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Takes all space that is left, until the file that it gives is removed.
    pub(crate) fn fill(&self) -> PathBuf {
        use std::io::Write as _;
        let path = self.path().join("filler");
        let mut file = std::fs::File::create(&path).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        path
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // What is still open in it goes with the process.
        let unmounted = Command::new("umount").arg("-l").arg(self.path()).status();
        assert!(unmounted.is_ok_and(|status| status.success()));
    }
}

/// A server with everything provisioned and a bus on it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) cx: Cx,
    pub(crate) bus: Bus,
}

/// Another process that can be killed, as far as NATS can tell: it has a runtime of its own.
pub(crate) struct Mortal {
    runtime: Option<Runtime>,
    cx: Cx,
    pub(crate) bus: Bus,
}

// === impl Server ===

impl Server {
    /// `None`, with the reason printed, where there is no nats-server.
    pub(crate) async fn start() -> Option<Self> {
        Self::open(TempDir::new().unwrap(), "").await
    }

    /// One that stores in a directory.
    pub(crate) async fn start_in(dir: TempDir) -> Option<Self> {
        Self::open(dir, "").await
    }

    /// One with settings, as for accounts.
    pub(crate) async fn start_with(config: &str) -> Option<Self> {
        Self::open(TempDir::new().unwrap(), config).await
    }

    async fn open(dir: TempDir, config: &str) -> Option<Self> {
        let installed = Command::new(binary()).arg("--version").output().is_ok();
        if !installed {
            println!("skipped: no `{}` that can be run", binary());
            return None;
        }
        let port = {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap().port()
        };
        let mut server = Self {
            child: None,
            dir,
            port,
            config: config.to_owned(),
        };
        server.up().await;
        Some(server)
    }

    pub(crate) async fn up(&mut self) {
        let mut command = Command::new(binary());
        command.args([
            "--addr",
            "127.0.0.1",
            "--port",
            &self.port.to_string(),
            "--jetstream",
        ]);
        command.arg("--store_dir").arg(self.dir.path());
        // Streams reserve more than a test's disk has.
        let room = if self.config.contains("max_file_store") {
            ""
        } else {
            "jetstream { max_file_store: 100GB }"
        };
        let settings = format!("{room}\n{}", self.config);
        let config = self.dir.path().join("nats.conf");
        std::fs::write(&config, settings).unwrap();
        command.arg("--config").arg(config);
        command.arg("--log").arg(self.dir.path().join("log"));
        self.child = Some(command.stdin(Stdio::null()).spawn().unwrap());
        eventually("nats-server listens", async || {
            tokio::net::TcpStream::connect(("127.0.0.1", self.port))
                .await
                .is_ok()
        })
        .await;
    }

    /// As a crash.
    pub(crate) fn down(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Loses everything that it stored, as with its disk.
    pub(crate) async fn lose(&mut self) {
        self.down();
        std::fs::remove_dir_all(self.dir.path().join("jetstream")).unwrap();
        self.up().await;
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    pub(crate) fn config(&self) -> Config {
        Config {
            url: Some(self.url()),
            ack_wait_ms: 2_000,
            lease_ms: 1_500,
            grace_ms: 500,
            retry_ms: 100,
            ..Config::default()
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.down();
    }
}

// === impl World ===

impl World {
    pub(crate) async fn start() -> Option<Self> {
        Self::with(|config| config).await
    }

    /// One with other settings than most tests need.
    pub(crate) async fn with(change: impl FnOnce(Config) -> Config) -> Option<Self> {
        let server = Server::start().await?;
        let cx = Cx::for_tests();
        let config = change(server.config());
        let bus = Bus::connect(&cx, &config, "test").await.unwrap();
        bus.provision().await.unwrap();
        Some(Self { server, cx, bus })
    }

    /// Another process's bus, as far as NATS can tell.
    pub(crate) async fn other(&self) -> (Cx, Bus) {
        let cx = Cx::for_tests();
        let config = self.bus.config();
        let bus = Bus::connect(&cx, config, "other").await.unwrap();
        (cx, bus)
    }

    /// Another process that can be killed.
    pub(crate) async fn mortal(&self) -> Mortal {
        let mut runtime = tokio::runtime::Builder::new_multi_thread();
        let runtime = runtime.worker_threads(1).enable_all().build().unwrap();
        let (cx, config) = (Cx::for_tests(), self.bus.config().clone());
        let of_bus = cx.clone();
        let connect = async move { Bus::connect(&of_bus, &config, "mortal").await.unwrap() };
        let bus = runtime.spawn(connect).await.unwrap();
        let runtime = Some(runtime);
        Mortal { runtime, cx, bus }
    }
}

// === impl Mortal ===

impl Mortal {
    pub(crate) fn serve<H: Handler>(&self, consume: Consume, handler: Arc<H>) {
        let _inside = self.runtime.as_ref().unwrap().enter();
        self.bus.consume(&self.cx, consume, handler);
    }

    /// As `kill -9`: nothing is acknowledged, given back or released.
    pub(crate) fn kill(self) {
        drop(self);
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

fn binary() -> String {
    chassis::config::env_var(BINARY).unwrap_or_else(|| "nats-server".to_owned())
}

/// So many dead letters, oldest first.
pub(crate) async fn letters(bus: &Bus, wanted: usize) -> Vec<DeadLetter> {
    eventually("dead letters", async || {
        let page = bus.dead_letters(None, 100).await.unwrap();
        page.letters.len() == wanted
    })
    .await;
    let page = bus.dead_letters(None, 100).await.unwrap();
    let letters = page.letters.into_iter().rev();
    letters.map(|letter| letter.letter).collect()
}

/// All jobs are acknowledged. The stream itself may hold some that are: a server that was killed
/// forgets removals, but not acknowledgments.
pub(crate) async fn queue_is_empty(bus: &Bus) {
    eventually("no job is left", async || {
        bus.backlog(JOBS, "image_norm")
            .await
            .is_ok_and(|left| left == 0)
    })
    .await;
}

/// An alert with a title of its own.
pub(crate) fn alert(title: &str) -> Alert {
    Alert {
        fingerprint: Fingerprint(title.to_owned()),
        state: AlertState::Raised,
        severity: Severity::High,
        title: title.to_owned(),
        text: String::new(),
        image: None,
        references: Vec::new(),
        event: String::new(),
        at: Timestamp::UNIX_EPOCH,
        policy: None,
        reminder: 0,
    }
}

/// An event.
pub(crate) fn pushed(repository: &str) -> ImagePushed {
    ImagePushed {
        source: "main".parse().unwrap(),
        repository: repository.to_owned(),
        tag: None,
        digest: None,
        sender_id: None,
        occurred_at: Timestamp::UNIX_EPOCH,
        priority: model::event::Priority::Norm,
    }
}

/// Waits for a condition.
pub(crate) async fn eventually(what: &str, condition: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !condition().await {
        assert!(Instant::now() < deadline, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A future that must end in time.
pub(crate) async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .expect("in time")
}
