//! `serve`: the control plane.

use std::{path::Path, time::Duration};

use anyhow::Context as _;
use bus::{Bus, PrivateServer};
use chassis::{
    Cx,
    http::{Server, Tls},
    telemetry::Telemetry,
};
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
    let (bus_config, _server) = broker(cx, config, dir).await?;
    let bus = Bus::connect(cx, &bus_config, "tidewaiter")
        .await
        .context("connecting to NATS")?;
    bus.provision()
        .await
        .context("setting up streams and buckets")?;
    let token = tokens::bootstrap(cx, &bus.store(), dir).await?;

    let roles = if args.roles.is_empty() {
        Role::ALL.to_vec()
    } else {
        args.roles.clone()
    };
    let router = roles::start(cx, &bus, config, &roles, telemetry).await?;
    let server = Server {
        tls: match config.http.tls.clone() {
            Some(files) => Some(Tls::open(cx, files).await.context("setting up TLS")?),
            None => None,
        },
        ..Server::default()
    };
    let scheme = if server.tls.is_some() {
        "https"
    } else {
        "http"
    };
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
        server.serve(&http, listener, router).await;
    });
    info!(
        "tidewaiter {} serves {scheme}://{address}; the admin token is in {}",
        env!("CARGO_PKG_VERSION"),
        token.display()
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

/// The broker to use: the one that is named, or a private one that dies with us.
async fn broker(
    cx: &Cx,
    config: &Config,
    dir: &Path,
) -> anyhow::Result<(bus::Config, Option<PrivateServer>)> {
    let bus_config = config.bus.clone();
    if bus_config.url.is_some() {
        return Ok((bus_config, None));
    }
    let server = PrivateServer::start(cx, dir)
        .await
        .context("starting a private nats-server")?;
    let bus_config = bus_config.for_private_server(server.url().to_owned());
    Ok((bus_config, Some(server)))
}
