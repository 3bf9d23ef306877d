//! Files as `docker login` and cloud tools leave them, and helpers as scripts.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use tempfile::TempDir;

use super::*;

/// A folder with a `config.json` and with helpers.
struct Folder(TempDir);

impl Folder {
    fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("config.json"), config).unwrap();
        Self(folder)
    }

    /// Another process writes the script: one that this process had open for writing could not be
    /// started by a thread that forks at the same moment.
    fn helper(self, name: &str, script: &str) -> Self {
        let path = self.0.path().join(format!("docker-credential-{name}"));
        let mut install = Command::new("install")
            .args(["-m", "755", "/dev/stdin"])
            .arg(&path)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut input = install.stdin.take().unwrap();
        input
            .write_all(format!("#!/bin/sh\n{script}\n").as_bytes())
            .unwrap();
        drop(input);
        assert!(install.wait().unwrap().success());
        self
    }

    async fn find(&self, host: &str) -> Result<Option<String>, String> {
        let folder = self.0.path();
        let config = DockerConfig::with_helpers(folder.join("config.json"), folder);
        let found = config.credentials(&Cx::for_tests(), host).await;
        found.map(shown).map_err(|error| error.to_string())
    }
}

fn shown(found: Option<Credentials>) -> Option<String> {
    found.map(|credentials| match credentials {
        Credentials::Basic { username, password } => format!("{username} {}", password.expose()),
        Credentials::IdentityToken(token) => token.expose().to_owned(),
    })
}

async fn check(config: &str, host: &str) -> Result<Option<String>, String> {
    Folder::with(config).find(host).await
}

#[tokio::test]
async fn credentials_are_found_under_the_names_docker_uses() {
    // `dXNlcjpwYXNz` is `user:pass`.
    let config = |name: &str| format!(r#"{{"auths": {{"{name}": {{"auth": "dXNlcjpwYXNz"}}}}}}"#);
    for (name, host) in [
        ("r.example:5000", "r.example:5000"),
        ("https://r.example:5000/v2/", "r.example:5000"),
        ("https://index.docker.io/v1/", "docker.io"),
        ("docker.io", "docker.io"),
    ] {
        let found = check(&config(name), host).await.unwrap();
        assert_eq!(found.as_deref(), Some("user pass"), "{name}");
    }
    for name in [
        "r.example",
        "r.example:5001",
        "xr.example:5000",
        "docker.io",
    ] {
        let found = check(&config(name), "r.example:5000").await.unwrap();
        assert_eq!(found, None, "{name}");
    }
    let token = r#"{"auths": {"r.example": {"identitytoken": "abc"}}}"#;
    assert_eq!(
        check(token, "r.example").await.unwrap().as_deref(),
        Some("abc")
    );
    let plain = r#"{"auths": {"r.example": {"username": "u", "password": "p:q"}}}"#;
    assert_eq!(
        check(plain, "r.example").await.unwrap().as_deref(),
        Some("u p:q")
    );
}

#[tokio::test]
async fn no_file_is_no_credentials_and_a_broken_one_an_error_with_its_name_and_without_secrets() {
    let cx = Cx::for_tests();
    let none = DockerConfig::new("/nonexistent/config.json");
    assert!(none.credentials(&cx, "r.example").await.unwrap().is_none());
    none.check(&cx, "r.example").await.unwrap();
    for broken in [
        "{",
        r#"{"auths": {"r.example": "hunter2"}}"#,
        r#"{"auths": {"r.example": {"auth": "hunter2"}}}"#,
    ] {
        let error = check(broken, "r.example").await.unwrap_err();
        assert!(error.contains("config.json`"), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let missing = r#"{"credHelpers": {"r.example": "no-such-helper-at-all"}}"#;
    let error = check(missing, "r.example").await.unwrap_err();
    assert!(error.contains("could not be started"), "{error}");
}

#[tokio::test]
async fn a_helper_is_asked_for_the_registry_and_the_one_for_it_goes_first() {
    let config = r#"{
        "credHelpers": {"cloud.example": "cloud"}, "credsStore": "store",
        "auths": {"r.example": {"auth": "dXNlcjpwYXNz"}, "cloud.example": {}}
    }"#;
    let folder = Folder::with(config)
        .helper(
            "cloud",
            r#"read -r server; printf '{"ServerURL": "%s", "Username": "AWS", "Secret": "%s %s"}' "$server" "$1" "$server""#,
        )
        .helper(
            "store",
            r#"read -r server
            case "$server" in
              https://index.docker.io/v1/) echo '{"Username": "<token>", "Secret": "refresh"}' ;;
              *) echo 'credentials not found in native keychain'; exit 1 ;;
            esac"#,
        );
    for (host, expected) in [
        ("cloud.example", Some("AWS get cloud.example")),
        ("docker.io", Some("refresh")),
        ("r.example", Some("user pass")),
        ("other.example", None),
    ] {
        let found = folder.find(host).await.unwrap();
        assert_eq!(found.as_deref(), expected, "{host}");
    }
}

#[tokio::test]
async fn a_helper_that_misbehaves_is_an_error_without_what_it_printed() {
    for (script, expected) in [
        ("echo hunter2", "something else than JSON"),
        (
            "echo hunter2; echo 'keychain is locked' >&2; exit 1",
            "gave up: keychain is locked",
        ),
        ("exec cat /dev/zero", "printed more than 65536 bytes"),
        ("exec cat /dev/zero >&2", "gave up"),
    ] {
        let folder = Folder::with(r#"{"credsStore": "bad"}"#).helper("bad", script);
        let error = folder.find("r.example").await.unwrap_err();
        assert!(
            error.contains(expected) && error.contains("`r.example`"),
            "{error}"
        );
        assert!(!error.contains("hunter2"), "{error}");
    }
}

#[tokio::test]
async fn a_helper_that_does_not_answer_is_given_up() {
    let folder = Folder::with("{}").helper("slow", "exec sleep 600");
    let timeout = std::time::Duration::from_millis(200);
    let asked = helper::get("slow", Some(folder.0.path()), "r.example", timeout).await;
    let error = asked.unwrap_err();
    assert!(
        error.contains("`docker-credential-slow` gave no answer in 200ms"),
        "{error}"
    );
}

#[tokio::test]
async fn a_name_of_a_helper_cannot_lead_elsewhere() {
    for name in ["../../bin/sh", "a b", "x;id", "$(id)", "-x", ".x", "x\\n"] {
        let config =
            format!(r#"{{"credHelpers": {{"r.example": "{name}"}}}}"#).replace('\\', "\\\\");
        let folder = Folder::with(&config);
        let error = folder.find("r.example").await.unwrap_err();
        assert!(
            error.contains("is no name of a credential helper"),
            "{name}: {error}"
        );
        let config = DockerConfig::new(folder.0.path().join("config.json"));
        assert!(
            config.check(&Cx::for_tests(), "r.example").await.is_err(),
            "{name}"
        );
    }
}
