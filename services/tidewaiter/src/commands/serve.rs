//! `serve`: the control plane.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use bus::{Bus, PrivateServer};
use chassis::{Cx, telemetry::Telemetry};
use tokio::net::TcpListener;
use tracing::{info, warn};

use crate::{
    cli::{Role, ServeArgs},
    config::Config,
    exit::Exit,
    roles, tokens,
};

/// How long a stopping process waits for work at hand. Kubernetes waits 30 s by default.
const DRAIN: Duration = Duration::from_secs(25);
/// How long the last telemetry may take to get out.
const FLUSH: Duration = Duration::from_secs(3);

pub(crate) async fn run(config: Config, args: ServeArgs) -> anyhow::Result<Exit> {
    let config = config.for_serve(&args);
    let telemetry =
        chassis::telemetry::init(&config.telemetry, "tidewaiter", env!("CARGO_PKG_VERSION"))
            .context("setting up telemetry")?;
    let cx = Cx::system();
    let served = serve(&cx, &config, &args, &telemetry).await;
    cx.stop();
    tokio::select! {
        ended = cx.finish(DRAIN) => if !ended {
            warn!("some work was still at hand after {} s; it will be done again", DRAIN.as_secs());
        },
        _ = chassis::shutdown_signal() => warn!("stopping at once; work at hand will be done again"),
    }
    telemetry.shutdown(FLUSH).await;
    served.map(|()| Exit::Ok)
}

async fn serve(
    cx: &Cx,
    config: &Config,
    args: &ServeArgs,
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    let dir = config.data_dir.path();
    std::fs::create_dir_all(dir)
        .with_context(|| format!("making the data directory `{}`", dir.display()))?;
    // Held to the end: the server goes when it is dropped.
    let (bus_config, server) = broker(cx, config, dir).await?;
    // Who has a server of its own, or runs everything, is its own provisioner.
    let is_whole = args.roles.is_empty() || server.is_some();
    let bus = if is_whole {
        whole(cx, &bus_config, dir).await?
    } else {
        match part(cx, &bus_config, &args.roles).await? {
            Some(bus) => bus,
            None => return Ok(()),
        }
    };
    let roles = if args.roles.is_empty() {
        Role::ALL.to_vec()
    } else {
        args.roles.clone()
    };
    let router = roles::start(cx, &bus, config, &roles, telemetry).await?;
    let listen = &config.http.listen;
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("listening on `{listen}`"))?;
    let address = listener
        .local_addr()
        .context("asking for the listener's address")?;
    let address_file = dir.join("http.addr");
    std::fs::write(&address_file, address.to_string())
        .with_context(|| format!("writing `{}`", address_file.display()))?;
    let http = cx.clone();
    cx.spawn("http", async move {
        chassis::http::serve(&http, listener, router).await;
    });
    info!(
        "tidewaiter {} serves http://{address}",
        env!("CARGO_PKG_VERSION")
    );
    tokio::select! {
        signal = chassis::shutdown_signal() => {
            let name = signal.context("waiting for signals")?;
            info!("{name}: finishing what is at hand; a second signal stops at once");
        }
        () = cx.stopped() => anyhow::bail!("a part of this process broke; the log says which"),
    }
    Ok(())
}

/// The bus of a process that runs everything: it makes what is missing, and the first token.
async fn whole(cx: &Cx, config: &bus::Config, dir: &Path) -> anyhow::Result<Bus> {
    let bus = Bus::connect(cx, config, "tidewaiter")
        .await
        .context("connecting to NATS")?;
    bus.provision()
        .await
        .context("setting up streams and buckets")?;
    let token = dir.join("admin.token");
    tokens::bootstrap(cx, &bus.store(), &token).await?;
    info!("the admin token is in {}", token.display());
    Ok(bus)
}

/// The bus of a part of a fleet, with the rights of its roles; everything that they use is there.
/// `None`: it was stopped while it waited.
async fn part(cx: &Cx, config: &bus::Config, roles: &[Role]) -> anyhow::Result<Option<Bus>> {
    let roles = roles.iter().copied().map(Into::into);
    let bus = Bus::connect_as(cx, config, roles)
        .await
        .context("connecting to NATS")?;
    let provisioned = bus.provisioned(cx).await;
    let provisioned = provisioned.context("comparing streams and buckets with what is needed")?;
    Ok(provisioned.then_some(bus))
}

/// The broker to use: the one that is named, or a private one that dies with us.
async fn broker(
    cx: &Cx,
    config: &Config,
    dir: &Path,
) -> anyhow::Result<(bus::Config, Option<PrivateServer>)> {
    let mut bus_config = config.bus.clone();
    if bus_config.url.is_some() {
        return Ok((bus_config, None));
    }
    let server = PrivateServer::start(cx, dir)
        .await
        .context("starting a private nats-server")?;
    bus_config.url = Some(server.url().to_owned());
    Ok((bus_config, Some(server)))
}
