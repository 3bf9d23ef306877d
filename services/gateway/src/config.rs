//! What an operator can set.

mod access;
mod crawl;

use std::{collections::BTreeSet, path::PathBuf};

use anyhow::{Context as _, bail, ensure};
use chassis::{SecretRef, http::Hosts};
use model::{Digest, ImageRef, Slug};
use serde::{Deserialize, Serialize};

pub use self::{
    access::{ClientCertificateConfig, MirrorConfig, PaceConfig},
    crawl::{CrawlConfig, CrawlRepository},
};
use crate::decoders;

/// Secrets of one sender: as many as exchanging one for another takes.
const HOOK_SECRETS_MAX: usize = 8;

/// Settings of the gateway and the router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the spool lives; set from the process's data directory.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// Where images come from. No other host is ever contacted for an image.
    pub sources: Vec<SourceConfig>,
    /// Bytes on disk that wait for NATS; beyond that senders get a 503 and send again.
    pub spool_bytes_max: u64,
    /// Bytes of one webhook request.
    pub hook_bytes_max: usize,
    /// Events in one webhook request.
    pub hook_events_max: usize,
    /// Webhook requests per second and source in the long run; beyond it the sender gets a 429.
    pub hooks_per_second_max: u32,
    /// Webhook requests that a source may send at once after a rest.
    pub hooks_burst_max: u32,
    /// How far the time of a signed webhook may be from ours, seconds; beyond it it is refused.
    pub hook_age_s_max: u32,
    /// Scan requests per second and token in the long run; beyond it the client gets a 429.
    pub scans_per_second_max: u32,
    /// Scan requests that a token may send at once after a rest.
    pub scans_burst_max: u32,
    /// Where answers to scan requests may be sent: `host`, `host:port`, or `http://host:port` for
    /// one without TLS. Nothing is sent to any other host, and to none where the list is empty.
    pub callback_hosts: Vec<String>,
    /// How many events the router works on at once.
    pub events_at_once: usize,
}

/// A registry that images come from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceConfig {
    /// Its name: the last part of its webhook's path, `/hooks/<name>`.
    pub name: Slug,
    /// What its webhook sends; see the list in this crate's documentation.
    #[serde(default = "default_kind")]
    pub kind: String,
    /// Host and port of the registry, as references to its images begin.
    pub registry: String,
    /// Speak HTTP without TLS.
    #[serde(default)]
    pub plain_http: bool,
    /// The registry may be at a private, loopback or link-local address.
    #[serde(default)]
    pub allow_private: bool,
    /// User and password for the registry.
    #[serde(default)]
    pub credentials: Option<CredentialsConfig>,
    /// A Docker `config.json` with credentials for the registry, where `credentials` is absent.
    #[serde(default)]
    pub docker_config: Option<PathBuf>,
    /// PEM files with the authorities of the registry's certificate, beside those of the system.
    #[serde(default)]
    pub ca_files: Vec<PathBuf>,
    /// Our own certificate, where the registry wants one.
    #[serde(default)]
    pub client_certificate: Option<ClientCertificateConfig>,
    /// Who is asked before the registry, in this order.
    #[serde(default)]
    pub mirrors: Vec<MirrorConfig>,
    /// How fast the registry is asked.
    #[serde(default)]
    pub pace: PaceConfig,
    /// The token that the webhook's sender must send.
    #[serde(default)]
    pub hook_token: Option<SecretRef>,
    /// The same as the sha256 of the token, in hex; where both are given either token will do, so
    /// that one can be exchanged for another. Without both, the source has no webhook.
    #[serde(default)]
    pub hook_token_sha256: Option<String>,
    /// Further secrets that the webhook's sender may use: it sends one as a token or signs with
    /// one, as its kind has it. Any will do, so that one can be exchanged for another.
    #[serde(default)]
    pub hook_secrets: Vec<SecretRef>,
    /// Whose images these are.
    #[serde(default = "Slug::default_tenant")]
    pub tenant: Slug,
    /// How it is looked around in for what no webhook told of.
    #[serde(default)]
    pub crawl: CrawlConfig,
}

/// User and password for a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CredentialsConfig {
    /// The user.
    pub username: String,
    /// Where the password is kept.
    pub password: SecretRef,
}

// === impl Config ===

impl Config {
    /// Says what is wrong with it, before anything is started.
    pub fn check(&self) -> anyhow::Result<()> {
        let mut names = BTreeSet::new();
        for source in &self.sources {
            source
                .check()
                .with_context(|| format!("source `{}`", source.name))?;
            ensure!(
                source.name != Slug::node_source(),
                "no source may have the name `{}`: images have it that only a node holds",
                source.name
            );
            if !names.insert(&source.name) {
                bail!("there are two sources of the name `{}`", source.name);
            }
        }
        Hosts::new(&self.callback_hosts).context("`callback_hosts`")?;
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            sources: Vec::new(),
            spool_bytes_max: 1 << 30,
            hook_bytes_max: 1 << 20,
            hook_events_max: 1000,
            hooks_per_second_max: 500,
            hooks_burst_max: 1000,
            hook_age_s_max: 300,
            scans_per_second_max: 20,
            scans_burst_max: 200,
            callback_hosts: Vec::new(),
            events_at_once: 16,
        }
    }
}

// === impl SourceConfig ===

impl SourceConfig {
    /// Whether its webhook has a secret, so that anybody can send for it.
    pub(crate) const fn has_hook(&self) -> bool {
        self.hook_token.is_some()
            || self.hook_token_sha256.is_some()
            || !self.hook_secrets.is_empty()
    }

    fn check(&self) -> anyhow::Result<()> {
        let Some(decoder) = decoders::of_kind(&self.kind) else {
            let kinds: Vec<_> = decoders::DECODERS
                .iter()
                .map(|decoder| decoder.kind())
                .collect();
            bail!(
                "`{}` is not a kind of source, only: {}",
                self.kind,
                kinds.join(", ")
            );
        };
        let parsed: Result<ImageRef, _> = format!("{}/a/b", self.registry).parse();
        if !parsed.is_ok_and(|parsed| parsed.registry == self.registry) {
            bail!(
                "`{}` is not a registry like `registry.example:5000`",
                self.registry
            );
        }
        self.pace.check()?;
        for mirror in &self.mirrors {
            mirror.check()?;
        }
        if let Some(hash) = &self.hook_token_sha256
            && Digest::from_hex(hash).is_none()
        {
            bail!("`hook_token_sha256` is not 64 hex digits; make it with `sha256sum`");
        }
        if self.hook_token_sha256.is_some() && decoder.signs() {
            bail!(
                "a source of the kind `{}` signs, so its secret itself is needed: use `hook_secrets`",
                self.kind
            );
        }
        if self.hook_secrets.len() > HOOK_SECRETS_MAX {
            bail!("there are more than {HOOK_SECRETS_MAX} `hook_secrets`");
        }
        self.crawl.check().context("`crawl`")
    }
}

fn default_kind() -> String {
    "distribution".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(json: &str) -> anyhow::Result<SourceConfig> {
        let source: SourceConfig = serde_json::from_str(json)?;
        let config = Config {
            sources: vec![source.clone()],
            ..Config::default()
        };
        config.check()?;
        Ok(source)
    }

    #[test]
    fn a_source_needs_a_name_and_a_registry() {
        let source = source(r#"{"name": "main", "registry": "localhost:5000"}"#).unwrap();
        assert_eq!(
            (source.kind.as_str(), source.tenant.as_str()),
            ("distribution", "default")
        );
    }

    #[test]
    fn mistakes_are_named() {
        let check = |json: &str, expected: &str| {
            let error = format!("{:#}", source(json).unwrap_err());
            assert!(error.contains(expected), "{error}");
        };
        check(
            r#"{"name": "main", "registry": "r.example", "kind": "x"}"#,
            "only: distribution, generic",
        );
        check(
            r#"{"name": "main", "registry": "https://r.example"}"#,
            "is not a registry like",
        );
        check(
            r#"{"name": "main", "registry": "r.example", "tokn": 1}"#,
            "unknown field `tokn`",
        );
        check(
            r#"{"name": "Main", "registry": "r.example"}"#,
            "`Main` is not a name",
        );
        check(
            r#"{"name": "main", "registry": "r.example", "hook_token_sha256": "abc"}"#,
            "is not 64 hex digits",
        );
        check(
            r#"{"name": "main", "registry": "r.example", "hook_token": "hunter2"}"#,
            "a secret is written as `env:NAME` or `file:PATH`",
        );
        let mirror = |name: &str| {
            let mirrors = format!(r#""mirrors": [{{"registry": "{name}"}}]"#);
            format!(r#"{{"name": "main", "registry": "r.example", {mirrors}}}"#)
        };
        for name in ["https://m.example", "m.example/", "m.example/UP", "m/x", ""] {
            check(&mirror(name), "is not a registry like `mirror.example`");
        }
        check(
            r#"{"name": "main", "registry": "r.example", "pace": {"connections_max": 0}}"#,
            "nothing could be fetched",
        );
        check(
            r#"{"name": "main", "registry": "r.example", "pace": {"requests_per_second_max": 0}}"#,
            "nonzero",
        );
        check(
            &format!(
                r#"{{"name": "main", "registry": "r.example", "kind": "generic", "hook_token_sha256": "{}"}}"#,
                Digest::of(b"secret").hex()
            ),
            "its secret itself is needed",
        );
        check(
            r#"{"name": "main", "registry": "r.example", "crawl": {"requests_per_second": 0}}"#,
            "`requests_per_second` is 0",
        );
        check(
            r#"{"name": "main", "registry": "r.example", "crawl": {"repositories": [{"name": "A"}]}}"#,
            "`A` is not the name of a repository",
        );
    }

    #[test]
    fn a_mirror_may_be_a_project_of_a_registry() {
        let source = source(
            r#"{"name": "hub", "registry": "docker.io", "mirrors": [
                {"registry": "harbor.example:8443/proxy/hub", "tags": true}, {"registry": "m.example"}
            ]}"#,
        );
        let source = source.unwrap();
        let places: Vec<_> = source.mirrors.iter().map(MirrorConfig::place).collect();
        assert_eq!(
            places,
            [("harbor.example:8443", "proxy/hub"), ("m.example", "")]
        );
        assert_eq!(source.pace, PaceConfig::default());
    }

    #[test]
    fn two_sources_of_one_name_are_a_mistake() {
        let one = source(r#"{"name": "main", "registry": "localhost:5000"}"#).unwrap();
        let config = Config {
            sources: vec![one.clone(), one],
            ..Config::default()
        };
        assert!(config.check().is_err());
    }
}
