//! A `nats-server` of our own, for a team, a demo and the tests: on loopback, with random
//! credentials, gone when we are gone.
//!
//! The kernel kills it when the *thread* that started it ends (`setpriv --pdeathsig`), so one
//! thread, alive as long as the process, starts it and looks after it; a thread of a pool would
//! take it down when it idles. Between fork and `setpriv` we may die unnoticed: the shell that
//! `setpriv` starts compares its parent with us before it becomes the server. A server that dies
//! while we live is started again on the same port.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use chassis::Cx;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::{BusError, Config, random, wire::Wire};

/// A store of millions of messages takes some seconds to open.
const READY: Duration = Duration::from_mins(2);
const POLL: Duration = Duration::from_millis(50);
/// How long a server may take to close its files.
const CLOSE: Duration = Duration::from_secs(10);
/// Memory that the server's garbage collector aims at.
const GO_MEMORY_LIMIT: &str = "1GiB";
/// Streams reserve their limits when they are made, whatever the disk has; the disk is the limit.
const STORE_BYTES_MAX: u64 = 1 << 40;
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// A server that lives as long as this value, and never longer than this process.
#[derive(Debug)]
pub struct PrivateServer {
    url: String,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    files: Files,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    child: Option<Child>,
    stopping: bool,
    /// Why it could not be started.
    problem: Option<String>,
}

/// What the server is started with.
#[derive(Debug)]
struct Files {
    server: PathBuf,
    dir: PathBuf,
    user: String,
    password: String,
}

#[derive(Deserialize)]
struct Ports {
    nats: Vec<String>,
}

// === impl PrivateServer ===

impl PrivateServer {
    /// Starts one with its data under `data_dir/nats`, and waits until it answers.
    pub async fn start(cx: &Cx, data_dir: &Path) -> Result<Self, BusError> {
        let files = Files::prepare(data_dir)?;
        files.configure(None)?;
        let shared = Arc::new(Shared {
            files,
            state: Mutex::default(),
        });
        let of_thread = Arc::clone(&shared);
        let thread = thread::Builder::new()
            .name("nats-server".to_owned())
            .spawn(move || of_thread.look_after())
            .map_err(|source| BusError::Io {
                what: "starting a thread".to_owned(),
                source,
            })?;
        let mut server = Self {
            url: String::new(),
            shared,
            thread: Some(thread),
        };
        let deadline = Instant::now() + READY;
        let port = server.port(cx, deadline).await?;
        server.shared.files.configure(Some(port))?;
        let Files { user, password, .. } = &server.shared.files;
        server.url = format!("nats://{user}:{password}@127.0.0.1:{port}");
        server.answers(cx, deadline).await?;
        tracing::info!(port, "private nats-server on port {port}");
        Ok(server)
    }

    /// Its address, with credentials.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The address, with credentials, of the private server of another process that works in
    /// `data_dir`, for tools of whoever may read that process's files. `None`: none was started
    /// there, or its files are not for us to read.
    pub fn find(data_dir: &Path) -> Option<String> {
        let path = data_dir.join("nats").join("server.conf");
        let text = chassis::files::read_text_bounded(&path, 64 * 1024).ok()?;
        let field = |name: &str| -> Option<Value> {
            let line = text.lines().find_map(|line| line.strip_prefix(name))?;
            serde_json::from_str(line.strip_prefix(": ")?).ok()
        };
        let (listen, login) = (field("listen")?, field("authorization")?);
        let part = |name: &str| login.get(name).and_then(Value::as_str);
        let address = listen
            .as_str()
            .filter(|address| !address.ends_with(":-1"))?;
        Some(format!(
            "nats://{}:{}@{address}",
            part("user")?,
            part("password")?
        ))
    }

    /// Its process.
    pub fn pid(&self) -> Option<u32> {
        self.shared.state().child.as_ref().map(Child::id)
    }

    /// Stops it and waits until its files are closed. To be called when nothing needs it any more.
    pub async fn stop(mut self, cx: &Cx) {
        self.shared.terminate();
        if let Some(thread) = self.thread.take()
            && cx.blocking(move || thread.join().is_ok()).await != Ok(true)
        {
            tracing::warn!("the thread of the private nats-server ended badly");
        }
    }

    /// The port it chose.
    async fn port(&self, cx: &Cx, deadline: Instant) -> Result<u16, BusError> {
        loop {
            if let Some(port) = self.pid().and_then(|pid| self.shared.files.read_port(pid)) {
                return Ok(port);
            }
            let problem = self.shared.state().problem.clone();
            if let Some(problem) = problem {
                return Err(BusError::Server(problem));
            }
            if Instant::now() > deadline || cx.is_stopping() {
                return Err(BusError::Server("`nats-server` does not start".to_owned()));
            }
            sleep(POLL).await;
        }
    }

    async fn answers(&self, cx: &Cx, deadline: Instant) -> Result<(), BusError> {
        let config = Config {
            url: Some(self.url.clone()),
            ..Config::default()
        };
        let wire = Wire::open(&config, "start").await?;
        loop {
            match wire.api("INFO", &Value::Null).await {
                Ok(_) => return Ok(()),
                Err(error) if Instant::now() > deadline || cx.is_stopping() => {
                    let log = self.shared.files.dir.join("server.log");
                    return Err(BusError::Server(format!(
                        "`nats-server` does not answer: {error}; see `{}`",
                        log.display()
                    )));
                }
                Err(_) => sleep(POLL).await,
            }
        }
    }
}

impl Drop for PrivateServer {
    fn drop(&mut self) {
        self.shared.terminate();
    }
}

// === impl Shared ===

impl Shared {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The life of the thread: start, look every now and then, start again.
    fn look_after(&self) {
        let mut stop_by = None;
        loop {
            {
                let mut state = self.state();
                if state.child.is_none() && !state.stopping {
                    match self.files.start() {
                        Ok(child) => state.child = Some(child),
                        Err(error) => {
                            state.problem = Some(format!("`setpriv` and `nats-server`: {error}"));
                        }
                    }
                }
                self.check(&mut state, &mut stop_by);
                if state.stopping && state.child.is_none() {
                    return;
                }
            }
            thread::sleep(POLL);
        }
    }

    fn check(&self, state: &mut State, stop_by: &mut Option<Instant>) {
        let Some(child) = state.child.as_mut() else {
            return;
        };
        match child.try_wait() {
            Ok(None) => {}
            Ok(Some(status)) => {
                state.child = None;
                if !state.stopping {
                    let log = self.files.dir.join("server.log").display().to_string();
                    let problem = format!("`nats-server` ended with {status}; see `{log}`");
                    tracing::warn!("{problem}");
                    state.problem = Some(problem);
                    thread::sleep(POLL * 10);
                }
                return;
            }
            Err(error) => tracing::warn!(%error, "waiting for nats-server: {error}"),
        }
        if state.stopping {
            let by = *stop_by.get_or_insert_with(|| Instant::now() + CLOSE);
            if Instant::now() > by && child.kill().is_err() {
                tracing::warn!("nats-server cannot be killed");
            }
        }
    }

    /// Asks the server to close its files and end.
    fn terminate(&self) {
        let mut state = self.state();
        if state.stopping {
            return;
        }
        state.stopping = true;
        // The lock is held, so the thread has not reaped it and the number is still its own.
        if let Some(pid) = state.child.as_ref().map(Child::id) {
            let killed = Command::new("kill")
                .args(["-TERM", &pid.to_string()])
                .status();
            if !killed.is_ok_and(|status| status.success()) {
                tracing::debug!("nats-server did not take the signal to end");
            }
        }
    }
}

// === impl Files ===

impl Files {
    fn prepare(data_dir: &Path) -> Result<Self, BusError> {
        let server = find("nats-server").ok_or_else(|| {
            BusError::Server(
                "`nats-server` is not installed: on Debian and Ubuntu `apt-get install \
                 nats-server`, elsewhere from https://nats.io/download; or give the address of an \
                 existing one"
                    .to_owned(),
            )
        })?;
        let missing = || BusError::Server("`setpriv` (util-linux) is not installed".to_owned());
        find("setpriv").ok_or_else(missing)?;
        let dir = data_dir.join("nats");
        let ports = dir.join("ports");
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&ports);
        made.map_err(|source| BusError::Io {
            what: ports.display().to_string(),
            source,
        })?;
        let dir = dir.canonicalize().map_err(|source| BusError::Io {
            what: dir.display().to_string(),
            source,
        })?;
        Ok(Self {
            server,
            dir,
            user: random::token(),
            password: random::token(),
        })
    }

    /// Writes the configuration, readable by us alone.
    fn configure(&self, port: Option<u16>) -> Result<(), BusError> {
        let path = self.config();
        let port = port.map_or_else(|| "-1".to_owned(), |port| port.to_string());
        let text = |value: &Path| Value::from(value.to_string_lossy().into_owned());
        let lines = [
            ("listen", json!(format!("127.0.0.1:{port}"))),
            ("server_name", json!("tidewaiter")),
            ("ports_file_dir", text(&self.dir.join("ports"))),
            ("log_file", text(&self.dir.join("server.log"))),
            ("logfile_size_limit", json!(LOG_BYTES_MAX)),
            (
                "jetstream",
                json!({
                    "store_dir": text(&self.dir),
                    "max_file_store": STORE_BYTES_MAX,
                }),
            ),
            (
                "authorization",
                json!({ "user": self.user, "password": self.password }),
            ),
        ];
        let lines = lines
            .map(|(name, value)| format!("{name}: {value}\n"))
            .concat();
        write_private(&path, lines.as_bytes()).map_err(|source| BusError::Io {
            what: path.display().to_string(),
            source,
        })
    }

    fn config(&self) -> PathBuf {
        self.dir.join("server.conf")
    }

    /// To be called on the thread that looks after the server.
    fn start(&self) -> io::Result<Child> {
        let script = r#"[ "$PPID" = "$1" ] && exec "$2" --config "$3""#;
        Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "sh", "-c", script, "x"])
            .arg(std::process::id().to_string())
            .arg(&self.server)
            .arg(self.config())
            .env("GOMEMLIMIT", GO_MEMORY_LIMIT)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
    }

    fn read_port(&self, pid: u32) -> Option<u16> {
        let path = self
            .dir
            .join("ports")
            .join(format!("nats-server_{pid}.ports"));
        let bytes = chassis::files::read_bounded(&path, 64 * 1024).ok()?;
        let ports: Ports = serde_json::from_slice(&bytes).ok()?;
        ports.nats.first()?.rsplit(':').next()?.parse().ok()
    }
}

/// Writes a file that only we can read, whole or not at all.
pub(crate) fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("new");
    if new.exists() {
        fs::remove_file(&new)?;
    }
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(bytes)?;
    fs::rename(&new, path)
}

/// A program on the path, or where Debian puts servers.
fn find(program: &str) -> Option<PathBuf> {
    let path = chassis::config::env_var("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin")]);
    dirs.map(|dir| dir.join(program))
        .find(|file| file.is_file())
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader},
        os::unix::fs::PermissionsExt as _,
    };

    use super::*;
    use crate::{
        Bus,
        testing::{eventually, soon},
    };

    /// Where the child process of a test works.
    const CHILD_DIR: &str = "TIDEWAITER_TEST_PRIVATE_SERVER";

    fn installed() -> bool {
        let all = ["nats-server", "setpriv"]
            .iter()
            .all(|program| find(program).is_some());
        if !all {
            println!("skipped: no nats-server or no setpriv on the path");
        }
        all
    }

    /// Running and not a zombie.
    fn lives(pid: u32) -> bool {
        let stat = chassis::files::read_bounded(Path::new(&format!("/proc/{pid}/stat")), 4_096);
        let stat = stat.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
        stat.is_ok_and(|stat| {
            let state = stat
                .rsplit(") ")
                .next()
                .and_then(|rest| rest.chars().next());
            !matches!(state, None | Some('Z' | 'X'))
        })
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_serves_who_knows_the_password_and_ends_with_us() {
        if !installed() {
            return;
        }
        let (cx, dir) = (Cx::for_tests(), tempfile::TempDir::new().unwrap());
        let server = soon(PrivateServer::start(&cx, dir.path())).await.unwrap();
        let mode = fs::metadata(server.shared.files.config())
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        let found = PrivateServer::find(dir.path());
        assert_eq!(found.as_deref(), Some(server.url()));
        assert_eq!(PrivateServer::find(&dir.path().join("none")), None);
        let config = Config {
            url: Some(server.url().to_owned()),
            ..Config::default()
        };
        let bus = Bus::connect(&cx, &config, "test").await.unwrap();
        bus.provision().await.unwrap();
        bus.store()
            .put(model::event::CONFIG, "a", &1, None)
            .await
            .unwrap();
        let url = server
            .url()
            .replace(&server.shared.files.password, "guessed");
        let config = Config {
            url: Some(url),
            connect_timeout_s: 1,
            ..Config::default()
        };
        let refused = Bus::connect(&cx, &config, "test").await.unwrap_err();
        assert!(!refused.to_string().contains("guessed"), "{refused}");
        // A server that dies comes back on the same port, with its data.
        let pid = server.pid().unwrap();
        assert!(
            Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .status()
                .unwrap()
                .success()
        );
        eventually("it is another process", async || {
            server.pid().is_some_and(|now| now != pid)
        })
        .await;
        let read = bus
            .store()
            .get::<u32>(model::event::CONFIG, "a")
            .await
            .unwrap();
        assert_eq!(read.unwrap().body, 1);
        let pid = server.pid().unwrap();
        soon(server.stop(&cx)).await;
        assert!(!lives(pid));
    }

    /// Not a test of its own: the process that the test below kills.
    #[tokio::test(flavor = "multi_thread")]
    async fn child_process() {
        let Some(dir) = chassis::config::env_var(CHILD_DIR) else {
            return;
        };
        let server = PrivateServer::start(&Cx::for_tests(), Path::new(&dir))
            .await
            .unwrap();
        println!("pid {}", server.pid().unwrap());
        sleep(crate::testing::PATIENCE).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_dies_when_its_process_is_killed() {
        if !installed() {
            return;
        }
        let dir = tempfile::TempDir::new().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "private_server::tests::child_process",
                "--nocapture",
            ])
            .env(CHILD_DIR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut pids = lines.filter_map(|line| line.ok()?.split("pid ").nth(1)?.parse().ok());
        let pid: u32 = pids.next().unwrap();
        assert!(lives(pid));
        child.kill().unwrap();
        child.wait().unwrap();
        eventually("it is dead", async || !lives(pid)).await;
    }
}
