//! `doctor`: what works here, what is missing, and how to mend it.

mod malware;

use std::{path::PathBuf, time::Duration};

use anyhow::Context as _;
use chassis::Cx;
use matcher::Advisories;
use oci::Engines;
use serde::Serialize;
use serde_json::Value;
use tokio::net::UnixStream;

use crate::{
    cli::{DoctorArgs, Format, OptionalServer},
    client::Client,
    commands::print,
    config::Config,
    exit::Exit,
    paths::{self, CacheDirs},
    rules,
};

/// How long each thing may take to answer.
const PATIENCE: Duration = Duration::from_secs(5);
/// Advisories of this age are worth fetching again.
const OLD_HOURS: i64 = 48;
/// Bytes of Docker's configuration that are looked at.
const DOCKER_CONFIG_BYTES_MAX: u64 = 1 << 20;

/// How something does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    /// It works.
    Ok,
    /// It is not there, and some things need it.
    Missing,
    /// It is there, or was asked for, and does not work.
    Broken,
}

/// What was looked at.
#[derive(Debug, Serialize)]
struct Check {
    name: String,
    state: State,
    detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    fix: Option<String>,
}

/// Looks at one thing after the other.
struct Doctor {
    cx: Cx,
    http: reqwest::Client,
    checks: Vec<Check>,
}

/// `config` is the configuration, or why there is none.
pub(crate) async fn run(config: anyhow::Result<Config>, args: DoctorArgs) -> anyhow::Result<Exit> {
    let http = reqwest::Client::builder()
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE)
        .build()
        .context("making the HTTP client")?;
    let mut doctor = Doctor {
        cx: Cx::system(),
        http,
        checks: Vec::new(),
    };
    let config = doctor.configuration(config);
    if let Some(dirs) = doctor.cache(&args) {
        doctor.advisories(&dirs);
        doctor.malware(&config.scanner.malware, &dirs).await;
    }
    doctor.engines(&paths::engines()).await;
    doctor.logins();
    doctor.programs();
    for host in &args.registries {
        doctor.registry(host, &args.plain_http, State::Broken).await;
    }
    if args.registries.is_empty() {
        // Nobody asked for it, so it may well be out of reach.
        doctor.registry("docker.io", &[], State::Missing).await;
    }
    let feeds = config.matcher.update.unwrap_or_default();
    doctor.advisory_source(&feeds.url).await;
    doctor.server(&args.server).await;
    let checks = doctor.checks;
    let text = match args.format {
        Format::Json => format!("{}\n", serde_json::to_string_pretty(&checks)?),
        Format::Table => table(&checks),
    };
    print(&text)?;
    let is_broken = checks.iter().any(|check| check.state == State::Broken);
    Ok(if is_broken { Exit::Error } else { Exit::Ok })
}

// === impl Doctor ===

impl Doctor {
    fn ok(&mut self, name: impl Into<String>, detail: impl Into<String>) {
        self.add(name, State::Ok, detail, None);
    }

    fn add(
        &mut self,
        name: impl Into<String>,
        state: State,
        detail: impl Into<String>,
        fix: Option<String>,
    ) {
        self.checks.push(Check {
            name: name.into(),
            state,
            detail: detail.into(),
            fix,
        });
    }

    /// The configuration; that of who has none where it cannot be read.
    fn configuration(&mut self, config: anyhow::Result<Config>) -> Config {
        let name = "configuration";
        match config {
            Ok(config) => {
                self.ok(name, "is read; `tidewaiter config show` lists it");
                config
            }
            Err(error) => {
                let fix = "correct that key; deploy/config/tidewaiter.yaml shows every one";
                self.add(
                    name,
                    State::Broken,
                    format!("{error:#}"),
                    Some(fix.to_owned()),
                );
                rules::with_engine(Config::default())
            }
        }
    }

    /// The cache; gives where it is.
    fn cache(&mut self, args: &DoctorArgs) -> Option<CacheDirs> {
        let dirs = match CacheDirs::find(args.cache_dir.as_deref()) {
            Ok(dirs) => dirs,
            Err(error) => {
                let fix = "set HOME or XDG_CACHE_HOME, or give --cache-dir";
                self.add(
                    "cache",
                    State::Broken,
                    format!("{error:#}"),
                    Some(fix.to_owned()),
                );
                return None;
            }
        };
        let root = dirs.root().display().to_string();
        let probe = dirs.root().join(format!(".doctor-{}", std::process::id()));
        let written = std::fs::create_dir_all(dirs.root())
            .and_then(|()| std::fs::write(&probe, b""))
            .and_then(|()| std::fs::remove_file(&probe));
        match written {
            Ok(()) => self.ok("cache", root),
            Err(error) => {
                let fix = "make it writable, or name another directory with --cache-dir";
                let detail = format!("{root}: {error}");
                self.add("cache", State::Broken, detail, Some(fix.to_owned()));
            }
        }
        Some(dirs)
    }

    fn advisories(&mut self, dirs: &CacheDirs) {
        let name = "advisories";
        let update = Some("run `tidewaiter db update`".to_owned());
        let manifest = match Advisories::open_read_only(&dirs.advisories()) {
            Ok(advisories) => advisories.manifest(),
            Err(error) => {
                let detail = format!("{error:#}");
                return self.add(name, State::Broken, detail, update);
            }
        };
        let now = self.cx.now();
        let age = |feed: &model::Feed| now.duration_since(feed.fetched_at).as_hours();
        let Some(oldest) = manifest.feeds.iter().map(age).max() else {
            let detail = "none yet, so vulnerabilities are not found";
            return self.add(name, State::Missing, detail, update);
        };
        let (revision, count) = (manifest.revision, manifest.feeds.len());
        let detail =
            format!("revision {revision}, {count} feeds, the oldest fetched {oldest} h ago");
        if oldest > OLD_HOURS {
            self.add(name, State::Missing, detail, update);
        } else {
            self.ok(name, detail);
        }
    }

    async fn engines(&mut self, engines: &Engines) {
        let mut is_any = false;
        for (engine, socket) in engines.present() {
            is_any = true;
            let at = socket.display();
            let connected = tokio::time::timeout(PATIENCE, UnixStream::connect(socket)).await;
            let error = match connected {
                Ok(Ok(_)) => {
                    self.ok(engine.as_str(), format!("answers at {at}"));
                    continue;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it does not answer".to_owned(),
            };
            let fix = format!("start {engine}, or run as a user who may use it");
            self.add(
                engine.as_str(),
                State::Missing,
                format!("{at}: {error}"),
                Some(fix),
            );
        }
        if !is_any {
            let detail = "none has a socket here; images come from registries and files";
            self.ok("engines", detail);
        }
    }

    /// Docker's credentials, and the helpers that they need.
    fn logins(&mut self) {
        let name = "logins";
        let Some(file) = paths::docker_config() else {
            let detail = "none: registries are asked anonymously";
            return self.ok(name, detail);
        };
        let at = file.display().to_string();
        let read = chassis::files::read_bounded(&file, DOCKER_CONFIG_BYTES_MAX);
        let document = read.map_err(anyhow::Error::from);
        let document = document.and_then(|bytes| Ok(serde_json::from_slice::<Value>(&bytes)?));
        let document = match document {
            Ok(document) => document,
            Err(error) => {
                let fix = Some("mend the file, or log in anew".to_owned());
                return self.add(name, State::Broken, format!("{at}: {error:#}"), fix);
            }
        };
        let text = |value: &Value| value.as_str().map(ToOwned::to_owned);
        let mut helpers: Vec<String> = document
            .get("credsStore")
            .and_then(text)
            .into_iter()
            .collect();
        let each = document.get("credHelpers").and_then(Value::as_object);
        helpers.extend(
            each.into_iter()
                .flat_map(|each| each.values().filter_map(text)),
        );
        helpers.sort();
        helpers.dedup();
        for helper in &helpers {
            let program = format!("docker-credential-{helper}");
            if on_path(&program).is_none() {
                let fix = Some(format!("install `{program}`, or remove it from that file"));
                let detail = format!("{at} names a helper that is not on PATH: {program}");
                return self.add(name, State::Broken, detail, fix);
            }
        }
        let known = document.get("auths").and_then(Value::as_object);
        let hosts = known.map_or(0, serde_json::Map::len);
        self.ok(
            name,
            format!("{at}: {hosts} hosts, {} helpers", helpers.len()),
        );
    }

    /// What `serve` starts beside itself.
    fn programs(&mut self) {
        for program in ["nats-server", "setpriv"] {
            match on_path(program) {
                Some(path) => self.ok(program, path.display().to_string()),
                None => self.add(
                    program,
                    State::Missing,
                    "not on PATH; `tidewaiter serve` needs it where no --nats-url is given",
                    Some(format!("install `{program}`, or give --nats-url")),
                ),
            }
        }
    }

    /// `otherwise` is how a registry does that does not answer.
    async fn registry(&mut self, host: &str, plain_http: &[String], otherwise: State) {
        let name = format!("registry {host}");
        let is_local = host.starts_with("localhost") || host.starts_with("127.");
        let is_plain = is_local || plain_http.iter().any(|plain| plain == host);
        let scheme = if is_plain { "http" } else { "https" };
        let contacted = if host == "docker.io" {
            "index.docker.io"
        } else {
            host
        };
        let url = format!("{scheme}://{contacted}/v2/");
        match self.http.get(&url).send().await {
            Ok(answer) if answer.status().is_success() => {
                self.ok(name, format!("{url} answers without a login"));
            }
            Ok(answer) if answer.status() == reqwest::StatusCode::UNAUTHORIZED => {
                self.ok(name, format!("{url} answers and asks who we are"));
            }
            Ok(answer) => {
                let fix = format!(
                    "is `{host}` a registry? Its /v2/ answers {}",
                    answer.status()
                );
                self.add(name, otherwise, url, Some(fix));
            }
            Err(error) => {
                let fix = "check the name, DNS, the network and HTTPS_PROXY; name a registry without TLS with --plain-http";
                self.add(name, otherwise, why(&error, &url), Some(fix.to_owned()));
            }
        }
    }

    async fn advisory_source(&mut self, url: &str) {
        let name = "advisory source";
        match self.http.head(url).send().await {
            Ok(answer) if !answer.status().is_server_error() => self.ok(name, url),
            Ok(answer) => {
                let detail = format!("{url} answers {}", answer.status());
                self.add(
                    name,
                    State::Missing,
                    detail,
                    Some("try again later".to_owned()),
                );
            }
            Err(error) => {
                let fix = "without it, `tidewaiter db import DIR` takes advisories from files, and `db update --url` from a mirror";
                self.add(name, State::Missing, why(&error, url), Some(fix.to_owned()));
            }
        }
    }

    async fn server(&mut self, server: &OptionalServer) {
        let Some(server) = server.server() else {
            return;
        };
        let name = "server";
        let client = match Client::new(&server) {
            Ok(client) => client,
            Err(error) => {
                let fix = Some("see --token-file".to_owned());
                return self.add(name, State::Broken, format!("{error:#}"), fix);
            }
        };
        let asked = tokio::time::timeout(PATIENCE, client.get::<Value>("/v1/health", &[]));
        let fix =
            Some("is it running, with the role `inventory`, and may this token use it?".to_owned());
        match asked.await {
            Ok(Ok(Some(_))) => self.ok(name, format!("{} answers", server.url)),
            Ok(Ok(None)) => {
                let detail = format!("{} has no /v1/health", server.url);
                self.add(name, State::Broken, detail, fix);
            }
            Ok(Err(error)) => self.add(name, State::Broken, format!("{error:#}"), fix),
            Err(_) => {
                let detail = format!("{} does not answer", server.url);
                self.add(name, State::Broken, detail, fix);
            }
        }
    }
}

/// The innermost reason: what stands above it only says that a request failed.
fn why(error: &reqwest::Error, url: &str) -> String {
    let first: &dyn std::error::Error = error;
    let last = std::iter::successors(Some(first), |cause| cause.source()).last();
    let reason = last.map_or_else(String::new, ToString::to_string);
    format!("{url}: {reason}")
}

fn on_path(program: &str) -> Option<PathBuf> {
    let path = chassis::config::env_var("PATH")?;
    let mut places = std::env::split_paths(&path).map(|dir| dir.join(program));
    places.find(|place| place.is_file())
}

fn table(checks: &[Check]) -> String {
    let widest = checks.iter().map(|check| check.name.len()).max();
    let widest = widest.unwrap_or_default();
    let mut lines = Vec::new();
    for check in checks {
        let state = match check.state {
            State::Ok => "ok     ",
            State::Missing => "missing",
            State::Broken => "BROKEN ",
        };
        let (name, detail) = (&check.name, report::clean(&check.detail));
        lines.push(format!("{state}  {name:widest$}  {detail}\n"));
        if let Some(fix) = &check.fix {
            let fix = report::clean(fix);
            lines.push(format!("         {:widest$}  → {fix}\n", ""));
        }
    }
    lines.concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_comes_with_its_fix() {
        let check = |state, fix: Option<&str>| Check {
            name: "x".to_owned(),
            state,
            detail: "d\u{1b}[31m".to_owned(),
            fix: fix.map(ToOwned::to_owned),
        };
        let text = table(&[check(State::Ok, None), check(State::Broken, Some("do y"))]);
        assert!(text.starts_with("ok       x  d"), "{text}");
        assert!(
            text.contains("BROKEN   x") && text.ends_with("→ do y\n"),
            "{text}"
        );
        assert!(!text.contains('\u{1b}'));
    }
}
