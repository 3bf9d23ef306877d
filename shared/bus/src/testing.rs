//! What this crate's tests need: a nats-server of their own each.

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use chassis::Cx;
use tempfile::TempDir;

use crate::{Bus, Config};

/// How long a test waits for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    child: Option<Child>,
    dir: TempDir,
    port: u16,
}

/// A server with everything provisioned and a bus on it.
pub(crate) struct World {
    pub(crate) server: Server,
    pub(crate) cx: Cx,
    pub(crate) bus: Bus,
}

// === impl Server ===

impl Server {
    /// `None`, with the reason printed, where there is no nats-server.
    pub(crate) async fn start() -> Option<Self> {
        let installed = Command::new("nats-server")
            .arg("--version")
            .output()
            .is_ok();
        if !installed {
            println!("skipped: no nats-server on the path");
            return None;
        }
        let port = {
            let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            socket.local_addr().unwrap().port()
        };
        let mut server = Self {
            child: None,
            dir: TempDir::new().unwrap(),
            port,
        };
        server.up().await;
        Some(server)
    }

    pub(crate) async fn up(&mut self) {
        let mut command = Command::new("nats-server");
        command.args([
            "--addr",
            "127.0.0.1",
            "--port",
            &self.port.to_string(),
            "--jetstream",
        ]);
        command.arg("--store_dir").arg(self.dir.path());
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

    pub(crate) fn config(&self) -> Config {
        Config {
            url: Some(format!("nats://127.0.0.1:{}", self.port)),
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
        let server = Server::start().await?;
        let cx = Cx::for_tests();
        let bus = Bus::connect(&cx, &server.config(), "test").await.unwrap();
        bus.provision().await.unwrap();
        Some(Self { server, cx, bus })
    }

    /// Another process's bus, as far as NATS can tell.
    pub(crate) async fn other(&self) -> (Cx, Bus) {
        let cx = Cx::for_tests();
        let bus = Bus::connect(&cx, &self.server.config(), "other")
            .await
            .unwrap();
        (cx, bus)
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
