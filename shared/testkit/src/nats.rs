//! A NATS server with JetStream.

use std::{path::PathBuf, process::Command};

use crate::{
    process::{self, Process},
    temp_dir,
};

/// A plain `nats-server` on a free port of 127.0.0.1, with its store in a temporary directory.
#[derive(Debug)]
pub struct NatsServer {
    process: Option<Process>,
    program: PathBuf,
    port: u16,
    monitor: u16,
    dir: tempfile::TempDir,
}

// === impl NatsServer ===

impl NatsServer {
    /// Starts a server; `None`, with a reason on standard error, where it is not installed.
    pub fn start() -> Option<Self> {
        Self::start_with("")
    }

    /// Starts one with more configuration, as accounts.
    pub fn start_with(config: &str) -> Option<Self> {
        let program = process::find_program("nats-server", "nats-server")?;
        let mut server = Self {
            process: None,
            program,
            port: 0,
            monitor: 0,
            dir: temp_dir(),
        };
        // Streams reserve more than the disk of a test machine may have.
        let config = format!("jetstream {{ max_file_store: 100GB }}\n{config}");
        std::fs::write(server.config(), config).expect("a configuration file");
        for _ in 0..5 {
            server.port = process::free_port();
            server.monitor = process::free_port();
            if server.try_start() {
                return Some(server);
            }
        }
        panic!("nats-server does not start");
    }

    /// Its URL, the same after a restart.
    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// Where it says in JSON what it holds, as `<url>/jsz?consumers=true`.
    pub fn monitor_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.monitor)
    }

    /// Where it keeps its streams.
    pub fn store_dir(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Its process id while it runs.
    pub fn id(&self) -> Option<u32> {
        self.process.as_ref().map(Process::id)
    }

    /// Kills it as `kill -9` does. Its store stays.
    pub fn kill(&mut self) {
        self.process = None;
    }

    /// Kills it if it runs, and starts it again on the same port and store.
    pub fn restart(&mut self) {
        self.kill();
        assert!(
            self.try_start(),
            "nats-server does not start again: {}",
            self.log()
        );
    }

    /// Kills it if it runs, and starts it again on the same port with an empty store, as after the
    /// loss of its disk.
    pub fn lose(&mut self) {
        self.kill();
        std::fs::remove_dir_all(self.store_dir()).expect("the store can be removed");
        self.restart();
    }

    /// What it logged.
    #[expect(clippy::disallowed_methods, reason = "a log file of a test")]
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default()
    }

    fn config(&self) -> PathBuf {
        self.dir.path().join("nats-server.conf")
    }

    fn try_start(&mut self) -> bool {
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(self.config());
        command.args([
            "--addr",
            "127.0.0.1",
            "--port",
            &self.port.to_string(),
            "--http_port",
            &self.monitor.to_string(),
            "--jetstream",
        ]);
        command.arg("--store_dir").arg(self.store_dir());
        self.process = Process::start(&mut command, &self.dir.path().join("log"), self.port);
        self.process.is_some()
    }
}
