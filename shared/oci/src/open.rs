//! From a location to its source, as a person at a terminal expects it.

use std::{fmt, path::Path, sync::Arc};

use chassis::Cx;
use model::ImageRef;

use crate::{
    ArchiveKind, Directory, DockerArchive, DockerConfig, Engine, Engines, Limits, Location, Login,
    Missing, OciError, OciLayout, Registry, RegistryConfig, Skip, Source,
    source::{Platforms, Wanted},
    tarball::Tarball,
};

/// What opening a location may need.
#[derive(Clone, Default)]
pub struct Opening {
    /// Settings of a registry; the host is the location's.
    pub registry: RegistryConfig,
    /// Logins for where `registry` names none.
    pub docker: Option<DockerConfig>,
    /// Where engines listen.
    pub engines: Engines,
    /// What of a directory is left out.
    pub skip: Option<Skip>,
    /// Which images of an index are wanted.
    pub platforms: Platforms,
}

/// A source, and what to ask it for.
pub struct Opened {
    /// The source.
    pub source: Arc<dyn Source>,
    /// What to resolve.
    pub wanted: Wanted,
    /// The place, where the location left it open.
    pub chosen: Option<String>,
    /// Engines that were passed over since they could not be asked.
    pub passed_over: Vec<OciError>,
}

/// Opens the source of a location.
///
/// A bare name is looked for in Docker, podman and containerd, as far as their sockets are there,
/// and then in its registry. An engine that cannot be asked is passed over; one that was named is
/// an error.
pub async fn open(cx: &Cx, location: &Location, opening: &Opening) -> Result<Opened, OciError> {
    let wanted = location.wanted(opening.platforms.clone());
    let source: Arc<dyn Source> = match location {
        Location::Name(reference) => return by_name(cx, reference, wanted, opening).await,
        Location::Engine(engine, reference) => {
            let engines = &opening.engines;
            let found = engines.find(cx, *engine, reference, &opening.platforms);
            let found = found.await?.ok_or_else(|| OciError::NotFound {
                what: reference.to_string(),
                place: engine.to_string(),
                missing: Missing::Unsaid,
            })?;
            return Ok(Opened::plain(found.source, found.wanted));
        }
        Location::Registry(reference) => registry(cx, reference, opening).await?,
        Location::OciLayout { dir, .. } => Arc::new(OciLayout::open(cx, dir).await?),
        Location::Archive { file, kind, .. } => archive(cx, file, *kind).await?,
        Location::Directory(dir) | Location::RootFs(dir) => {
            Arc::new(Directory::new(cx, dir, opening.skip.clone()))
        }
        Location::Sbom(file) => {
            let what = format!("`{}`", file.display());
            return Err(OciError::unsupported(
                what,
                "a bill of materials has no layers",
            ));
        }
    };
    Ok(Opened::plain(source, wanted))
}

async fn by_name(
    cx: &Cx,
    reference: &ImageRef,
    wanted: Wanted,
    opening: &Opening,
) -> Result<Opened, OciError> {
    let engines = &opening.engines;
    let mut passed_over = Vec::new();
    for engine in Engine::ALL {
        if !engines.present().any(|(there, _)| *there == engine) {
            continue;
        }
        match engines
            .find(cx, engine, reference, &opening.platforms)
            .await
        {
            Ok(Some(found)) => {
                let place = format!("{engine} at {}", found.socket.display());
                return Ok(Opened {
                    chosen: Some(place),
                    passed_over,
                    ..Opened::plain(found.source, found.wanted)
                });
            }
            Ok(None) => {}
            Err(error) if error.is_transient() => passed_over.push(error),
            Err(error) => return Err(error),
        }
    }
    Ok(Opened {
        passed_over,
        ..Opened::plain(registry(cx, reference, opening).await?, wanted)
    })
}

async fn registry(
    cx: &Cx,
    reference: &ImageRef,
    opening: &Opening,
) -> Result<Arc<dyn Source>, OciError> {
    let registry = opening.registry.clone();
    let host = reference.registry.clone();
    let login = match (registry.login, &opening.docker) {
        (Login::Anonymous, Some(docker)) => Login::Docker(docker.clone()),
        (given, _) => given,
    };
    login.check(cx, &host).await?;
    let config = RegistryConfig {
        host,
        login,
        ..registry
    };
    Ok(Arc::new(Registry::new(cx, config)?))
}

async fn archive(
    cx: &Cx,
    file: &Path,
    kind: Option<ArchiveKind>,
) -> Result<Arc<dyn Source>, OciError> {
    let (file, inner) = (file.to_owned(), cx.clone());
    let opened = cx.blocking(move || {
        let tarball = Tarball::open(&inner, &file, &Limits::default())?;
        // Docker writes both since version 25; its own index knows the names of images.
        let seen = || match tarball.find("manifest.json") {
            Some(_) => Ok(ArchiveKind::Docker),
            None if tarball.find("oci-layout").is_some() => Ok(ArchiveKind::Oci),
            None => Err(OciError::unsupported(
                format!("`{}`", tarball.name),
                "it has neither `manifest.json` nor `oci-layout`, so it is no image; unpack it and scan the directory",
            )),
        };
        let source: Arc<dyn Source> = match kind.map_or_else(seen, Ok)? {
            ArchiveKind::Docker => Arc::new(DockerArchive::in_tarball(&inner, tarball)?),
            ArchiveKind::Oci => Arc::new(OciLayout::in_tarball(&inner, tarball)?),
        };
        Ok(source)
    });
    opened.await?
}

// === impl Opening ===

impl fmt::Debug for Opening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opening")
            .field("engines", &self.engines)
            .field("platforms", &self.platforms)
            .finish_non_exhaustive()
    }
}

// === impl Opened ===

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Opened")
            .field("wanted", &self.wanted)
            .field("chosen", &self.chosen)
            .finish_non_exhaustive()
    }
}

impl Opened {
    fn plain(source: Arc<dyn Source>, wanted: Wanted) -> Self {
        Self {
            source,
            wanted,
            chosen: None,
            passed_over: Vec::new(),
        }
    }
}
