//! Certificates of an authority of one's own, and ours, against `openssl s_server`.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use chassis::files::{read_bounded, read_text_bounded};
use testkit::TempDir;

use super::*;

/// A server whose certificate is its own authority, and which wants to see the same one.
struct Server {
    child: Child,
    host: String,
    folder: TempDir,
}

impl Server {
    fn start() -> Option<Self> {
        let folder = testkit::temp_dir();
        let made = openssl(folder.path())
            .args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"])
            .args(["-pkeyopt", "ec_paramgen_curve:prime256v1"])
            .args([
                "-keyout",
                "key.pem",
                "-out",
                "cert.pem",
                "-subj",
                "/CN=localhost",
            ])
            .args(["-addext", "subjectAltName=DNS:localhost"])
            .args(["-addext", "basicConstraints=critical,CA:FALSE"])
            .stderr(Stdio::null())
            .status();
        if !made.is_ok_and(|status| status.success()) {
            eprintln!("skipped: there is no `openssl`");
            return None;
        }
        let mut child = openssl(folder.path())
            .args(["s_server", "-accept", "127.0.0.1:0", "-www"])
            .args(["-cert", "cert.pem", "-key", "key.pem"])
            .args([
                "-Verify",
                "1",
                "-CAfile",
                "cert.pem",
                "-verify_return_error",
            ])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let port = lines.find_map(|line| {
            let line = line.unwrap();
            let address = line.strip_prefix("ACCEPT ")?;
            address.rsplit(':').next()?.parse::<u16>().ok()
        });
        let host = format!("localhost:{}", port.unwrap());
        // What it prints of each connection has somewhere to go.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self {
            child,
            host,
            folder,
        })
    }

    /// Asks with these certificates.
    async fn ask(&self, knows_authority: bool, has_certificate: bool) -> Result<u16, OciError> {
        let read = |name: &str| read_bounded(&self.folder.path().join(name), 1 << 16).unwrap();
        let key = read_text_bounded(&self.folder.path().join("key.pem"), 1 << 16).unwrap();
        let ours = ClientCertificate {
            certificate: read("cert.pem"),
            key: Secret::from(key),
        };
        let config = RegistryConfig {
            ca_certificates: Vec::from_iter(knows_authority.then(|| read("cert.pem"))),
            client_certificate: has_certificate.then_some(ours),
            ..quick(&self.host)
        };
        let guard = Guard {
            reach: Reach::ThisMachine,
        };
        let url: url::Url = format!("https://{}/", self.host).parse().unwrap();
        let http = Http::new(&config, url.clone(), guard)?;
        let answer = http.send(&Ask::new(Method::GET, url)).await?;
        Ok(answer.status().as_u16())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

fn openssl(folder: &Path) -> Command {
    let mut command = Command::new("openssl");
    command.current_dir(folder);
    command
}

#[tokio::test]
async fn an_authority_of_ones_own_is_trusted_where_it_is_named_and_certificates_are_shown() {
    let Some(server) = Server::start() else {
        return;
    };
    assert_eq!(server.ask(true, true).await.unwrap(), 200);
    let error = server.ask(false, true).await.unwrap_err().to_string();
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert!(error.contains("`ca_files`"), "what to do: {error}");
    let error = server.ask(true, false).await.unwrap_err();
    assert!(error.is_transient(), "it wants a certificate: {error}");
}

#[test]
fn files_without_certificates_or_keys_are_named_and_not_repeated() {
    let cx = Cx::for_tests();
    let config = RegistryConfig {
        ca_certificates: vec![b"hunter2".to_vec()],
        ..quick("r.example")
    };
    let error = Registry::new(&cx, config).unwrap_err().to_string();
    assert!(
        error.contains("a CA file of it holds no certificate"),
        "{error}"
    );
    let config = RegistryConfig {
        client_certificate: Some(ClientCertificate {
            certificate: b"none".to_vec(),
            key: Secret::from("hunter2".to_owned()),
        }),
        ..quick("r.example")
    };
    let error = Registry::new(&cx, config).unwrap_err().to_string();
    assert!(
        error.contains("not both PEM") && !error.contains("hunter2"),
        "{error}"
    );
}
