//! The NATS server that a command talks to.

use anyhow::{Context as _, bail};
use bus::{Bus, PrivateServer, permissions::Role};
use chassis::Cx;

use crate::{cli::Broker, config::Config};

/// Connects to the server that flags or configuration name, else to the private one of this host,
/// with the rights of a role.
pub(crate) async fn connect(
    cx: &Cx,
    config: &Config,
    broker: &Broker,
    role: Role,
) -> anyhow::Result<Bus> {
    let mut bus = config.bus.clone();
    if let Some(file) = &broker.nats_credentials {
        bus.credentials_file = Some(file.clone());
    }
    let dir = broker.data_dir.as_deref();
    if let Some(url) = &broker.nats_url {
        bus.url = Some(url.clone());
    } else if dir.is_some() || bus.url.is_none() {
        let dir = dir.unwrap_or(config.data_dir.path());
        let Some(url) = PrivateServer::find(dir) else {
            bail!(
                "no NATS server to ask: `{}` holds no private one that this user may read; name \
                 one with `--nats-url`, `--data-dir` or `bus.url`",
                dir.display()
            );
        };
        bus.url = Some(url);
    }
    bus.connect_timeout_s = bus.connect_timeout_s.clamp(1, 10);
    Bus::connect_as(cx, &bus, [role])
        .await
        .context("connecting to NATS")
}
