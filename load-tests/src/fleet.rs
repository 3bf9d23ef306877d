//! An installation to measure: a broker, and each role in processes of its own, on free loopback
//! ports and in a directory that is gone afterwards.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Args;
use futures::future::try_join_all;
use reqwest::{Client, StatusCode};
use serde_json::{Value, json};
use testkit::{NatsServer, TempDir};

use crate::{server::Server, usage::Watched};

/// How long a process may take until it is ready.
const READY: Duration = Duration::from_mins(1);
const POLL: Duration = Duration::from_millis(20);
/// The token of webhooks.
const HOOK_TOKEN: &str = "load-test-hook-token";
/// The name of the one source.
const SOURCE: &str = "main";

/// Flags of every measurement that starts an installation.
#[derive(Clone, Debug, Args)]
pub(crate) struct Installation {
    /// The program; otherwise the one beside this one
    #[arg(long, value_name = "FILE")]
    tidewaiter: Option<PathBuf>,
    /// Keep logs and data, and say where they are
    #[arg(long)]
    keep: bool,
}

/// What to start.
pub(crate) struct Setup {
    /// Host and port of the registry.
    pub(crate) registry: String,
    /// More configuration, appended to the file.
    pub(crate) config: String,
    /// The roles of each process.
    pub(crate) processes: Vec<Vec<&'static str>>,
}

/// The running installation; it is killed when it is dropped.
pub(crate) struct Fleet {
    nats: NatsServer,
    nodes: Vec<Node>,
    binary: PathBuf,
    registry: String,
    http: Client,
    admin_token: PathBuf,
    dir: Option<TempDir>,
}

struct Node {
    label: String,
    roles: Vec<&'static str>,
    child: Child,
    data_dir: PathBuf,
    log: PathBuf,
    address: String,
}

/// What became of a request that was sent.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Answered {
    /// When it was sent.
    pub(crate) at: Instant,
    /// How long the answer took.
    pub(crate) took: Duration,
    /// Its status; `None` where none came.
    pub(crate) status: Option<StatusCode>,
}

// === impl Setup ===

impl Setup {
    /// Each role in a process of its own, as in a fleet.
    pub(crate) fn roles(registry: String) -> Self {
        let roles = [
            "gateway",
            "router",
            "scanner",
            "matcher",
            "policy",
            "behavior",
            "alerting",
            "inventory",
        ];
        Self {
            registry,
            config: String::new(),
            processes: roles.map(|role| vec![role]).to_vec(),
        }
    }
}

// === impl Fleet ===

impl Fleet {
    /// Starts everything and waits until it is ready.
    pub(crate) async fn start(installation: &Installation, setup: Setup) -> anyhow::Result<Self> {
        let binary = match &installation.tidewaiter {
            Some(binary) => binary.clone(),
            None => beside()?,
        };
        anyhow::ensure!(
            binary.exists(),
            "`{}` is missing: cargo build --release -p tidewaiter",
            binary.display()
        );
        let nats = NatsServer::start().context("nats-server is not installed")?;
        let dir = testkit::temp_dir();
        let mut fleet = Self {
            nats,
            nodes: Vec::new(),
            binary,
            registry: setup.registry.clone(),
            http: Client::builder().timeout(Duration::from_secs(30)).build()?,
            admin_token: dir.path().join("admin.token"),
            dir: Some(dir),
        };
        fleet.configure(&setup)?;
        fleet.provision()?;
        for roles in setup.processes {
            fleet.spawn(roles)?;
        }
        fleet.ready().await?;
        if installation.keep
            && let Some(dir) = fleet.dir.take()
        {
            crate::say(&format!("logs and data stay in {}", dir.keep().display()));
        }
        Ok(fleet)
    }

    /// A client of the process that answers questions.
    pub(crate) fn server(&self) -> anyhow::Result<Server> {
        Server::new(&self.url("inventory")?, &self.admin_token)
    }

    /// A client of the process with another role.
    pub(crate) fn server_of(&self, role: &str) -> anyhow::Result<Server> {
        Server::new(&self.url(role)?, &self.admin_token)
    }

    /// Sends one webhook that tells of a push.
    pub(crate) async fn hook(
        &self,
        repository: &str,
        tag: &str,
        digest: &str,
        id: &str,
    ) -> Answered {
        let body = json!({"events": [{
            "id": id,
            "action": "push",
            "target": {
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest,
                "repository": repository,
                "tag": tag,
            },
        }]});
        let at = Instant::now();
        let url = self.url("gateway").unwrap_or_default();
        let request = self
            .http
            .post(format!("{url}/hooks/{SOURCE}"))
            .bearer_auth(HOOK_TOKEN)
            .json(&body);
        let status = request.send().await.ok().map(|answer| answer.status());
        Answered {
            at,
            took: at.elapsed(),
            status,
        }
    }

    /// Hands a directory of OSV records in, and waits until every partition is matched with them;
    /// gives the revision.
    pub(crate) async fn import(&self, records: &Path) -> anyhow::Result<u64> {
        self.hand_in(records, "load", true)?;
        self.swept(1).await
    }

    /// Hands records in as a feed, whole or as an addition to it.
    pub(crate) fn hand_in(&self, records: &Path, feed: &str, whole: bool) -> anyhow::Result<()> {
        let output = Command::new(&self.binary)
            .args(["db", "import", "--feed", feed])
            .args(whole.then_some("--replace"))
            .arg(records)
            .env("TIDEWAITER_SERVER", self.url("inventory")?)
            .arg("--token-file")
            .arg(&self.admin_token)
            .output()
            .context("starting `tidewaiter db import`")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "`tidewaiter db import`: {errors}");
        Ok(())
    }

    /// Waits until the advisories are at some revision, and every partition is matched with it; gives
    /// the revision.
    pub(crate) async fn swept(&self, least: u64) -> anyhow::Result<u64> {
        let (server, deadline) = (self.server()?, Instant::now() + READY);
        loop {
            let health = server.get("/v1/health").await?;
            let revision = |name: &str| health["advisories"][name].as_u64().unwrap_or_default();
            let swept = revision("swept");
            if swept >= least && swept == revision("revision") {
                return Ok(swept);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "advisories do not come into force"
            );
            tokio::time::sleep(POLL).await;
        }
    }

    /// The processes to watch: those of ours, and the broker.
    pub(crate) fn watched(&self) -> Vec<Watched> {
        let ours = self.nodes.iter().map(|node| Watched {
            label: node.label.clone(),
            id: node.child.id(),
        });
        let broker = self.nats.id().map(|id| Watched {
            label: "nats-server".to_owned(),
            id,
        });
        ours.chain(broker).collect()
    }

    /// The address of the broker.
    pub(crate) fn nats_url(&self) -> String {
        self.nats.url()
    }

    /// The first process with a role.
    pub(crate) fn process(&self, role: &str) -> anyhow::Result<u32> {
        Ok(self.node(role)?.child.id())
    }

    /// Where it keeps its data.
    pub(crate) fn data_dir(&self, role: &str) -> anyhow::Result<PathBuf> {
        Ok(self.node(role)?.data_dir.clone())
    }

    /// Takes the broker out, to kill it and start it again; the fleet is of no use without it, once
    /// it is dropped.
    pub(crate) fn take_broker(&mut self) -> anyhow::Result<NatsServer> {
        let other = NatsServer::start().context("nats-server is not installed")?;
        Ok(std::mem::replace(&mut self.nats, other))
    }

    /// How many messages a consumer has still to hand out or to see acknowledged.
    pub(crate) async fn waiting(&self, stream: &str, consumer: &str) -> anyhow::Result<u64> {
        let url = format!(
            "{}/jsz?accounts=true&streams=true&consumers=true",
            self.nats.monitor_url()
        );
        let answer: Value = self.http.get(url).send().await?.json().await?;
        let named = |list: &Value, name: &str| -> Option<Value> {
            let list = list.as_array()?;
            list.iter().find(|one| one["name"] == name).cloned()
        };
        let streams = &answer["account_details"][0]["stream_detail"];
        let found = named(streams, stream)
            .and_then(|stream| named(&stream["consumer_detail"], consumer))
            .with_context(|| format!("the broker knows no `{stream}/{consumer}`"))?;
        let number = |field: &str| found[field].as_u64().unwrap_or_default();
        Ok(number("num_pending") + number("num_ack_pending"))
    }

    /// How many messages the broker has taken in so far, requests of its API among them.
    pub(crate) async fn messages(&self) -> anyhow::Result<u64> {
        let url = format!("{}/varz", self.nats.monitor_url());
        let answer: Value = self.http.get(url).send().await?.json().await?;
        answer["in_msgs"]
            .as_u64()
            .context("the broker does not count")
    }

    /// The address of the first process with a role.
    fn url(&self, role: &str) -> anyhow::Result<String> {
        Ok(format!("http://{}", self.node(role)?.address))
    }

    fn node(&self, role: &str) -> anyhow::Result<&Node> {
        let node = self.nodes.iter().find(|node| node.roles.contains(&role));
        node.with_context(|| format!("no process has the role `{role}`"))
    }

    fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let dir = self.dir.as_ref().context("the directory is kept")?;
        Ok(dir.path().join(name))
    }

    fn configure(&self, setup: &Setup) -> anyhow::Result<()> {
        let text = format!(
            "gateway:
  hooks_per_second_max: 1000000
  scans_per_second_max: 1000000
  sources:
    - name: {SOURCE}
      kind: distribution
      registry: {}
      plain_http: true
      allow_private: true
      hook_token_sha256: {}
{}",
            self.registry,
            model::Digest::of(HOOK_TOKEN.as_bytes()).hex(),
            setup.config
        );
        std::fs::write(self.path("tidewaiter.yaml")?, text).context("writing the configuration")
    }

    /// Makes streams, buckets and consumers, and the first admin token.
    fn provision(&self) -> anyhow::Result<()> {
        let output = Command::new(&self.binary)
            .args(["nats", "provision", "--nats-url", &self.nats.url()])
            .arg("--config")
            .arg(self.path("tidewaiter.yaml")?)
            .arg("--admin-token")
            .arg(&self.admin_token)
            .output()
            .context("starting `tidewaiter nats provision`")?;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        anyhow::ensure!(output.status.success(), "`nats provision`: {errors}");
        Ok(())
    }

    fn spawn(&mut self, roles: Vec<&'static str>) -> anyhow::Result<()> {
        let same = self.nodes.iter().filter(|node| node.roles == roles).count();
        let mut label = roles.join("+");
        if same > 0 {
            label = format!("{label}-{}", same + 1);
        }
        let (data_dir, log) = (self.path(&label)?, self.path(&format!("{label}.log"))?);
        let mut command = Command::new(&self.binary);
        command
            .arg("serve")
            .arg("--config")
            .arg(self.path("tidewaiter.yaml")?)
            .arg("--data-dir")
            .arg(&data_dir)
            .args(["--listen", "127.0.0.1:0", "--nats-url", &self.nats.url()])
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?);
        for role in &roles {
            command.args(["--role", role]);
        }
        let child = command.spawn().context("starting `tidewaiter serve`")?;
        self.nodes.push(Node {
            label,
            roles,
            child,
            data_dir,
            log,
            address: String::new(),
        });
        Ok(())
    }

    async fn ready(&mut self) -> anyhow::Result<()> {
        let http = &self.http;
        try_join_all(self.nodes.iter_mut().map(|node| node.ready(http))).await?;
        Ok(())
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            // It may have ended by itself.
            drop(node.child.kill());
            drop(node.child.wait());
        }
    }
}

// === impl Node ===

impl Node {
    async fn ready(&mut self, http: &Client) -> anyhow::Result<()> {
        let deadline = Instant::now() + READY;
        while Instant::now() < deadline {
            if let Some(status) = self.child.try_wait()? {
                bail!(
                    "`{}` ended with {status}: {}",
                    self.label,
                    self.last_words()
                );
            }
            let file = self.data_dir.join("http.addr");
            if let Ok(address) = chassis::files::read_text_bounded(&file, 1 << 10) {
                let asked = http.get(format!("http://{address}/readyz")).send().await;
                if asked.is_ok_and(|answer| answer.status().is_success()) {
                    self.address = address;
                    return Ok(());
                }
            }
            tokio::time::sleep(POLL).await;
        }
        bail!("`{}` is not ready: {}", self.label, self.last_words())
    }

    fn last_words(&self) -> String {
        let log = chassis::files::read_text_bounded(&self.log, 64 << 20).unwrap_or_default();
        let lines: Vec<&str> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

// === impl Answered ===

impl Answered {
    /// Whether it was accepted.
    pub(crate) fn is_accepted(&self) -> bool {
        self.status == Some(StatusCode::ACCEPTED)
    }
}

fn beside() -> anyhow::Result<PathBuf> {
    let this = std::env::current_exe().context("finding this program")?;
    Ok(this.with_file_name("tidewaiter"))
}
