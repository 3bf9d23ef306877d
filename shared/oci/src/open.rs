//! From a location to its source, as a person at a terminal expects it.

use std::sync::Arc;

use chassis::Cx;

use crate::{
    DockerArchive, DockerConfig, Location, Login, OciError, OciLayout, Registry, RegistryConfig,
    Source,
};

/// Opens the source of a location. A registry gets `registry`'s settings with the location's host;
/// where they name no login, those of `docker` are looked for.
pub async fn open(
    cx: &Cx,
    location: &Location,
    registry: RegistryConfig,
    docker: Option<&DockerConfig>,
) -> Result<Arc<dyn Source>, OciError> {
    match location {
        Location::OciLayout { dir, .. } => Ok(Arc::new(OciLayout::open(cx, dir).await?)),
        Location::DockerArchive { file, .. } => Ok(Arc::new(DockerArchive::open(cx, file).await?)),
        Location::Registry(reference) => {
            let host = reference.registry.clone();
            let login = match (registry.login, docker) {
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
    }
}
