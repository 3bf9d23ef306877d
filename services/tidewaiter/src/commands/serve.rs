//! `serve`: the control plane.

use std::{net::SocketAddr, path::Path, time::Duration};

use analyzers::FingerprintKey;
use anyhow::Context as _;
use axum::Router;
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
    roles::Starting,
    secrets, tokens,
};

/// How long a stopping process waits for work at hand. Kubernetes waits 30 s by default.
const DRAIN: Duration = Duration::from_secs(25);
/// How long the last telemetry may take to get out.
const FLUSH: Duration = Duration::from_secs(3);
/// How long the first connection to NATS may take before what works without it is served.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// How often it is said that NATS is not there.
const WAITING: Duration = Duration::from_secs(30);

pub(crate) async fn run(config: Config, args: ServeArgs) -> anyhow::Result<Exit> {
    let mut config = config.for_serve(&args);
    let telemetry =
        chassis::telemetry::init(&config.telemetry, "tidewaiter", env!("CARGO_PKG_VERSION"))
            .context("setting up telemetry")?;
    let cx = Cx::system();
    config.scanner.analyzers.secrets.key = secret_key(&config, &args)?;
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

/// The key under which secrets get their fingerprints. Who runs everything makes one of his own; roles
/// of a fleet have to be given theirs, for all must have the same.
fn secret_key(config: &Config, args: &ServeArgs) -> anyhow::Result<FingerprintKey> {
    let dir = config.data_dir.path();
    match &config.scanner.secret_key_file {
        Some(file) => secrets::read_key(file),
        None if args.roles.is_empty() => secrets::own_key(dir),
        None => {
            let known = secrets::key_of(dir)?;
            if known.is_none() && args.roles.contains(&Role::Scanner) {
                warn!(
                    "secrets are named by fingerprints under a key that everybody knows: make one with \
                     `tidewaiter secrets key FILE` and name it as `scanner.secret_key_file`, the same for all scanners"
                );
            }
            Ok(known.unwrap_or_default())
        }
    }
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
        Bus::connect_later(cx, &bus_config, "tidewaiter").await
    } else {
        let roles = args.roles.iter().copied().map(Into::into);
        Bus::connect_later_as(cx, &bus_config, roles).await
    };
    let bus = bus.context("connecting to NATS")?;
    let roles = if args.roles.is_empty() {
        Role::ALL.to_vec()
    } else {
        args.roles.clone()
    };
    let mut signal = std::pin::pin!(chassis::shutdown_signal());
    tokio::select! {
        started = start(cx, &bus, config, &roles, telemetry) => started?,
        signal = &mut signal => return stop(signal),
    }
    tokio::select! {
        signal = signal => stop(signal),
        () = cx.stopped() => anyhow::bail!("a part of this process broke; the log says which"),
    }
}

fn stop(signal: std::io::Result<&str>) -> anyhow::Result<()> {
    let name = signal.context("waiting for signals")?;
    info!("{name}: finishing what is at hand; a second signal stops at once");
    Ok(())
}

/// Starts the roles and listens. Where NATS is not there yet, what works without it is served while
/// the others wait.
async fn start(
    cx: &Cx,
    bus: &Bus,
    config: &Config,
    roles: &[Role],
    telemetry: &Telemetry,
) -> anyhow::Result<()> {
    let dir = config.data_dir.path();
    let listener = Listener::bind(cx, config).await?;
    let starting = Starting::begin(cx, bus, config, roles, telemetry).await?;
    let (early, mut is_served) = (cx.child(), false);
    let found = bus.connected(FIRST_LOOK).await;
    let mut away = found.err().map(anyhow::Error::from);
    loop {
        if let Some(why) = away.take() {
            if !is_served {
                listener.serve(&early, dir, starting.routes())?;
                is_served = true;
            }
            wait_for(cx, bus, &starting, why).await;
        }
        match prepare(cx, bus, dir).await {
            Ok(()) => break,
            // It went away again.
            Err(error) if !bus.is_connected() => away = Some(error),
            Err(error) => return Err(error),
        }
    }
    let router = starting.finish().await?;
    listener.serve(cx, dir, router)?;
    early.stop();
    info!(
        "tidewaiter {} serves {}://{}",
        env!("CARGO_PKG_VERSION"),
        listener.scheme(),
        listener.address,
    );
    Ok(())
}

/// Sees to it that what roles use is there: who runs everything makes it, and the first token; a
/// part of a fleet waits for it.
async fn prepare(cx: &Cx, bus: &Bus, dir: &Path) -> anyhow::Result<()> {
    if bus.is_part() {
        let provisioned = bus.provisioned(cx).await;
        provisioned.context("comparing streams and buckets with what is needed")?;
        return Ok(());
    }
    bus.provision()
        .await
        .context("setting up streams and buckets")?;
    let token = dir.join("admin.token");
    tokens::bootstrap(cx, bus, &token).await?;
    info!("the admin token is in {}", token.display());
    Ok(())
}

/// Waits until NATS is there, and says so until then.
async fn wait_for(cx: &Cx, bus: &Bus, starting: &Starting<'_>, mut why: anyhow::Error) {
    let roles = starting.waiting().join(", ");
    loop {
        if roles.is_empty() {
            warn!("NATS is away, events are accepted and wait in the spool: {why:#}");
        } else {
            let text = format!("these roles wait for NATS before they start: {roles}; {why:#}");
            warn!("{text}");
            cx.notes().set("roles", Some(text));
        }
        match bus.connected(WAITING).await {
            Ok(()) => break,
            Err(error) => why = error.into(),
        }
    }
    cx.notes().set("roles", None);
}

/// The socket, for one server after another.
struct Listener {
    socket: std::net::TcpListener,
    address: SocketAddr,
    server: Server,
}

// === impl Listener ===

impl Listener {
    async fn bind(cx: &Cx, config: &Config) -> anyhow::Result<Self> {
        let tls = match config.http.tls.clone() {
            Some(files) => Some(Tls::open(cx, files).await.context("setting up TLS")?),
            None => None,
        };
        let server = Server {
            tls,
            ..Server::default()
        };
        let address = &config.http.listen;
        let bound = TcpListener::bind(address).await;
        let bound = bound.with_context(|| format!("listening on `{address}`"))?;
        let socket = bound.into_std().context("setting up the listener")?;
        let address = socket
            .local_addr()
            .context("asking for the listener's address")?;
        Ok(Self {
            socket,
            address,
            server,
        })
    }

    const fn scheme(&self) -> &'static str {
        if self.server.tls.is_some() {
            "https"
        } else {
            "http"
        }
    }

    /// Serves until `cx` stops, and writes down where.
    fn serve(&self, cx: &Cx, dir: &Path, router: Router) -> anyhow::Result<()> {
        let listener = self.socket.try_clone().and_then(TcpListener::from_std);
        let listener = listener.context("setting up the listener")?;
        let address_file = dir.join("http.addr");
        std::fs::write(&address_file, self.address.to_string())
            .with_context(|| format!("writing `{}`", address_file.display()))?;
        let (http, server) = (cx.clone(), self.server.clone());
        cx.spawn("http", async move {
            server.serve(&http, listener, router).await;
        });
        Ok(())
    }
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
