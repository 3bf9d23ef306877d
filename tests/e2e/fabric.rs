//! A running installation: registry, `tidewaiter serve`, and what a test asks them.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{Artifact, NatsServer, Notifications, RegistryOptions, RegistryServer, TempDir};

use crate::fleet::Broker;

/// How long anything may take before a test gives up: these machines are shared.
pub(crate) const PATIENCE: Duration = Duration::from_secs(90);

/// The bearer token that the registry sends with its notifications.
pub(crate) const HOOK_TOKEN: &str = "registry-hook-token-for-tests";

/// The key under which scanners of a fleet name secrets.
const SECRETS_KEY: &str = "6b6579206f66207468652074657374732c206f6620333220627974657320616c6c";

/// A registry, and one or more `tidewaiter serve` processes.
pub(crate) struct Fabric {
    pub(crate) registry: RegistryServer,
    nodes: Vec<Node>,
    http: reqwest::Client,
    /// Lines of the log with these words are expected.
    expected: Vec<&'static str>,
    /// Which process answers questions.
    api: usize,
    broker: Option<Broker>,
    dir: TempDir,
}

/// What differs between tests.
#[derive(Default)]
pub(crate) struct Options {
    /// More configuration, appended to the file.
    pub(crate) config: String,
    /// Roles per process, each with a key of its own on a server with permissions; empty: one
    /// process with all of them and a private nats-server.
    pub(crate) processes: Vec<Vec<&'static str>>,
    /// The process that runs the role `inventory`, where that is not the first.
    pub(crate) api: usize,
    /// Nodes whose agents have keys on the fabric's own broker.
    pub(crate) agents: Vec<&'static str>,
}

/// One `tidewaiter serve` process.
struct Node {
    child: Child,
    log: PathBuf,
    address: String,
    arguments: Vec<String>,
    data_dir: PathBuf,
}

// === impl Fabric ===

impl Fabric {
    /// Starts everything; `None`, with a reason printed, where a program is missing.
    pub(crate) async fn start(options: Options) -> Option<Self> {
        let dir = testkit::temp_dir();
        let port = testkit::free_port();
        let notifications = Notifications {
            url: format!("http://127.0.0.1:{port}/hooks/main"),
            authorization: Some(format!("Bearer {HOOK_TOKEN}")),
        };
        let registry = RegistryServer::start(RegistryOptions {
            notifications: Some(notifications),
            ..RegistryOptions::default()
        })?;
        let broker = if options.processes.is_empty() {
            // A private one needs the same program.
            NatsServer::start().map(|_| None)?
        } else {
            Some(Broker::start(
                dir.path(),
                &options.processes,
                &options.agents,
            )?)
        };
        let mut fabric = Self {
            registry,
            nodes: Vec::new(),
            http: reqwest::Client::builder()
                .timeout(PATIENCE)
                .build()
                .expect("a client"),
            expected: Vec::new(),
            api: options.api,
            broker,
            dir,
        };
        fabric.write_config(&options.config);
        if let Some(broker) = &fabric.broker {
            broker.provision(&fabric.config_file());
        }
        let processes = if options.processes.is_empty() {
            vec![Vec::new()]
        } else {
            options.processes
        };
        for (index, roles) in processes.iter().enumerate() {
            let listen = if index == 0 { port } else { 0 };
            fabric.spawn(index, roles, listen).await;
        }
        Some(fabric)
    }

    /// Pushes an image or index and returns its reference by tag.
    pub(crate) fn push(
        &self,
        artifact: impl Into<Artifact>,
        repository: &str,
        tag: &str,
    ) -> String {
        self.registry.push(artifact, repository, tag);
        format!("{}/{repository}:{tag}", self.registry.host())
    }

    /// Waits for the verdict on a reference.
    pub(crate) async fn verdict(&self, reference: &str) -> Value {
        self.until(&format!("a verdict on {reference}"), async || {
            let answer = self.get(&format!("/v1/verdicts?image={reference}")).await?;
            answer["decision"].is_string().then_some(answer)
        })
        .await
    }

    /// Waits until the decision on a reference is this one.
    pub(crate) async fn decision(&self, reference: &str, decision: &str) -> Value {
        self.until(&format!("decision {decision} on {reference}"), async || {
            let answer = self.get(&format!("/v1/verdicts?image={reference}")).await?;
            (answer.get("decision")?.as_str()? == decision).then_some(answer)
        })
        .await
    }

    /// The report of an image.
    pub(crate) async fn report(&self, digest: &str) -> Value {
        self.until(&format!("the report of {digest}"), async || {
            self.get(&format!("/v1/images/{digest}/report")).await
        })
        .await
    }

    /// Hands an advisory in, with those before it as one whole feed, and waits until every partition
    /// is matched with it.
    pub(crate) async fn import(&self, advisory: &Advisory) {
        let before = self.revision().await;
        let dir = self.dir.path().join("advisories");
        advisory.write(&dir);
        let dir = dir.display().to_string();
        let imported = self.tidewaiter(&["db", "import", &dir, "--feed", "test", "--replace"]);
        assert!(
            imported.status.success(),
            "{}",
            String::from_utf8_lossy(&imported.stderr)
        );
        self.until("the advisory in force", async || {
            (self.revision().await > before).then_some(())
        })
        .await;
    }

    /// The advisory revision that every partition is matched with.
    pub(crate) async fn revision(&self) -> u64 {
        let Some(health) = self.get("/v1/health").await else {
            return 0;
        };
        let advisories = &health["advisories"];
        advisories["swept"].as_u64().unwrap_or_default()
    }

    /// Waits until the view has taken in everything that was written.
    pub(crate) async fn idle(&self) {
        self.until("an inventory without lag", async || {
            let health = self.get("/v1/health").await?;
            (health["status"] != "catching_up").then_some(())
        })
        .await;
    }

    /// When an image was assessed last.
    pub(crate) async fn assessed_at(&self, digest: &str) -> Value {
        let image = self
            .get(&format!("/v1/images/{digest}"))
            .await
            .expect("the image is known");
        let at = image["images"][0]["assessed_at"].clone();
        assert!(at.is_string(), "{image:#}");
        at
    }

    /// The most memory that one process ever had, bytes.
    #[expect(clippy::disallowed_methods, reason = "a file of the kernel")]
    pub(crate) fn peak_memory(&self, index: usize) -> u64 {
        let status = format!("/proc/{}/status", self.nodes[index].child.id());
        let status = std::fs::read_to_string(status).expect("the process runs");
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .expect("VmHWM");
        let kib: u64 = line
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        kib << 10
    }

    /// `GET path`; `None` unless it succeeds.
    pub(crate) async fn get(&self, path: &str) -> Option<Value> {
        let answer = self
            .http
            .get(format!("http://{}{path}", self.address()))
            .bearer_auth(self.token())
            .send()
            .await
            .ok()?;
        if !answer.status().is_success() {
            return None;
        }
        answer.json().await.ok()
    }

    /// Asks one process as somebody, or as nobody: status, type and body of the answer.
    pub(crate) async fn ask(
        &self,
        index: usize,
        (method, path): (&str, &str),
        token: &str,
        body: Option<&Value>,
    ) -> (u16, Option<String>, Vec<u8>) {
        let method = method.parse().expect("a method");
        let url = format!("http://{}{path}", self.nodes[index].address);
        let mut request = self.http.request(method, url);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await.expect("an answer");
        let media = answer.headers().get("content-type");
        let media = media.map(|media| media.to_str().expect("text").to_owned());
        let status = answer.status().as_u16();
        let body = answer.bytes().await.expect("a whole answer");
        (status, media, body.to_vec())
    }

    /// What a process shows to whoever collects metrics.
    pub(crate) async fn metrics(&self) -> Option<String> {
        let url = format!("http://{}/metrics", self.address());
        self.http.get(url).send().await.ok()?.text().await.ok()
    }

    /// Asks again until there is an answer.
    pub(crate) async fn until<T>(&self, what: &str, ask: impl AsyncFn() -> Option<T>) -> T {
        let started = Instant::now();
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "no {what} within {PATIENCE:?}\n{}",
                self.logs()
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// Runs a `tidewaiter` command against the server and returns its output.
    pub(crate) fn tidewaiter(&self, arguments: &[&str]) -> std::process::Output {
        self.command(&tidewaiter_binary())
            .args(arguments)
            .output()
            .expect("tidewaiter runs")
    }

    /// Runs the program against one process, for what its roles alone answer.
    pub(crate) fn tidewaiter_at(&self, index: usize, arguments: &[&str]) -> std::process::Output {
        let address = format!("http://{}", self.nodes[index].address);
        let mut command = self.command(&tidewaiter_binary());
        command.env("TIDEWAITER_SERVER", address).args(arguments);
        command.output().expect("tidewaiter runs")
    }

    /// A program with what it needs to ask the server.
    pub(crate) fn command(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .env("TIDEWAITER_SERVER", format!("http://{}", self.address()))
            .env("TIDEWAITER_TOKEN", self.token())
            .env("XDG_CACHE_HOME", self.dir.path());
        command
    }

    /// `GET path` whose answer goes on, perhaps behind an event.
    pub(crate) async fn open(&self, path: &str, last_event_id: Option<&str>) -> reqwest::Response {
        let url = format!("http://{}{path}", self.address());
        let request = self.http.get(url).bearer_auth(self.token());
        // It goes on for as long as the test does.
        let mut request = request.timeout(PATIENCE * 4);
        if let Some(id) = last_event_id {
            request = request.header("Last-Event-ID", id);
        }
        request.send().await.expect("the server answers")
    }

    /// A warning or error with these words is part of the test.
    pub(crate) fn expect_log(&mut self, words: &'static str) {
        self.expected.push(words);
    }

    /// `kill -9` of one process.
    pub(crate) fn kill(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.child.kill().expect("the process can be killed");
        node.child.wait().expect("the process can be reaped");
    }

    /// Starts a killed process again, with the same arguments and data.
    pub(crate) async fn restart(&mut self, index: usize) {
        self.launch(index);
        self.ready(index).await;
    }

    /// The same without waiting until it is ready.
    pub(crate) fn launch(&mut self, index: usize) {
        let node = &mut self.nodes[index];
        node.child = launch(&node.arguments, &node.log);
    }

    /// What a process says of itself.
    pub(crate) async fn readyz(&self, index: usize) -> Option<(u16, Value)> {
        let address = read(&self.nodes[index].data_dir.join("http.addr"))?;
        let url = format!("http://{address}/readyz");
        let answer = self.http.get(url).send().await.ok()?;
        let status = answer.status().as_u16();
        Some((status, answer.json().await.ok()?))
    }

    /// The data directory of one process.
    pub(crate) fn data_dir(&self, index: usize) -> &Path {
        &self.nodes[index].data_dir
    }

    /// The NATS server's address with all rights, where the fabric has one of its own.
    pub(crate) fn nats_url(&self) -> Option<String> {
        self.broker.as_ref().map(Broker::url)
    }

    /// What the agent of a node needs to reach the broker: its address, and the file of its key.
    pub(crate) fn agent_access(&self, node: &str) -> (String, PathBuf) {
        let broker = self.broker.as_ref().expect("processes of their own");
        (broker.server.url(), broker.agent_key(node))
    }

    /// A directory for the test's own files.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Sends a webhook as the registry would, again and again until it is accepted: the gateway may
    /// be dead just now.
    pub(crate) async fn hook(&self, source: &str, body: &Value) {
        let url = format!("http://{}/hooks/{source}", self.nodes[0].address);
        self.until("an accepted webhook", async || {
            let request = self.http.post(&url).bearer_auth(HOOK_TOKEN).json(body);
            let answer = request.timeout(Duration::from_secs(5)).send().await.ok()?;
            (answer.status() == 202).then_some(())
        })
        .await;
    }

    /// The broker, where the fabric has one of its own.
    pub(crate) fn nats(&mut self) -> &mut NatsServer {
        let broker = self.broker.as_mut().expect("processes of their own");
        &mut broker.server
    }

    /// Makes streams, buckets, consumers and the admin token, where the fabric has a broker of its
    /// own that lost them.
    pub(crate) fn provision(&self) {
        if let Some(broker) = &self.broker {
            broker.provision(&self.config_file());
        }
    }

    /// What the broker holds: each stream and its consumers.
    pub(crate) async fn broker(&self) -> Option<Vec<Value>> {
        let url = self.broker.as_ref()?.server.monitor_url();
        let url = format!("{url}/jsz?accounts=true&streams=true&consumers=true");
        let answer: Value = self.http.get(url).send().await.ok()?.json().await.ok()?;
        answer["account_details"][0]["stream_detail"]
            .as_array()
            .cloned()
    }

    /// What a process has logged.
    pub(crate) fn log(&self, index: usize) -> String {
        read(&self.nodes[index].log).unwrap_or_default()
    }

    /// Host and port of the process that answers questions.
    pub(crate) fn address(&self) -> &str {
        &self.nodes[self.api].address
    }

    pub(crate) fn token(&self) -> String {
        if let Some(broker) = &self.broker {
            let token = read(broker.admin_token()).expect("the provisioner wrote the admin token");
            return token.trim().to_owned();
        }
        // The first process that came up made it.
        let mut files = self
            .nodes
            .iter()
            .map(|node| node.data_dir.join("admin.token"));
        let token = files.find_map(|file| read(&file));
        token
            .expect("some process wrote the admin token")
            .trim()
            .to_owned()
    }

    fn write_config(&self, more: &str) {
        let token_file = self.dir.path().join("hook.token");
        let text = format!(
            "gateway:
  sources:
    - name: main
      kind: distribution
      registry: {}
      plain_http: true
      allow_private: true
      hook_token: file:{}
{more}",
            self.registry.host(),
            token_file.display()
        );
        std::fs::write(token_file, HOOK_TOKEN).expect("a token file");
        std::fs::write(self.config_file(), text).expect("a configuration file");
    }

    fn config_file(&self) -> PathBuf {
        self.dir.path().join("tidewaiter.yaml")
    }

    async fn spawn(&mut self, index: usize, roles: &[&str], port: u16) {
        let data_dir = self.dir.path().join(format!("data-{index}"));
        std::fs::create_dir_all(&data_dir).expect("a directory");
        // Roles of a fleet are given their key; who runs everything makes one.
        if !roles.is_empty() {
            std::fs::write(data_dir.join("secrets.key"), SECRETS_KEY).expect("a key file");
        }
        let mut arguments = vec![
            "serve".to_owned(),
            "--config".to_owned(),
            self.config_file().display().to_string(),
            "--data-dir".to_owned(),
            data_dir.display().to_string(),
            "--listen".to_owned(),
            format!("127.0.0.1:{port}"),
        ];
        if let Some(broker) = &self.broker {
            arguments.extend(broker.flags(roles));
        }
        for role in roles {
            arguments.extend(["--role".to_owned(), (*role).to_owned()]);
        }
        let log = self.dir.path().join(format!("tidewaiter-{index}.log"));
        let child = launch(&arguments, &log);
        self.nodes.push(Node {
            child,
            log,
            address: String::new(),
            arguments,
            data_dir,
        });
        self.ready(index).await;
    }

    /// Waits until a process is ready.
    pub(crate) async fn ready(&mut self, index: usize) {
        let started = Instant::now();
        loop {
            let node = &mut self.nodes[index];
            let ended = node.child.try_wait().expect("the process can be asked");
            let log = read(&node.log).unwrap_or_default();
            assert!(
                ended.is_none(),
                "tidewaiter ended at its start: {ended:?}\n{log}"
            );
            if let Some(address) = read(&node.data_dir.join("http.addr")) {
                let url = format!("http://{address}/readyz");
                let ready = self.http.get(url).send().await;
                if ready.is_ok_and(|answer| answer.status().is_success()) {
                    self.nodes[index].address = address;
                    return;
                }
            }
            assert!(
                started.elapsed() < PATIENCE,
                "tidewaiter is not ready\n{log}"
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    fn logs(&self) -> String {
        self.nodes
            .iter()
            .filter_map(|node| read(&node.log))
            .collect()
    }
}

impl Drop for Fabric {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            drop(node.child.kill());
            drop(node.child.wait());
        }
        if std::thread::panicking() {
            return;
        }
        let logs = self.logs();
        let unexpected: Vec<&str> = logs
            .lines()
            .filter(|line| line.contains(" WARN ") || line.contains(" ERROR "))
            .filter(|line| !self.expected.iter().any(|words| line.contains(words)))
            .collect();
        assert!(
            unexpected.is_empty(),
            "unexpected log lines:\n{}",
            unexpected.join("\n")
        );
    }
}

/// One OSV record.
pub(crate) struct Advisory {
    id: String,
    record: Value,
}

// === impl Advisory ===

impl Advisory {
    /// Of a Python package; critical.
    pub(crate) fn requests() -> Self {
        Self::new("PyPI", "requests", "CVE-2018-18074", "2.20.0")
    }

    /// Of another Python package.
    pub(crate) fn flask() -> Self {
        Self::new("PyPI", "flask", "CVE-2023-30861", "2.2.5")
    }

    /// Of an npm package.
    pub(crate) fn lodash() -> Self {
        Self::new("npm", "lodash", "CVE-2019-10744", "4.17.12")
    }

    /// Of a Python package of a test's own; critical.
    pub(crate) fn python(package: &str, id: &str) -> Self {
        Self::new("PyPI", package, id, "2.0")
    }

    /// Of every version of a package below the one that fixes it.
    fn new(ecosystem: &str, package: &str, id: &str, fixed: &str) -> Self {
        let record = json!({
            "schema_version": "1.6.0",
            "id": id,
            "modified": "2026-01-01T00:00:00Z",
            "affected": [{
                "package": {"ecosystem": ecosystem, "name": package},
                "ranges": [{
                    "type": "ECOSYSTEM",
                    "events": [{"introduced": "0"}, {"fixed": fixed}],
                }],
            }],
            "database_specific": {"severity": "CRITICAL"},
        });
        Self {
            id: id.to_owned(),
            record,
        }
    }

    /// Writes the record into a directory. A record for Debian 12 is beside it, so that the feed
    /// covers the base image.
    pub(crate) fn write(&self, dir: &Path) {
        std::fs::create_dir_all(dir).expect("a directory");
        let base = Self::new("Debian:12", "no-such-package", "CVE-2000-0001", "1");
        for advisory in [self, &base] {
            let file = dir.join(format!("{}.json", advisory.id));
            std::fs::write(file, advisory.record.to_string()).expect("an advisory file");
        }
    }
}

/// The program under test: the one that `TIDEWAITER_BINARY` names, else the one that was built
/// beside this test.
pub(crate) fn tidewaiter_binary() -> PathBuf {
    if let Some(binary) = setting("TIDEWAITER_BINARY") {
        return PathBuf::from(binary);
    }
    let test = std::env::current_exe().expect("a test has a path");
    let profile = test
        .parent()
        .and_then(Path::parent)
        .expect("tests live in target/PROFILE/deps");
    let binary = profile.join("tidewaiter");
    assert!(
        binary.exists(),
        "{} is missing: cargo build --release -p tidewaiter",
        binary.display()
    );
    binary
}

/// What whoever runs the tests has set in the environment.
#[expect(
    clippy::disallowed_methods,
    reason = "a test is set up by its environment, as the tool that runs it is"
)]
pub(crate) fn setting(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn launch(arguments: &[String], log: &Path) -> Child {
    let log = File::options()
        .append(true)
        .create(true)
        .open(log)
        .expect("a log file");
    Command::new(tidewaiter_binary())
        .args(arguments)
        .env("NO_COLOR", "1")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .expect("tidewaiter starts")
}

fn read(file: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(file)
        .ok()?
        .take(64 << 20)
        .read_to_string(&mut text)
        .ok()?;
    (!text.is_empty()).then_some(text)
}
