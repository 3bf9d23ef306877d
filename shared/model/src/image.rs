//! Images: references, platforms, configs, and the report that layers give together.

use std::{collections::BTreeMap, fmt, str::FromStr};

use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    AnalyzerId, Digest, Gap, License, Malware, Misconfiguration, Package, RemovedPackage, Secret,
    Tampered, reference,
};

/// The name of an image in a registry, as in `docker.io/library/debian:12@sha256:…`.
///
/// Short names are completed as Docker does it: `debian` is `docker.io/library/debian:latest`.
#[derive(
    Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct ImageRef {
    /// Host and port.
    pub registry: String,
    /// The repository's path.
    pub repository: String,
    /// The tag.
    pub tag: Option<String>,
    /// The digest; where both are given it wins.
    pub digest: Option<Digest>,
}

/// The text is not an image reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an image reference like `registry.example/team/app:1.0`: {why}")]
pub struct ImageRefError {
    text: String,
    why: String,
}

/// An operating system and processor (OCI image-spec, "Image Index").
#[derive(
    Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Platform {
    /// `linux`, `windows`, …
    pub os: String,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `v7`, `v8`, …
    pub variant: Option<String>,
}

/// The text is not a platform.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a platform like `linux/arm64` or `linux/arm/v7`")]
pub struct PlatformError(String);

/// An image's config, as far as it matters here (OCI image-spec, "Image Configuration").
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// The platform.
    pub platform: Platform,
    /// The diffIDs that the config claims, base layer first.
    pub diff_ids: Vec<Digest>,
    /// When it was built, where it says so: a build that must come out the same each time does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<Timestamp>,
    /// What the build noted, oldest first, with the steps that made no layer.
    pub history: Vec<HistoryStep>,
    /// What a container runs with.
    pub runtime: RuntimeConfig,
    /// Whether it was written for what has none, as a directory: it says nothing of user, health or
    /// build.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_written: bool,
    /// The environment with its values, to be looked into for secrets.
    #[serde(skip)]
    pub environment: Environment,
}

/// Variables of an image's environment, as name and value. The values stay in memory: they are
/// neither printed nor written anywhere.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Environment(pub Vec<(String, String)>);

/// A step of the build.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct HistoryStep {
    /// The instruction.
    pub created_by: String,
    /// Whether it made no layer.
    pub empty_layer: bool,
}

/// What a container of the image runs with; the report's `target.config`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct RuntimeConfig {
    /// User and group.
    #[serde(default)]
    pub user: Option<String>,
    /// The entrypoint.
    #[serde(default)]
    pub entrypoint: Vec<String>,
    /// The command.
    #[serde(default)]
    pub cmd: Vec<String>,
    /// The working directory.
    #[serde(default)]
    pub workdir: Option<String>,
    /// Ports, as `80/tcp`.
    #[serde(default)]
    pub exposed_ports: Vec<String>,
    /// Volumes.
    #[serde(default)]
    pub volumes: Vec<String>,
    /// The health check's command.
    #[serde(default)]
    pub healthcheck: Option<Vec<String>>,
    /// Labels.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Names of environment variables; never their values.
    #[serde(default)]
    pub env_names: Vec<String>,
}

/// What was scanned; the report's `target`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Target {
    /// What the user asked for.
    pub reference: String,
    /// The index that led here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub index_digest: Option<Digest>,
    /// The registry manifest; absent for targets without one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub manifest_digest: Option<Digest>,
    /// The config's digest: what runtimes call the image id.
    pub image_id: Digest,
    /// The platform.
    pub platform: Platform,
    /// When it was built, where it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<crate::schema::Time>")]
    pub created: Option<Timestamp>,
    /// The operating system.
    #[serde(default)]
    pub os: Option<Os>,
    /// The layers, base first.
    pub layers: Vec<TargetLayer>,
    /// What a container runs with.
    pub config: RuntimeConfig,
}

/// An operating system as reports name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Os {
    /// `debian`, `alpine`, …
    pub id: String,
    /// `12`, `3.15.11`, …
    pub version_id: String,
    /// Whether it no longer gets security updates; `None` where we do not know.
    #[serde(default)]
    pub eol: Option<bool>,
    /// `PRETTY_NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pretty_name: Option<String>,
    /// `VERSION_CODENAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codename: Option<String>,
}

/// A layer as reports name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct TargetLayer {
    /// The blob's digest.
    pub digest: Digest,
    /// The digest of the uncompressed layer, computed; `None` where it could not be read.
    pub diff_id: Option<Digest>,
    /// Bytes of the blob.
    pub size: u64,
    /// The instruction that made it.
    #[serde(default)]
    pub created_by: Option<String>,
}

/// Everything that an image's layers prove together: the result of `analyzers::coalesce`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageReport {
    /// The image: its manifest's digest (or that of the manifest written for it).
    pub image: Digest,
    /// What was scanned.
    pub target: Target,
    /// Who looked.
    pub analyzers: Vec<AnalyzerId>,
    /// Packages that a container of the image would see.
    pub packages: Vec<Package>,
    /// Findings that need no advisories.
    pub findings: Findings,
    /// What could not be looked at.
    pub gaps: Vec<Gap>,
}

/// Findings that need no advisories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Findings {
    /// Secrets.
    #[serde(default)]
    pub secrets: Vec<Secret>,
    /// Misconfigurations.
    #[serde(default)]
    pub misconfigurations: Vec<Misconfiguration>,
    /// Malware.
    #[serde(default)]
    pub malware: Vec<Malware>,
    /// Licences.
    #[serde(default)]
    pub licenses: Vec<License>,
    /// Files that are not as their package installed them.
    #[serde(default)]
    pub tampered: Vec<Tampered>,
    /// Packages that a later layer removed or replaced.
    #[serde(default)]
    pub removed: Vec<RemovedPackage>,
}

// === impl Environment ===

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

// === impl ImageRef ===

impl ImageRef {
    /// `registry/repository`.
    pub fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// The same repository at another digest, without a tag.
    #[must_use]
    pub fn at(&self, digest: Digest) -> Self {
        Self {
            tag: None,
            digest: Some(digest),
            ..self.clone()
        }
    }
}

impl FromStr for ImageRef {
    type Err = ImageRefError;

    fn from_str(text: &str) -> Result<Self, ImageRefError> {
        let fail = |why: String| ImageRefError {
            text: text.chars().take(300).collect(),
            why,
        };
        if text.len() > 1024 {
            return Err(fail("it is longer than 1024 characters".to_owned()));
        }
        let parts = reference::parse(text).map_err(|why| fail(why.to_owned()))?;
        let lower = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'_' | b'-' | b'/');
        if !parts.repository.bytes().all(lower) {
            return Err(fail("a repository is written in lower case".to_owned()));
        }
        let digest = parts.digest.map(Digest::from_str).transpose();
        let digest = digest.map_err(|error| fail(error.to_string()))?;
        Ok(Self {
            registry: parts.registry.to_owned(),
            repository: parts.repository.into_owned(),
            tag: parts.tag.map(ToOwned::to_owned),
            digest,
        })
    }
}

impl TryFrom<String> for ImageRef {
    type Error = ImageRefError;

    fn try_from(text: String) -> Result<Self, ImageRefError> {
        text.parse()
    }
}

impl From<ImageRef> for String {
    fn from(reference: ImageRef) -> Self {
        reference.to_string()
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

// === impl Platform ===

impl FromStr for Platform {
    type Err = PlatformError;

    fn from_str(text: &str) -> Result<Self, PlatformError> {
        let fail = || PlatformError(text.chars().take(80).collect());
        let mut parts = text.split('/');
        let (Some(os), Some(architecture)) = (parts.next(), parts.next()) else {
            return Err(fail());
        };
        let variant = parts.next().map(ToOwned::to_owned);
        if os.is_empty() || architecture.is_empty() || parts.next().is_some() || text.len() > 80 {
            return Err(fail());
        }
        Ok(Self {
            os: os.to_owned(),
            architecture: architecture.to_owned(),
            variant,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant
            .as_ref()
            .map_or(Ok(()), |variant| write!(f, "/{variant}"))
    }
}

impl TryFrom<String> for Platform {
    type Error = PlatformError;

    fn try_from(text: String) -> Result<Self, PlatformError> {
        if text == "/" {
            Ok(Self::default())
        } else {
            text.parse()
        }
    }
}

impl From<Platform> for String {
    fn from(platform: Platform) -> Self {
        platform.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_references_are_completed_as_docker_does() {
        let check = |text: &str, expected: &str| {
            assert_eq!(
                text.parse::<ImageRef>().unwrap().to_string(),
                expected,
                "{text}"
            );
        };
        check("debian", "docker.io/library/debian:latest");
        check("localhost:5000/a/b:1", "localhost:5000/a/b:1");
        let digest = Digest::of(b"x");
        check(
            &format!("r.example/a@{digest}"),
            &format!("r.example/a@{digest}"),
        );
    }

    #[test]
    fn a_bad_reference_says_what_is_wrong() {
        let error = "UPPER/case".parse::<ImageRef>().unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with("`UPPER/case` is not an image reference"),
            "{error}"
        );
        assert!("a".repeat(2000).parse::<ImageRef>().is_err());
    }

    #[test]
    fn platforms_round_trip() {
        for text in ["linux/amd64", "linux/arm/v7"] {
            assert_eq!(text.parse::<Platform>().unwrap().to_string(), text);
        }
        assert!("linux".parse::<Platform>().is_err());
    }
}
