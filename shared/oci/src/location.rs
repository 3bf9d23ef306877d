//! Where a person says that an image is.

use std::{
    fmt,
    path::{Path, PathBuf},
};

use model::{Digest, ImageRef, ImageRefError};

use crate::source::{Platforms, Wanted};

/// An image's place, as a person writes it.
///
/// | text | place |
/// |---|---|
/// | `debian:12`, `registry.example/team/app@sha256:…`, `docker://debian` | registry |
/// | `oci:DIR`, `oci:DIR:TAG`, `oci:DIR@sha256:…`, a directory with `oci-layout` | OCI layout |
/// | `docker-archive:FILE`, `docker-archive:FILE:NAME`, an existing file `*.tar` | docker-archive |
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// An image in a registry.
    Registry(ImageRef),
    /// An OCI image layout in a directory.
    OciLayout {
        /// The directory.
        dir: PathBuf,
        /// The annotation `org.opencontainers.image.ref.name`.
        tag: Option<String>,
        /// The digest of a manifest or index.
        digest: Option<Digest>,
    },
    /// A tar file as `docker save` writes it.
    DockerArchive {
        /// The file.
        file: PathBuf,
        /// One of its `RepoTags`.
        name: Option<String>,
    },
}

/// The text does not say where an image is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LocationError {
    /// Not a reference either.
    #[error(transparent)]
    Reference(#[from] ImageRefError),
    /// The digest is not one.
    #[error("`{text}` does not end in a digest: {why}")]
    Digest {
        /// The text.
        text: String,
        /// Why.
        why: String,
    },
    /// A path that holds no image.
    #[error("`{path}` {why}")]
    Path {
        /// The path.
        path: String,
        /// Why.
        why: &'static str,
    },
}

// === impl Location ===

impl Location {
    /// Reads a location. Looks at the file system to tell a path from a name.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if text.len() > 4096 {
            let path: String = text.chars().take(100).collect();
            return Err(LocationError::Path {
                path,
                why: "is longer than 4096 bytes",
            });
        }
        if let Some(rest) = text.strip_prefix("oci:") {
            return Self::layout(rest);
        }
        if let Some(rest) = text.strip_prefix("docker-archive:") {
            let (file, name) = split_existing(rest, Path::is_file);
            return Ok(Self::DockerArchive { file, name });
        }
        let path = Path::new(text);
        if path.is_dir() {
            if path.join("oci-layout").is_file() {
                return Ok(Self::OciLayout {
                    dir: path.to_owned(),
                    tag: None,
                    digest: None,
                });
            }
            if is_path(text) {
                let why = "is a directory without a file `oci-layout`";
                return Err(LocationError::Path {
                    path: text.to_owned(),
                    why,
                });
            }
        }
        if path.is_file() && path.extension().is_some_and(|extension| extension == "tar") {
            return Ok(Self::DockerArchive {
                file: path.to_owned(),
                name: None,
            });
        }
        if is_path(text) {
            let why = "is neither a directory with `oci-layout` nor a file `*.tar`";
            return Err(LocationError::Path {
                path: text.to_owned(),
                why,
            });
        }
        Ok(Self::Registry(
            text.strip_prefix("docker://").unwrap_or(text).parse()?,
        ))
    }

    /// What to look up in the location's source.
    pub fn wanted(&self, platforms: Platforms) -> Wanted {
        let wanted = match self {
            Self::Registry(reference) => Wanted::from(reference),
            Self::OciLayout { tag, digest, .. } => Wanted {
                tag: tag.clone(),
                digest: *digest,
                ..Wanted::default()
            },
            Self::DockerArchive { name, .. } => Wanted {
                tag: name.clone(),
                ..Wanted::default()
            },
        };
        Wanted {
            platforms,
            ..wanted
        }
    }

    fn layout(rest: &str) -> Result<Self, LocationError> {
        if let Some((dir, digest)) = rest.rsplit_once('@').filter(|(_, end)| end.contains(':')) {
            let digest =
                digest
                    .parse()
                    .map_err(|error: model::DigestError| LocationError::Digest {
                        text: rest.to_owned(),
                        why: error.to_string(),
                    })?;
            let (dir, tag) = split_existing(dir, Path::is_dir);
            return Ok(Self::OciLayout {
                dir,
                tag,
                digest: Some(digest),
            });
        }
        let (dir, tag) = split_existing(rest, Path::is_dir);
        Ok(Self::OciLayout {
            dir,
            tag,
            digest: None,
        })
    }
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry(reference) => reference.fmt(f),
            Self::OciLayout { dir, tag, digest } => {
                write!(f, "oci:{}", dir.display())?;
                tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
                digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
            }
            Self::DockerArchive { file, name } => {
                write!(f, "docker-archive:{}", file.display())?;
                name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
            }
        }
    }
}

/// Whether a text can only be a path.
fn is_path(text: &str) -> bool {
    text.starts_with(['/', '.', '~'])
}

/// Splits `PATH[:REST]` at the first colon whose left side exists; the whole text is the path where
/// none does, so that the error names it.
fn split_existing(text: &str, exists: fn(&Path) -> bool) -> (PathBuf, Option<String>) {
    if exists(Path::new(text)) {
        return (PathBuf::from(text), None);
    }
    for (at, _) in text.match_indices(':') {
        let (path, rest) = text.split_at_checked(at).unwrap_or((text, ""));
        if exists(Path::new(path)) {
            return (
                PathBuf::from(path),
                rest.strip_prefix(':').map(ToOwned::to_owned),
            );
        }
    }
    (PathBuf::from(text), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_registry_references() {
        for (text, expected) in [
            ("debian", "docker.io/library/debian:latest"),
            ("docker://debian:12", "docker.io/library/debian:12"),
            ("localhost:5000/a/b", "localhost:5000/a/b:latest"),
            ("registry:2", "docker.io/library/registry:2"),
        ] {
            let location = Location::parse(text).unwrap();
            assert!(matches!(location, Location::Registry(_)), "{text}");
            assert_eq!(location.to_string(), expected);
        }
    }

    #[test]
    fn layouts_and_archives_are_told_by_prefix_or_by_what_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a:b");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("oci-layout"), "{}").unwrap();
        let file = temp.path().join("image.tar");
        std::fs::write(&file, "").unwrap();
        let digest = Digest::of(b"x");
        let (at, tar) = (dir.display(), file.display());
        let layout = |tag: Option<&str>, digest| Location::OciLayout {
            dir: dir.clone(),
            tag: tag.map(ToOwned::to_owned),
            digest,
        };
        let archive = |name: Option<&str>| Location::DockerArchive {
            file: file.clone(),
            name: name.map(ToOwned::to_owned),
        };
        for (text, expected) in [
            (format!("{at}"), layout(None, None)),
            (format!("oci:{at}"), layout(None, None)),
            (format!("oci:{at}:v1"), layout(Some("v1"), None)),
            (format!("oci:{at}@{digest}"), layout(None, Some(digest))),
            (format!("{tar}"), archive(None)),
            (format!("docker-archive:{tar}"), archive(None)),
            (
                format!("docker-archive:{tar}:app:1"),
                archive(Some("app:1")),
            ),
        ] {
            assert_eq!(Location::parse(&text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn what_is_no_place_says_why() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().display().to_string();
        let error = Location::parse(&dir).unwrap_err().to_string();
        assert!(
            error.ends_with("is a directory without a file `oci-layout`"),
            "{error}"
        );
        assert!(Location::parse("./missing.tar").is_err());
        assert!(Location::parse("UPPER").is_err());
        assert!(Location::parse(&format!("oci:{dir}@sha256:zz")).is_err());
        assert!(Location::parse(&"a".repeat(10_000)).is_err());
    }
}
