use std::{net::SocketAddr, path::PathBuf, time::Duration};

use reqwest::{Certificate, Client, Identity, Version};
use testkit::{Authority, Issued, TempDir};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep},
};

use super::*;
use crate::http::{
    Limits, Server,
    tests::{SOON, serve_with, talk},
};

/// How often the files are looked at here.
const OFTEN: Duration = Duration::from_millis(20);

struct World {
    cx: Cx,
    address: SocketAddr,
    folder: TempDir,
    authority: Authority,
}

impl World {
    async fn start(client_ca: Option<&Authority>, limits: Limits) -> Self {
        let (folder, authority) = (testkit::temp_dir(), Authority::new("ours"));
        let (certificate_file, key_file) = authority.server().write(folder.path(), "server");
        let client_ca_file = client_ca.map(|ca| ca.write(&folder.path().join("clients.pem")));
        let files = TlsFiles {
            certificate_file,
            key_file,
            client_ca_file,
        };
        let cx = Cx::for_tests();
        let tls = Tls::open_and_look(&cx, files, OFTEN).await.unwrap();
        let tls = Some(tls);
        let (cx, address) = serve_with(cx, Server { limits, tls }).await;
        Self {
            cx,
            address,
            folder,
            authority,
        }
    }

    fn url(&self) -> String {
        format!("https://{}/healthz", self.address)
    }

    /// Asks anew, without a connection from before.
    async fn ask(&self, trusted: &Authority, shown: Option<&Issued>) -> Result<Version, String> {
        let client = client(trusted, shown);
        let answer = client.get(self.url()).send().await;
        let answer = answer.map_err(|error| format!("{:#}", anyhow::Error::from(error)))?;
        assert_eq!(answer.status(), 200);
        Ok(answer.version())
    }

    async fn note(&self, wanted: impl Fn(Option<&str>) -> bool) {
        let deadline = Instant::now() + SOON;
        while !wanted(self.cx.notes().all().get(NOTE).map(String::as_str)) {
            assert!(Instant::now() < deadline, "{:?}", self.cx.notes().all());
            sleep(OFTEN).await;
        }
    }

    async fn end(self) {
        self.cx.stop();
        assert!(self.cx.finish(SOON).await);
    }
}

fn client(trusted: &Authority, shown: Option<&Issued>) -> Client {
    let root = Certificate::from_pem(trusted.pem().as_bytes()).unwrap();
    let mut builder = Client::builder().no_proxy().tls_certs_only([root]);
    if let Some(Issued { certificate, key }) = shown {
        let pem = format!("{certificate}{key}");
        builder = builder.identity(Identity::from_pem(pem.as_bytes()).unwrap());
    }
    builder.build().unwrap()
}

#[tokio::test]
async fn it_serves_http2_over_tls_and_whoever_trusts_another_authority_refuses() {
    let world = World::start(None, Limits::default()).await;
    let version = world.ask(&world.authority, None).await.unwrap();
    assert_eq!(version, Version::HTTP_2);
    let error = world.ask(&Authority::new("another"), None).await;
    let error = error.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    world.end().await;
}

#[tokio::test]
async fn it_speaks_http1_where_the_client_knows_nothing_else() {
    let world = World::start(None, Limits::default()).await;
    let root = Certificate::from_pem(world.authority.pem().as_bytes()).unwrap();
    let builder = Client::builder().no_proxy().tls_certs_only([root]);
    let client = builder.http1_only().build().unwrap();
    let answer = client.get(world.url()).send().await.unwrap();
    assert_eq!(answer.version(), Version::HTTP_11);
    world.end().await;
}

#[tokio::test]
async fn a_client_without_a_certificate_of_the_right_authority_is_refused() {
    let clients = Authority::new("clients");
    let world = World::start(Some(&clients), Limits::default()).await;
    let good = clients.client("ci");
    assert!(world.ask(&world.authority, Some(&good)).await.is_ok());
    assert!(world.ask(&world.authority, None).await.is_err());
    let foreign = Authority::new("another").client("ci");
    let refused = world.ask(&world.authority, Some(&foreign)).await;
    assert!(refused.is_err());
    world.end().await;
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_without_a_restart() {
    let world = World::start(None, Limits::default()).await;
    world.ask(&world.authority, None).await.unwrap();
    let renewed = Authority::new("renewed");
    renewed.server().write(world.folder.path(), "server");
    let deadline = Instant::now() + SOON;
    while world.ask(&renewed, None).await.is_err() {
        assert!(Instant::now() < deadline, "the old certificate is shown");
    }
    world.end().await;
}

#[tokio::test]
async fn a_renewed_certificate_without_its_key_changes_nothing_and_is_said() {
    let world = World::start(None, Limits::default()).await;
    let (file, other) = (
        world.folder.path().join("server.pem"),
        world.authority.server(),
    );
    let before = files::read_text_bounded(&file, FILE_BYTES_MAX).unwrap();
    std::fs::write(&file, &other.certificate).unwrap();
    world
        .note(|note| note.is_some_and(|note| note.contains("cannot be used with the key")))
        .await;
    world.ask(&world.authority, None).await.unwrap();
    std::fs::write(&file, "half of it").unwrap();
    world
        .note(|note| note.is_some_and(|note| note.contains("holds no certificate")))
        .await;
    world.ask(&world.authority, None).await.unwrap();
    std::fs::write(&file, before).unwrap();
    world.note(|note| note.is_none()).await;
    world.end().await;
}

#[tokio::test]
async fn plain_http_is_told_to_use_tls_in_the_form_of_all_errors() {
    let world = World::start(None, Limits::default()).await;
    // More than a socket takes at once, so that an answer that does not wait is lost.
    let request = format!(
        "POST /echo HTTP/1.1\r\nhost: x\r\ncontent-length: 4000\r\n\r\n{}",
        "x".repeat(4000)
    );
    let answer = talk(world.address, &request).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{head}");
    assert!(
        head.contains(&format!("content-length: {}", body.len())),
        "{head}"
    );
    insta::assert_snapshot!(body, @r#"{"detail":"this listener speaks TLS","error":"bad_request","hint":"use `https://`","status":400}"#);
    world.end().await;
}

#[tokio::test]
async fn who_says_nothing_makes_room_for_others_and_is_cut_off_in_the_end() {
    let limits = Limits {
        handshakes_max: 2,
        handshake_seconds_max: 1,
        connections_max: 8,
        ..Limits::default()
    };
    let world = World::start(None, limits).await;
    let mut silent = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(world.address).await.unwrap();
        // The beginning of a handshake.
        stream.write_all(&[0x16, 3, 1]).await.unwrap();
        silent.push(stream);
    }
    // Of two places both are taken by others.
    world.ask(&world.authority, None).await.unwrap();
    for mut stream in silent {
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "it is cut off");
    }
    world.end().await;
}

#[tokio::test]
async fn what_is_wrong_with_the_files_is_said_without_what_they_hold() {
    let (cx, folder) = (Cx::for_tests(), testkit::temp_dir());
    let issued = Authority::new("ours").server();
    let path = |name: &str| folder.path().join(name);
    let (certificate, key) = issued.write(folder.path(), "server");
    std::fs::write(path("nothing"), "hunter2").unwrap();
    let check = async |certificate_file: PathBuf, key_file: PathBuf, ca: Option<PathBuf>| {
        let files = TlsFiles {
            certificate_file,
            key_file,
            client_ca_file: ca,
        };
        let error = Tls::open(&cx, files).await.unwrap_err();
        let text = format!("{:#}", anyhow::Error::from(error));
        assert!(!text.contains("hunter2"), "{text}");
        text.replace(&folder.path().display().to_string(), "")
    };
    let (none, nothing) = (path("none"), path("nothing"));
    let missing = "reading `/none`: No such file or directory (os error 2)";
    assert_eq!(check(none, key.clone(), None).await, missing);
    let no_certificate = "`/nothing` holds no certificate in PEM";
    let said = check(nothing.clone(), key.clone(), None).await;
    assert_eq!(said, no_certificate);
    let said = check(certificate.clone(), nothing.clone(), None).await;
    assert_eq!(said, "`/nothing` holds no private key in PEM");
    let said = check(certificate.clone(), key, Some(nothing)).await;
    assert_eq!(said, no_certificate);
    let (_, other_key) = Authority::new("other")
        .server()
        .write(folder.path(), "other");
    let said = check(certificate, other_key, None).await;
    let unusable = "the certificate in `/server.pem` cannot be used with the key in `/other.key`: ";
    assert!(said.starts_with(unusable), "{said}");
    cx.stop();
}
