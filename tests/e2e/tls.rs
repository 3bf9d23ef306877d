//! TLS on our own listener, and how it looks from the command line.

use std::{
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Instant,
};

use chassis::files::read_text_bounded;
use testkit::{Authority, NatsServer, TempDir};

use crate::fabric::{PATIENCE, tidewaiter_binary};

/// One server that speaks TLS, with everything in one process.
struct Server {
    child: Child,
    dir: TempDir,
    address: String,
}

// === impl Server ===

impl Server {
    fn start(authority: &Authority, more: &str) -> Self {
        let dir = testkit::temp_dir();
        let (certificate, key) = authority.server().write(dir.path(), "server");
        let config = dir.path().join("tidewaiter.yaml");
        let text = format!(
            "http:\n  listen: 127.0.0.1:0\n  tls:\n    certificate_file: {}\n    \
             key_file: {}\n{more}",
            certificate.display(),
            key.display()
        );
        std::fs::write(&config, text).expect("a configuration file");
        let log = std::fs::File::create(dir.path().join("log")).expect("a log file");
        let child = Command::new(tidewaiter_binary())
            .arg("serve")
            .arg("--config")
            .arg(&config)
            .arg("--data-dir")
            .arg(dir.path().join("data"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .expect("tidewaiter starts");
        let mut server = Self {
            child,
            dir,
            address: String::new(),
        };
        server.address = until("the address", || {
            read_text_bounded(&server.dir.path().join("data/http.addr"), 100).ok()
        });
        server
    }

    fn log(&self) -> String {
        read_text_bounded(&self.dir.path().join("log"), 1 << 20).expect("a log")
    }

    /// Runs a command that asks this server.
    fn ask(&self, scheme: &str, authority: &Path, arguments: &[&str]) -> Output {
        Command::new(tidewaiter_binary())
            .args(arguments)
            .arg("--server")
            .arg(format!("{scheme}://{}", self.address))
            .arg("--server-ca")
            .arg(authority)
            .arg("--token-file")
            .arg(self.dir.path().join("data/admin.token"))
            .output()
            .expect("tidewaiter runs")
    }

    /// Why a command failed.
    fn refused(&self, scheme: &str, authority: &Path, arguments: &[&str]) -> String {
        let output = self.ask(scheme, authority, arguments);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    }

    fn write(&self, authority: &Authority, name: &str) -> PathBuf {
        authority.write(&self.dir.path().join(name))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn until<T>(what: &str, ask: impl Fn() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(
            started.elapsed() < PATIENCE,
            "no {what} within {PATIENCE:?}"
        );
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}

fn installed() -> bool {
    NatsServer::start().is_some()
}

#[test]
fn the_command_line_talks_tls_and_says_what_to_do_where_it_cannot() {
    if !installed() {
        return;
    }
    let ours = Authority::new("ours");
    let server = Server::start(&ours, "");
    let (trusted, other) = (
        server.write(&ours, "ca.pem"),
        server.write(&Authority::new("other"), "other.pem"),
    );
    until("a ready server", || {
        let output = server.ask("https", &trusted, &["health"]);
        output.status.success().then_some(())
    });
    let images = server.ask("https", &trusted, &["images"]);
    let text = String::from_utf8_lossy(&images.stdout);
    assert_eq!(text, "no image fits\n");
    assert!(server.log().contains("serves https://"), "{}", server.log());
    let error = server.refused("https", &other, &["images"]);
    assert!(error.contains("name it with --server-ca"), "{error}");
    let error = server.refused("http", &trusted, &["images"]);
    assert!(error.contains("this listener speaks TLS"), "{error}");
    assert!(error.contains("use `https://`"), "{error}");

    // A renewed certificate is shown without a restart.
    let renewed = Authority::new("renewed");
    let trusted = server.write(&renewed, "renewed.pem");
    renewed.server().write(server.dir.path(), "server");
    until("the renewed certificate", || {
        let output = server.ask("https", &trusted, &["health"]);
        output.status.success().then_some(())
    });
}

#[test]
fn a_server_that_wants_certificates_gets_one_from_the_command_line() {
    if !installed() {
        return;
    }
    let (ours, clients) = (Authority::new("ours"), Authority::new("clients"));
    let dir = testkit::temp_dir();
    let client_ca = clients.write(&dir.path().join("clients.pem"));
    let (certificate, key) = clients.client("ci").write(dir.path(), "ci");
    let server = Server::start(
        &ours,
        &format!("    client_ca_file: {}\n", client_ca.display()),
    );
    let trusted = server.write(&ours, "ca.pem");
    let shown = [
        "health",
        "--client-certificate",
        certificate.to_str().expect("a path"),
        "--client-key",
        key.to_str().expect("a path"),
    ];
    until("a ready server", || {
        let output = server.ask("https", &trusted, &shown);
        output.status.success().then_some(())
    });
    let error = server.refused("https", &trusted, &["images"]);
    assert!(error.contains("--client-certificate"), "{error}");
}

#[test]
fn a_command_says_that_the_other_side_speaks_no_tls() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = silent.local_addr().expect("an address").to_string();
    let server = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = silent.accept().expect("a connection");
        stream
            .write_all(b"HTTP/1.1 400 Bad Request\r\nconnection: close\r\n\r\n")
            .expect("an answer");
    });
    let output = Command::new(tidewaiter_binary())
        .args(["health", "--server", &format!("https://{address}")])
        .output()
        .expect("tidewaiter runs");
    server.join().expect("the server ends");
    let error = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{error}");
    assert!(error.contains("use `http://`"), "{error}");
}
