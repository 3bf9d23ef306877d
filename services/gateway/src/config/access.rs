//! How a source's registry is reached: its mirrors, certificates, and how fast it is asked.

use std::{
    num::{NonZeroU32, NonZeroU64},
    path::PathBuf,
};

use anyhow::bail;
use chassis::SecretRef;
use model::ImageRef;
use serde::{Deserialize, Serialize};

use super::CredentialsConfig;

/// Somebody who has copies of a source's images, and who is asked before its registry. Nothing that
/// is kept for it goes to any other host.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MirrorConfig {
    /// Its host and port, and what stands before the names of repositories there:
    /// `mirror.example`, `harbor.example/dockerhub`.
    pub registry: String,
    /// Ask it where a tag leads, too. It may lag behind; without this the registry itself is asked,
    /// and the mirror for what is named by digest, where it cannot lie.
    #[serde(default)]
    pub tags: bool,
    /// Speak HTTP without TLS.
    #[serde(default)]
    pub plain_http: bool,
    /// It may be at a private, loopback or link-local address.
    #[serde(default)]
    pub allow_private: bool,
    /// User and password for it.
    #[serde(default)]
    pub credentials: Option<CredentialsConfig>,
    /// A Docker `config.json` with credentials for it, where `credentials` is absent.
    #[serde(default)]
    pub docker_config: Option<PathBuf>,
    /// PEM files with the authorities of its certificate, beside those of the system.
    #[serde(default)]
    pub ca_files: Vec<PathBuf>,
    /// Our own certificate, where it wants one.
    #[serde(default)]
    pub client_certificate: Option<ClientCertificateConfig>,
}

/// A certificate to show to a registry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClientCertificateConfig {
    /// A PEM file with it, and with those between it and its authority.
    pub file: PathBuf,
    /// Where its key is kept, PEM.
    pub key: SecretRef,
}

/// How fast a registry is asked, by this process, for all images of a source together. Each mirror
/// has as much again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PaceConfig {
    /// Requests and open blobs at once.
    pub connections_max: usize,
    /// Requests per second; without it, as many as the registry answers. A registry that says how
    /// long it wants to be left alone is left alone in any case.
    pub requests_per_second_max: Option<NonZeroU32>,
    /// Bytes per second.
    pub bytes_per_second_max: Option<NonZeroU64>,
}

// === impl MirrorConfig ===

impl MirrorConfig {
    /// Host and port, and what stands before the names of repositories.
    pub(crate) fn place(&self) -> (&str, &str) {
        self.registry
            .split_once('/')
            .unwrap_or((self.registry.as_str(), ""))
    }

    pub(super) fn check(&self) -> anyhow::Result<()> {
        let (host, prefix) = self.place();
        let repository = format!("{prefix}/a/b");
        let name = format!("{host}/{}", repository.trim_start_matches('/'));
        let parsed: Result<ImageRef, _> = name.parse();
        let fits = parsed.is_ok_and(|parsed| parsed.registry == host);
        if !fits || self.registry.ends_with('/') {
            bail!(
                "the mirror `{}` is not a registry like `mirror.example` or `harbor.example/proxy`",
                self.registry
            );
        }
        Ok(())
    }
}

// === impl PaceConfig ===

impl PaceConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.connections_max == 0 {
            bail!("`pace.connections_max` is 0: nothing could be fetched");
        }
        Ok(())
    }
}

impl Default for PaceConfig {
    fn default() -> Self {
        let pace = oci::Pace::default();
        Self {
            connections_max: pace.connections_max,
            requests_per_second_max: pace.requests_per_second_max,
            bytes_per_second_max: pace.bytes_per_second_max,
        }
    }
}

impl From<PaceConfig> for oci::Pace {
    fn from(config: PaceConfig) -> Self {
        Self {
            connections_max: config.connections_max,
            requests_per_second_max: config.requests_per_second_max,
            bytes_per_second_max: config.bytes_per_second_max,
        }
    }
}
