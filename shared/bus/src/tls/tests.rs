use std::{fmt::Write as _, path::PathBuf};

use chassis::Cx;
use testkit::{Authority, TempDir};

use super::*;
use crate::{
    Bus,
    testing::{Server, eventually},
};

/// A server that speaks TLS, and what its clients need.
struct World {
    server: Server,
    folder: TempDir,
    authority: Authority,
}

impl World {
    async fn start(wants_certificates: bool) -> Option<Self> {
        let (folder, authority) = (testkit::temp_dir(), Authority::new("ours"));
        let (certificate, key) = authority.server().write(folder.path(), "server");
        let ca = authority.write(&folder.path().join("ca.pem"));
        let mut tls = format!(
            "cert_file: \"{}\"\nkey_file: \"{}\"\nca_file: \"{}\"\n",
            certificate.display(),
            key.display(),
            ca.display()
        );
        write!(tls, "verify: {wants_certificates}").unwrap();
        let server = Server::start_with(&format!("tls {{\n{tls}\n}}\n")).await?;
        Some(Self {
            server,
            folder,
            authority,
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A configuration that trusts the server's authority.
    fn trusting(&self) -> Config {
        Config {
            ca_file: Some(self.path("ca.pem")),
            ..self.server.config()
        }
    }

    /// The same with a certificate of ours.
    fn known(&self) -> Config {
        let (certificate, key) = self
            .authority
            .client("scanner")
            .write(self.folder.path(), "us");
        Config {
            client_certificate_file: Some(certificate),
            client_key_file: Some(key),
            ..self.trusting()
        }
    }
}

/// Connects and uses the connection; otherwise why not.
async fn connect(config: Config) -> Result<Bus, String> {
    let cx = Cx::for_tests();
    let config = Config {
        connect_timeout_s: 3,
        ..config
    };
    let bus = Bus::connect(&cx, &config, "test").await;
    let bus = bus.map_err(|error| error.to_string())?;
    bus.provision().await.map_err(|error| error.to_string())?;
    Ok(bus)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_with_a_certificate_works_over_tls() {
    let Some(world) = World::start(true).await else {
        return;
    };
    let bus = connect(world.known()).await.unwrap();
    let put = bus.store().put(model::event::CONFIG, "a", &1, None).await;
    put.unwrap();
    let tls = Config {
        url: Some(world.server.url().replace("nats://", "tls://")),
        ..world.known()
    };
    connect(tls).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_certificate_the_server_refuses_and_the_error_says_what_to_give() {
    let Some(world) = World::start(true).await else {
        return;
    };
    let error = connect(world.trusting()).await.unwrap_err();
    assert!(error.contains("`bus.client_certificate_file`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unknown_authority_is_refused_and_the_error_says_what_to_name() {
    let Some(world) = World::start(false).await else {
        return;
    };
    let another = Authority::new("another").write(&world.path("another.pem"));
    let config = Config {
        ca_file: Some(another),
        ..world.server.config()
    };
    let error = connect(config).await.unwrap_err();
    assert!(error.contains("invalid peer certificate"), "{error}");
    assert!(error.contains("name its file in `bus.ca_file`"), "{error}");
    // The server says itself that it wants TLS, so it is used; the system knows no such authority.
    let error = connect(world.server.config()).await.unwrap_err();
    assert!(error.contains("`bus.ca_file`"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_shall_go_over_tls_does_not_go_out_in_the_clear() {
    let Some(server) = Server::start().await else {
        return;
    };
    let (folder, authority) = (testkit::temp_dir(), Authority::new("ours"));
    let by_url = Config {
        url: Some(server.url().replace("nats://", "tls://")),
        ..server.config()
    };
    let by_authority = Config {
        ca_file: Some(authority.write(&folder.path().join("ca.pem"))),
        ..server.config()
    };
    for config in [by_url, by_authority] {
        let error = connect(config).await.unwrap_err();
        assert!(error.contains("does not speak TLS"), "{error}");
    }
    connect(server.config()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn renewed_files_are_used_at_the_next_connection() {
    let Some(mut world) = World::start(true).await else {
        return;
    };
    let bus = connect(world.known()).await.unwrap();
    // A new authority for everybody: what was read before would not do any more.
    world.server.down();
    world.authority = Authority::new("renewed");
    world.authority.write(&world.path("ca.pem"));
    world
        .authority
        .server()
        .write(world.folder.path(), "server");
    world.known();
    world.server.up().await;
    eventually("it is connected again", async || bus.is_connected()).await;
    bus.provision().await.unwrap();
}

#[tokio::test]
async fn files_that_cannot_be_used_are_errors_of_the_start() {
    let folder = testkit::temp_dir();
    let (certificate, key) = Authority::new("ours")
        .client("us")
        .write(folder.path(), "us");
    let check = async |ca: Option<PathBuf>, certificate: Option<PathBuf>, key: Option<PathBuf>| {
        let config = Config {
            url: Some("tls://127.0.0.1:1".to_owned()),
            ca_file: ca,
            client_certificate_file: certificate,
            client_key_file: key,
            ..Config::default()
        };
        let error = Bus::connect_later(&Cx::for_tests(), &config, "test").await;
        let error = error.unwrap_err().to_string();
        error.replace(&folder.path().display().to_string(), "")
    };
    let said = check(Some(folder.path().join("none")), None, None).await;
    let missing = "`bus.ca_file`, file `/none`: No such file or directory (os error 2)";
    assert_eq!(said, missing);
    let said = check(Some(key), None, None).await;
    let wrong = "`bus.ca_file`, file `/us.key`: it holds no `CERTIFICATE` in PEM";
    assert_eq!(said, wrong);
    let said = check(None, Some(certificate.clone()), None).await;
    assert!(
        said.ends_with("one is of no use without the other"),
        "{said}"
    );
    let said = check(None, Some(certificate.clone()), Some(certificate)).await;
    let wrong = "`bus.client_key_file`, file `/us.pem`: it holds no `PRIVATE KEY` in PEM";
    assert_eq!(said, wrong);
}
