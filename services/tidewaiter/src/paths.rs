//! Where one-off commands keep what they know: `$XDG_CACHE_HOME/tidewaiter`, never a server's data.

use std::path::{Path, PathBuf};

use anyhow::Context as _;

/// The directories of one-off commands.
#[derive(Clone, Debug)]
pub(crate) struct CacheDirs {
    root: PathBuf,
}

// === impl CacheDirs ===

impl CacheDirs {
    /// The user's, or the one that `--cache-dir` names.
    pub(crate) fn find(named: Option<&Path>) -> anyhow::Result<Self> {
        if let Some(named) = named {
            return Ok(Self {
                root: named.to_owned(),
            });
        }
        let absolute = |name: &str| {
            let path = PathBuf::from(chassis::config::env_var(name)?);
            path.is_absolute().then_some(path)
        };
        let root = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .context("neither XDG_CACHE_HOME nor HOME is set: say where with --cache-dir")?;
        Ok(Self {
            root: root.join("tidewaiter"),
        })
    }

    /// The layer cache.
    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The advisories.
    pub(crate) fn advisories(&self) -> PathBuf {
        self.root.join("advisories")
    }
}

/// The docker configuration with registry credentials, where the user has one.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let dir = chassis::config::env_var("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| {
            chassis::config::env_var("HOME").map(|home| PathBuf::from(home).join(".docker"))
        })?;
    let file = dir.join("config.json");
    file.is_file().then_some(file)
}
