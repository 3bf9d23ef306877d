//! Processes that die with the test.

use std::{
    fs::{self, File},
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

/// How long a server may take until it answers.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// A server process, killed and waited for when dropped.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
}

/// A port of 127.0.0.1 that nobody listens on at this moment.
pub fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
    listener.local_addr().expect("bound").port()
}

/// Where a program is; says on standard error why a test is skipped where it is not.
#[expect(
    clippy::disallowed_methods,
    reason = "test support reads PATH as a shell would"
)]
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn find_program(name: &str, package: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    let folders = path.split(':').chain(["/usr/sbin", "/usr/local/bin"]);
    let found = folders
        .map(|folder| Path::new(folder).join(name))
        .find(|path| path.is_file());
    if found.is_none() {
        eprintln!("skipped: `{name}` is not installed (apt-get install {package})");
    }
    found
}

/// The inode of the socket that listens on a port of 127.0.0.1 or of all addresses.
#[expect(clippy::disallowed_methods, reason = "a file of the kernel's")]
fn listening_socket(port: u16) -> Option<String> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(fs::read_to_string);
    let port = format!(":{port:04X}");
    tables
        .iter()
        .flatten()
        .flat_map(|table| table.lines())
        .find_map(|line| {
            let mut fields = line.split_whitespace().skip(1);
            let (local, state) = (fields.next()?, fields.nth(1)?);
            let listens = local.ends_with(&port) && state == "0A";
            listens.then(|| fields.nth(5).map(ToOwned::to_owned))?
        })
}

// === impl Process ===

impl Process {
    /// Starts a program whose output goes to `log`, and waits until `port` answers. `None` where
    /// the program ended instead, as when somebody else took the port.
    pub(crate) fn start(command: &mut Command, log: &Path, port: u16) -> Option<Self> {
        let out = File::options()
            .create(true)
            .append(true)
            .open(log)
            .expect("a log file");
        let errors = out.try_clone().expect("a file handle");
        let child = command
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(errors)
            .spawn()
            .unwrap_or_else(|error| panic!("starting {command:?}: {error}"));
        let mut process = Self { child };
        let deadline = Instant::now() + START_DEADLINE;
        while !process.listens_on(port) {
            if !process.is_running() {
                return None;
            }
            assert!(
                Instant::now() < deadline,
                "{command:?} does not answer on port {port}"
            );
            thread::sleep(Duration::from_millis(10));
        }
        Some(process)
    }

    /// Whether this very process listens on a port: another one may have taken it meanwhile, and
    /// would answer in its place.
    fn listens_on(&self, port: u16) -> bool {
        let Some(inode) = listening_socket(port) else {
            return false;
        };
        let socket = format!("socket:[{inode}]");
        let Ok(files) = fs::read_dir(format!("/proc/{}/fd", self.id())) else {
            return false;
        };
        files.flatten().any(|file| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
        })
    }

    /// The process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as `kill -9` does, and waits for its end.
    pub(crate) fn kill(&mut self) {
        // It may have ended already.
        let _ended = self.child.kill();
        let _status = self.child.wait();
    }

    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
