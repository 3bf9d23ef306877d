//! Where one-off commands keep what they know: `$XDG_CACHE_HOME/tidewaiter`, never a server's data.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use chassis::config::env_var;
use oci::{Engine, Engines};

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
            let path = PathBuf::from(env_var(name)?);
            path.is_absolute().then_some(path)
        };
        let root = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .context("neither XDG_CACHE_HOME nor HOME is set: say where with --cache-dir")?;
        Ok(Self {
            root: root.join("tidewaiter"),
        })
    }

    /// All of it.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// The layer cache.
    pub(crate) fn layers(&self) -> PathBuf {
        self.root.join("layers")
    }

    /// The rules for malware.
    pub(crate) fn malware(&self) -> PathBuf {
        self.root.join("malware")
    }

    /// The advisories.
    pub(crate) fn advisories(&self) -> PathBuf {
        self.root.join("advisories")
    }
}

/// The docker configuration with registry credentials, where the user has one.
pub(crate) fn docker_config() -> Option<PathBuf> {
    let dir = env_var("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| env_var("HOME").map(|home| PathBuf::from(home).join(".docker")))?;
    let file = dir.join("config.json");
    file.is_file().then_some(file)
}

/// Where the container engines of this machine listen, by their own environment variables or where
/// they usually do.
pub(crate) fn engines() -> Engines {
    let home = env_var("HOME").map(PathBuf::from);
    let runtime = env_var("XDG_RUNTIME_DIR").map(PathBuf::from);
    let below = |dir: &Option<PathBuf>, path: &str| dir.as_ref().map(|dir| dir.join(path));
    let docker = match env_var("DOCKER_HOST") {
        Some(host) => vec![socket(&host)],
        None => vec![
            Some(PathBuf::from("/var/run/docker.sock")),
            below(&runtime, "docker.sock"),
            below(&home, ".docker/run/docker.sock"),
        ],
    };
    let podman = match env_var("CONTAINER_HOST") {
        Some(host) => vec![socket(&host)],
        None => vec![
            below(&runtime, "podman/podman.sock"),
            Some(PathBuf::from("/run/podman/podman.sock")),
        ],
    };
    let containerd = match env_var("CONTAINERD_ADDRESS") {
        Some(address) => vec![socket(&address)],
        None => vec![Some(PathBuf::from("/run/containerd/containerd.sock"))],
    };
    let each = [
        (Engine::Docker, docker),
        (Engine::Podman, podman),
        (Engine::Containerd, containerd),
    ];
    let all = each.into_iter().flat_map(|(engine, sockets)| {
        let there = sockets.into_iter().flatten();
        there.map(move |socket| (engine, socket))
    });
    Engines {
        sockets: all.collect(),
        namespaces: env_var("CONTAINERD_NAMESPACE").map_or_else(
            || vec!["default".to_owned(), "k8s.io".to_owned()],
            |namespace| vec![namespace],
        ),
    }
}

/// The path of `unix:///run/docker.sock`, or of a bare path; other machines are not asked.
fn socket(address: &str) -> Option<PathBuf> {
    let path = address.strip_prefix("unix://").unwrap_or(address);
    path.starts_with('/').then(|| PathBuf::from(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_paths_of_this_machine() {
        let check = |text: &str, expected: Option<&str>| {
            assert_eq!(socket(text), expected.map(PathBuf::from), "{text}");
        };
        check("unix:///run/docker.sock", Some("/run/docker.sock"));
        check(
            "/run/containerd/containerd.sock",
            Some("/run/containerd/containerd.sock"),
        );
        check("tcp://127.0.0.1:2375", None);
        check("ssh://host", None);
    }
}
