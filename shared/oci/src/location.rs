//! Where a person says that an image is.

use std::{
    fmt,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use model::{Digest, ImageRef, ImageRefError};

use crate::source::{Platforms, Wanted};

/// Bytes of the text of a location.
const TEXT_BYTES_MAX: usize = 4096;

/// What files are called that are looked at as archives without a scheme.
const ARCHIVE_NAMES: &[&str] = &[".tar", ".tar.gz", ".tgz", ".tar.zst"];

/// Schemes of other scanners whose targets we do not read.
const FOREIGN_SCHEMES: &[&str] = &["purl", "cpe", "singularity", "file", "vm", "repo"];

/// An image's place, as a person writes it.
///
/// | text | place |
/// |---|---|
/// | `registry:NAME`, `docker://NAME` | a registry |
/// | `docker:NAME`, `podman:NAME`, `containerd:NAME` | a container engine on this machine |
/// | `oci:DIR`, `oci:DIR:TAG`, `oci:DIR@sha256:…`, a directory with `oci-layout` | an OCI layout |
/// | `oci-archive:FILE[:TAG]` | an OCI layout in a tar file |
/// | `docker-archive:FILE[:NAME]` | what `docker save` writes |
/// | a file `*.tar`, `*.tar.gz`, `*.tgz`, `*.tar.zst` | one or the other, by what is in it |
/// | `dir:DIR`, another directory | a directory, as one layer |
/// | `rootfs:DIR` | the same of a root file system: nothing will be installed from it |
/// | `sbom:FILE`, a file that begins as JSON, XML or SPDX does | a bill of materials |
/// | `debian:12`, `registry.example/team/app@sha256:…` | a name: see [`Location::Name`] |
///
/// Archives may be compressed. What comes after `docker:`, `podman:`, `containerd:` and `registry:`
/// is a name only if it could be no tag, for `docker:24` and `registry:2` are images themselves:
/// `docker:app:latest` asks the engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    /// A name that says nothing of the place: the engines on this machine are asked in the order
    /// of [`Engine::ALL`], then the registry.
    Name(ImageRef),
    /// An image in a registry.
    Registry(ImageRef),
    /// An image in a container engine on this machine.
    Engine(Engine, ImageRef),
    /// An OCI image layout in a directory.
    OciLayout {
        /// The directory.
        dir: PathBuf,
        /// The annotation `org.opencontainers.image.ref.name`.
        tag: Option<String>,
        /// The digest of a manifest or index.
        digest: Option<Digest>,
    },
    /// A tar file with an image.
    Archive {
        /// The file.
        file: PathBuf,
        /// What is in it; `None` where that is to be seen.
        kind: Option<ArchiveKind>,
        /// One of its names.
        name: Option<String>,
    },
    /// A directory that is looked at as the one layer of an image.
    Directory(PathBuf),
    /// A root file system, looked at as a directory is.
    RootFs(PathBuf),
    /// A bill of materials; there is no image to open.
    Sbom(PathBuf),
}

/// A container engine on a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Engine {
    /// Docker.
    Docker,
    /// Podman.
    Podman,
    /// containerd.
    Containerd,
    /// The container runtime interface of Kubernetes, as CRI-O has it. It tells what there is, and
    /// gives out no images.
    Cri,
}

/// What a tar file with an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArchiveKind {
    /// `docker save`, `skopeo copy … docker-archive:`.
    Docker,
    /// An OCI layout.
    Oci,
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
    /// A scheme of another scanner.
    #[error(
        "`{0}:` is no kind of target here; there are registry:, docker:, podman:, containerd:, oci:, oci-archive:, docker-archive:, dir:, rootfs: and sbom:"
    )]
    Scheme(String),
}

// === impl Location ===

impl Location {
    /// Reads a location. Looks at the file system to tell a path from a name.
    pub fn parse(text: &str) -> Result<Self, LocationError> {
        if text.len() > TEXT_BYTES_MAX {
            let path: String = text.chars().take(100).collect();
            return Err(LocationError::Path {
                path,
                why: "is longer than 4096 bytes",
            });
        }
        if let Some((scheme, rest)) = text.split_once(':')
            && let Some(location) = Self::with_scheme(scheme, rest)?
        {
            return Ok(location);
        }
        match Self::at_path(text)? {
            Some(location) => Ok(location),
            None => Ok(Self::Name(text.parse()?)),
        }
    }

    /// What to look up in the location's source.
    pub fn wanted(&self, platforms: Platforms) -> Wanted {
        let wanted = match self {
            Self::Name(reference) | Self::Registry(reference) => Wanted::from(reference),
            Self::OciLayout { tag, digest, .. } => Wanted {
                tag: tag.clone(),
                digest: *digest,
                ..Wanted::default()
            },
            Self::Archive { name, .. } => Wanted {
                tag: name.clone(),
                ..Wanted::default()
            },
            // An engine hands out one image, and a directory is one.
            Self::Engine(..) | Self::Directory(_) | Self::RootFs(_) | Self::Sbom(_) => {
                Wanted::default()
            }
        };
        Wanted {
            platforms,
            ..wanted
        }
    }

    /// A location that begins with a scheme; `None` where the text before the colon is none.
    fn with_scheme(scheme: &str, rest: &str) -> Result<Option<Self>, LocationError> {
        let archive = |kind| {
            let (file, name) = split_existing(rest, Path::is_file);
            let kind = Some(kind);
            Self::Archive { file, kind, name }
        };
        Ok(Some(match scheme {
            "oci" | "oci-dir" => Self::layout(rest)?,
            "oci-archive" => archive(ArchiveKind::Oci),
            "docker-archive" => archive(ArchiveKind::Docker),
            "dir" => Self::Directory(directory(rest)?),
            "rootfs" => Self::RootFs(directory(rest)?),
            "sbom" if is_file_name(rest) || !could_be_tag(rest) => Self::Sbom(document(rest)?),
            "docker-daemon" => Self::Engine(Engine::Docker, rest.parse()?),
            "docker" if rest.starts_with("//") => {
                let name = rest.strip_prefix("//").unwrap_or(rest);
                Self::Registry(name.parse()?)
            }
            foreign if FOREIGN_SCHEMES.contains(&foreign) && is_file_name(rest) => {
                return Err(LocationError::Scheme(foreign.to_owned()));
            }
            _ if rest.is_empty() || could_be_tag(rest) => return Ok(None),
            "registry" => Self::Registry(rest.parse()?),
            foreign if FOREIGN_SCHEMES.contains(&foreign) => {
                return Err(LocationError::Scheme(foreign.to_owned()));
            }
            other => match Engine::ALL.into_iter().find(|e| e.as_str() == other) {
                Some(engine) => Self::Engine(engine, rest.parse()?),
                None => return Ok(None),
            },
        }))
    }

    /// A location without scheme that is there, or can only be a path.
    fn at_path(text: &str) -> Result<Option<Self>, LocationError> {
        let path = Path::new(text);
        let wrong = |why| {
            let path = text.to_owned();
            Err(LocationError::Path { path, why })
        };
        if path.is_dir() {
            if path.join("oci-layout").is_file() {
                return Ok(Some(Self::OciLayout {
                    dir: path.to_owned(),
                    tag: None,
                    digest: None,
                }));
            }
            // A directory `debian` beside us does not stand in the way of the image.
            if is_path(text) || text.contains('/') {
                return Ok(Some(Self::Directory(directory(text)?)));
            }
        }
        if path.is_file() {
            if ARCHIVE_NAMES.iter().any(|name| text.ends_with(name)) {
                return Ok(Some(Self::Archive {
                    file: path.to_owned(),
                    kind: None,
                    name: None,
                }));
            }
            if is_path(text) || text.contains('.') {
                if begins_as_document(path) {
                    return Ok(Some(Self::Sbom(path.to_owned())));
                }
                return wrong(
                    "is a file of no known kind: name it `*.tar`, or say what it is with docker-archive:, oci-archive: or sbom:",
                );
            }
        }
        if is_path(text) {
            return wrong("does not exist");
        }
        Ok(None)
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
            Self::Name(reference) => reference.fmt(f),
            Self::Registry(reference) => write!(f, "registry:{reference}"),
            Self::Engine(engine, reference) => write!(f, "{engine}:{reference}"),
            Self::OciLayout { dir, tag, digest } => {
                write!(f, "oci:{}", dir.display())?;
                tag.as_ref().map_or(Ok(()), |tag| write!(f, ":{tag}"))?;
                digest.map_or(Ok(()), |digest| write!(f, "@{digest}"))
            }
            Self::Archive { file, kind, name } => {
                let scheme = match kind {
                    None => "",
                    Some(ArchiveKind::Docker) => "docker-archive:",
                    Some(ArchiveKind::Oci) => "oci-archive:",
                };
                write!(f, "{scheme}{}", file.display())?;
                name.as_ref().map_or(Ok(()), |name| write!(f, ":{name}"))
            }
            Self::Directory(dir) => write!(f, "dir:{}", dir.display()),
            Self::RootFs(dir) => write!(f, "rootfs:{}", dir.display()),
            Self::Sbom(file) => write!(f, "sbom:{}", file.display()),
        }
    }
}

// === impl Engine ===

impl Engine {
    /// Those that give out images, in the order in which a bare name is looked for.
    pub const ALL: [Self; 3] = [Self::Docker, Self::Podman, Self::Containerd];

    /// Its scheme.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Podman => "podman",
            Self::Containerd => "containerd",
            Self::Cri => "cri",
        }
    }
}

impl fmt::Display for Engine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

fn directory(text: &str) -> Result<PathBuf, LocationError> {
    existing(text, Path::is_dir, "is not a directory")
}

fn document(text: &str) -> Result<PathBuf, LocationError> {
    existing(text, Path::is_file, "is not a file")
}

fn existing(
    text: &str,
    is_there: fn(&Path) -> bool,
    why: &'static str,
) -> Result<PathBuf, LocationError> {
    let path = PathBuf::from(text);
    if is_there(&path) {
        return Ok(path);
    }
    Err(LocationError::Path {
        path: text.to_owned(),
        why,
    })
}

/// Whether a file begins as bills of materials do; what it is tells who reads it.
fn begins_as_document(path: &Path) -> bool {
    const START_BYTES: u64 = 512;
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(START_BYTES).read_to_end(&mut start));
    let start = start.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&start);
    let start = start.trim_ascii_start();
    read.is_ok()
        && (start.starts_with(b"{")
            || start.starts_with(b"<")
            || start.starts_with(b"SPDXVersion:"))
}

/// Whether a text can only be a path.
fn is_path(text: &str) -> bool {
    text.starts_with(['/', '.', '~'])
}

/// Whether what follows a colon may be the tag of an image, as in `docker:24`.
fn could_be_tag(text: &str) -> bool {
    !text.contains(['/', ':', '@'])
}

/// Whether what follows the scheme of another scanner is a file, and no tag of an image called so.
fn is_file_name(text: &str) -> bool {
    let path = Path::new(text);
    let is_document = |kind: &std::ffi::OsStr| kind == "json" || kind == "xml";
    path.extension().is_some_and(is_document) || path.is_file()
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

    fn check(text: &str, expected: &str) {
        assert_eq!(
            Location::parse(text).unwrap().to_string(),
            expected,
            "{text}"
        );
    }

    #[test]
    fn a_scheme_forces_and_a_name_leaves_it_open() {
        for text in ["debian", "localhost:5000/a/b", "registry:2", "docker:24"] {
            let location = Location::parse(text).unwrap();
            assert!(matches!(location, Location::Name(_)), "{text}");
        }
        check("debian", "docker.io/library/debian:latest");
        check("registry:2", "docker.io/library/registry:2");
        check("localhost:5000/a/b", "localhost:5000/a/b:latest");
        check("docker://debian:12", "registry:docker.io/library/debian:12");
        check("registry:debian:12", "registry:docker.io/library/debian:12");
        check("docker:debian:12", "docker:docker.io/library/debian:12");
        check("docker-daemon:app", "docker:docker.io/library/app:latest");
        check("podman:a/b", "podman:docker.io/a/b:latest");
        check("containerd:a/b:1", "containerd:docker.io/a/b:1");
    }

    #[test]
    fn layouts_and_archives_are_told_by_prefix_or_by_what_is_there() {
        let temp = tempfile::tempdir().unwrap();
        let dir = temp.path().join("a:b");
        std::fs::create_dir(&dir).unwrap();
        std::fs::write(dir.join("oci-layout"), "{}").unwrap();
        let file = temp.path().join("image.tar.gz");
        std::fs::write(&file, "").unwrap();
        let digest = Digest::of(b"x");
        let (at, tar) = (dir.display(), file.display());
        check(&format!("{at}"), &format!("oci:{at}"));
        check(&format!("oci:{at}"), &format!("oci:{at}"));
        check(&format!("oci-dir:{at}:v1"), &format!("oci:{at}:v1"));
        check(&format!("oci:{at}@{digest}"), &format!("oci:{at}@{digest}"));
        check(&format!("dir:{at}"), &format!("dir:{at}"));
        check(&format!("{tar}"), &format!("{tar}"));
        for archive in [
            format!("docker-archive:{tar}"),
            format!("docker-archive:{tar}:app:1"),
            format!("oci-archive:{tar}:app"),
        ] {
            check(&archive, &archive);
        }
        let root = temp.path().display();
        check(&format!("rootfs:{root}"), &format!("rootfs:{root}"));
        check(&format!("{root}"), &format!("dir:{root}"));
    }

    #[test]
    fn bills_of_materials_are_told_by_how_they_begin() {
        let temp = tempfile::tempdir().unwrap();
        let of = |content: &str| {
            let file = temp.path().join("some.file");
            std::fs::write(&file, content).unwrap();
            (Location::parse(&file.display().to_string()), file)
        };
        for content in ["\u{feff} {}", "<?xml", "SPDXVersion: SPDX-2.3\n"] {
            let (location, file) = of(content);
            assert_eq!(location.unwrap(), Location::Sbom(file.clone()), "{content}");
            let text = format!("sbom:{}", file.display());
            check(&text, &text);
        }
        assert!(of("text").0.is_err() && of("").0.is_err());
    }

    #[test]
    fn what_is_no_place_says_why() {
        fn check(text: &str, expected: &str) {
            let error = Location::parse(text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        let temp = tempfile::tempdir().unwrap();
        let file = temp.path().join("image.bin");
        std::fs::write(&file, "").unwrap();
        check(&file.display().to_string(), "is a file of no known kind");
        check(&format!("dir:{}", file.display()), "is not a directory");
        check("./missing.tar", "`./missing.tar` does not exist");
        check("UPPER", "is not an image reference");
        check("sbom:./bom.json", "`./bom.json` is not a file");
        check("sbom:bom.json", "`bom.json` is not a file");
        check("purl:./bom.json", "`purl:` is no kind of target here");
        assert!(Location::parse("repo:1.0").is_ok());
        assert!(Location::parse("sbom:1.0").is_ok());
        check(
            &format!("oci:{}@sha256:zz", temp.path().display()),
            "digest",
        );
        check(&"a".repeat(10_000), "longer than 4096 bytes");
    }
}
