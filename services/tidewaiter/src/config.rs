//! The configuration file: one section per role, everything with a default.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::{Deserialize, Serialize};

use crate::cli::{Global, ServeArgs};

/// The whole configuration, as in `deploy/config/tidewaiter.yaml`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Config {
    /// Where everything local lives: caches, views, spool, the private nats-server's store.
    pub(crate) data_dir: DataDir,
    /// The HTTP listener.
    pub(crate) http: Http,
    /// Logs, traces, metrics.
    pub(crate) telemetry: chassis::telemetry::Config,
    /// NATS.
    pub(crate) bus: bus::Config,
    /// Sources, webhooks, the CI API.
    pub(crate) gateway: gateway::Config,
    /// Reading images.
    pub(crate) scanner: scanner::Config,
    /// Advisories and matching.
    pub(crate) matcher: matcher::Config,
    /// Judging.
    pub(crate) policy: policy::Config,
    /// What containers do.
    pub(crate) behavior: behavior::Config,
    /// Alerts and their sinks.
    pub(crate) alerting: alerting::Config,
    /// The read model.
    pub(crate) inventory: inventory::Config,
}

/// A directory.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct DataDir(pub(crate) PathBuf);

/// The HTTP listener.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(crate) struct Http {
    /// Address and port; port 0 takes a free one. The address in use is written to
    /// `<data_dir>/http.addr`.
    pub(crate) listen: String,
    /// The files for TLS; without them the listener speaks plain HTTP.
    pub(crate) tls: Option<chassis::http::TlsFiles>,
}

// === impl Config ===

impl Config {
    /// Reads the file and the environment, then applies the flags that every command has.
    pub(crate) fn load(global: &Global) -> anyhow::Result<Self> {
        let mut config: Self = chassis::config::load(global.config.as_deref(), "TIDEWAITER")
            .context("reading the configuration")?;
        if let Some(log) = &global.log {
            config.telemetry.log.clone_from(log);
        }
        Ok(config)
    }

    /// The settings of file and environment, and which of them gives each.
    pub(crate) fn explain(global: &Global) -> anyhow::Result<Vec<chassis::config::Setting>> {
        chassis::config::explain::<Self>(global.config.as_deref(), "TIDEWAITER")
            .context("reading the configuration")
    }

    /// Applies the flags of `serve`, and tells every role its place below the data directory.
    pub(crate) fn for_serve(mut self, args: &ServeArgs) -> Self {
        if let Some(dir) = &args.data_dir {
            self.data_dir = DataDir(dir.clone());
        }
        if let Some(listen) = &args.listen {
            self.http.listen.clone_from(listen);
        }
        if let Some(url) = &args.nats_url {
            self.bus.url = Some(url.clone());
        }
        if let Some(file) = &args.nats_credentials {
            self.bus.credentials_file = Some(file.clone());
        }
        let dir = self.data_dir.0.clone();
        self.gateway.data_dir.clone_from(&dir);
        self.scanner.data_dir.clone_from(&dir);
        self.matcher.data_dir.clone_from(&dir);
        self.inventory.data_dir = dir;
        // Who accepts a callback and who sends the answer have one list.
        self.alerting
            .callback_hosts
            .clone_from(&self.gateway.callback_hosts);
        self
    }
}

impl DataDir {
    /// The directory.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Default for DataDir {
    fn default() -> Self {
        Self(PathBuf::from("/var/lib/tidewaiter"))
    }
}

impl Default for Http {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            tls: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    const FILE: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../deploy/config/tidewaiter.yaml"
    );
    /// What the file leaves out: it depends on the machine.
    const LEFT_OUT: &[&str] = &["/scanner/layers_at_once"];

    #[test]
    fn the_file_in_deploy_shows_every_setting_with_its_default() {
        let read = chassis::config::load::<Config>(Some(Path::new(FILE)), "NOBODY_SETS_THIS");
        assert_eq!(read.unwrap(), Config::default());
        let text = chassis::files::read_text_bounded(Path::new(FILE), 1 << 20).unwrap();
        let shown: Value = serde_saphyr::from_str(&text).unwrap();
        let mut missing = Vec::new();
        not_shown(
            "",
            &serde_json::to_value(Config::default()).unwrap(),
            &shown,
            &mut missing,
        );
        assert_eq!(missing, LEFT_OUT);
    }

    /// Settings that the file does not name.
    fn not_shown(path: &str, defaults: &Value, shown: &Value, missing: &mut Vec<String>) {
        for (name, value) in defaults.as_object().into_iter().flatten() {
            let path = format!("{path}/{name}");
            match shown.get(name) {
                Some(shown) => not_shown(&path, value, shown, missing),
                None => missing.push(path),
            }
        }
    }
}
