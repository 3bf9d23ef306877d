//! What containers really do: containers of podman and of containerd on this machine, an agent that
//! watches them, and the fabric that judges. Needs root, podman or containerd, runc and a kernel that
//! takes the sensor; without them a test says what is missing and passes.

mod behaviors;
mod connector;
mod containerd;
mod drift;
mod node;
mod podman;
mod pods;
mod survival;

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use testkit::{Image, ImageBuilder, LayerBuilder};

use self::podman::Podman;
use crate::fabric::{Fabric, Options, PATIENCE, tidewaiter_binary};

/// The node whose agent runs.
const NODE: &str = "e2e";
/// Roles that run together beside `behavior`.
const OTHERS: &[&str] = &[
    "gateway",
    "router",
    "scanner",
    "matcher",
    "policy",
    "alerting",
    "inventory",
];
/// Programs of this machine that the image holds, with the libraries of each.
const PROGRAMS: &[&str] = &[
    "/bin/sh",
    "/bin/cat",
    "/bin/chmod",
    "/bin/chown",
    "/bin/cp",
    "/bin/grep",
    "/bin/ls",
    "/bin/mkdir",
    "/bin/rm",
    "/bin/sleep",
    "/usr/bin/perl",
];
/// What an attacker would bring or find is in the image under its name, and is something harmless.
const STAND_INS: &[(&str, &str)] = &[
    ("/bin/true", "usr/bin/apt-get"),
    ("/bin/true", "usr/bin/docker"),
    ("/bin/true", "usr/bin/nc"),
    ("/bin/true", "usr/bin/nmap"),
    ("/bin/true", "usr/bin/nsenter"),
    ("/bin/true", "usr/bin/xmrig"),
    ("/bin/true", "usr/sbin/insmod"),
    ("/bin/true", "usr/sbin/useradd"),
    ("/bin/sh", "usr/bin/app"),
    ("/bin/sh", "usr/sbin/cron"),
    ("/bin/sh", "usr/sbin/nginx"),
];
/// Entry point of an image as there are many: it gives directories to whom they belong, and then
/// becomes the program.
const ENTRY: &str = "#!/bin/sh\nset -e\nchown -R 1000:1000 /data\nchmod 750 /data /bin/ls\n\
                     /bin/ls /data\nexec \"$@\"\n";

/// A fabric, and a node that is watched.
struct Yard<Engine = Podman> {
    // In the order in which they end.
    engine: Engine,
    agent: Agent,
    fabric: Fabric,
    /// The image's name.
    image: String,
}

/// The agent's process.
struct Agent {
    child: Option<Child>,
    config: PathBuf,
    log: PathBuf,
    /// Whether warnings are part of the test.
    may_warn: bool,
}

// === impl Yard ===

impl Yard {
    /// Starts everything; `None`, with a reason printed, where something is missing. Beside the
    /// other roles there are so many processes of `behavior`.
    async fn start(behaviors: usize) -> Option<Self> {
        Self::start_with(behaviors, "bpf").await
    }

    /// The same with an agent that watches by this.
    async fn start_with(behaviors: usize, tier: &str) -> Option<Self> {
        let podman = Podman::start()?;
        let fabric = fabric(behaviors, tier).await?;
        let image = fabric.push(image(&json!({})), "runtime/app", "1");
        podman.run(&["pull", "--quiet", "--tls-verify=false", &image]);
        let agent = Agent::start(&fabric, ("podman", &podman.socket()), tier).await;
        // What its image holds must be known before it is said what is not of it.
        fabric.verdict(&image).await;
        Some(Self {
            engine: podman,
            agent,
            fabric,
            image,
        })
    }

    /// Starts a container that sleeps and is known to the fabric; returns its id.
    async fn container(&self, name: &str, options: &[&str]) -> String {
        let id = self.run(name, options, &["/bin/sleep", "1000"]);
        self.until_known(&id).await;
        id
    }

    fn run(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        self.engine.container(name, options, &self.image, command)
    }
}

impl<Engine> Yard<Engine> {
    /// Waits until the fabric knows that a container runs and what its image is; returns what it
    /// knows. Before, nobody watches one whose cgroup does not bear its id.
    async fn until_known(&self, container: &str) -> Value {
        let path = format!("/v1/containers/{container}");
        self.fabric
            .until("the container with its image", async || {
                let found = self.fabric.get(&path).await?;
                let is_known = found["image_digest"].is_string() && found["state"] == "running";
                is_known.then_some(found)
            })
            .await
    }

    /// Everything that was detected in a container.
    async fn detected(&self, container: &str) -> Vec<Value> {
        let list = format!("/v1/incidents?container={container}");
        let Some(list) = self.fabric.get(&list).await else {
            return Vec::new();
        };
        let mut detected = Vec::new();
        for incident in list["items"].as_array().into_iter().flatten() {
            let id = incident["id"].as_str().expect("an id");
            let path = format!("/v1/incidents/{id}");
            let Some(details) = self.fabric.get(&path).await else {
                continue;
            };
            detected.extend(details["events"].as_array().cloned().unwrap_or_default());
        }
        detected
    }

    /// Waits until a rule fired about something whose name is in the detection's title.
    async fn until_detected(&self, container: &str, rule: &str, about: &str) -> Value {
        self.fabric
            .until(&format!("{rule} about {about}"), async || {
                let detected = self.detected(container).await;
                detected.into_iter().find(|one| is(one, rule, about))
            })
            .await
    }
}

/// A fabric for one node, whose containers an agent can watch by this; `None`, with a reason printed,
/// where something is missing.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
async fn fabric(behaviors: usize, tier: &str) -> Option<Fabric> {
    let Some(agent) = agent_binary() else {
        println!("skipped: tidewaiter-agent is not built (cargo build --release -p agent)");
        return None;
    };
    if let Some(why) = unwatchable(&agent, tier) {
        println!("skipped: the sensor does not load: {why}");
        return None;
    }
    let mut processes = vec![OTHERS.to_vec()];
    processes.extend((0..behaviors).map(|_| vec!["behavior"]));
    Fabric::start(Options {
        // A death is noticed sooner than in production.
        config: "bus:\n  ack_wait_ms: 6000\n  lease_ms: 5000\n".to_owned(),
        processes,
        agents: vec![NODE],
        ..Options::default()
    })
    .await
}

/// Whether these can be run, by root; says what is missing where not.
#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn are_here(programs: &[&str]) -> bool {
    let id = Command::new("id").arg("-u").output().expect("id runs");
    if id.stdout != b"0\n" {
        println!("skipped: only root can look into the kernel");
        return false;
    }
    let missing = programs.iter().find(|&program| {
        let found = Command::new(program).arg("--version").output();
        !found.is_ok_and(|output| output.status.success())
    });
    if let Some(program) = missing {
        println!("skipped: `{program}` is not installed");
    }
    missing.is_none()
}

/// Whether a detection is of a rule and about something.
fn is(detection: &Value, rule: &str, about: &str) -> bool {
    let title = detection["title"].as_str().unwrap_or_default();
    detection["rule"] == rule && title.contains(about)
}

// === impl Agent ===

impl Agent {
    /// It asks the one engine that is at this socket, by this key of its configuration.
    async fn start(fabric: &Fabric, (engine, socket): (&str, &Path), tier: &str) -> Self {
        let dir = fabric.dir().join("agent");
        std::fs::create_dir_all(&dir).expect("a directory");
        let (url, key) = fabric.agent_access(NODE);
        let engines = ["docker", "podman", "containerd", "cri"].map(|key| {
            let socket = socket.display().to_string();
            let sockets = if key == engine { socket } else { String::new() };
            format!("  {key}: [{sockets}]\n")
        });
        let config = format!(
            "node: {NODE}
data_dir: {}
bus:
  url: {url}
  credentials_file: {}
engines:
{}sensor:
  tier: {tier}
inventory_interval_s: 5
",
            dir.join("data").display(),
            key.display(),
            engines.concat(),
        );
        let mut agent = Self {
            child: None,
            config: dir.join("agent.yaml"),
            log: dir.join("agent.log"),
            may_warn: false,
        };
        std::fs::write(&agent.config, config).expect("a configuration file");
        agent.launch().await;
        agent
    }

    /// Starts the process, and waits until it sees what containers do.
    async fn launch(&mut self) {
        let log = File::options().append(true).create(true).open(&self.log);
        let before = self.starts();
        let child = Command::new(agent_binary().expect("it was there"))
            .arg("run")
            .arg("--config")
            .arg(&self.config)
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.expect("a log file"))
            .spawn()
            .expect("the agent starts");
        let child = self.child.insert(child);
        let started = Instant::now();
        loop {
            let ended = child.try_wait().expect("it can be asked");
            let log = read(&self.log);
            assert!(ended.is_none(), "the agent ended: {ended:?}\n{log}");
            if starts(&log) > before {
                return;
            }
            assert!(
                started.elapsed() < PATIENCE,
                "the agent sees nothing\n{log}"
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }

    /// `kill -9`.
    fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// How often it began to see.
    fn starts(&self) -> usize {
        starts(&read(&self.log))
    }

    /// Whether its spool holds that a file ran. In command lines a slash is before its path.
    fn has_spooled(&self, path: &str) -> bool {
        let spool = self.config.with_file_name("data").join("spool");
        let files = std::fs::read_dir(spool).into_iter().flatten().flatten();
        let is_it = |at: &[u8]| !at.starts_with(b"/") && at.ends_with(path.as_bytes());
        let holds = |bytes: Vec<u8>| bytes.windows(path.len() + 1).any(is_it);
        files.map(|file| file.path()).any(|file| {
            let file = file.display().to_string();
            Path::new(&file).is_file() && holds(bytes(&file))
        })
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        let log = read(&self.log);
        if std::thread::panicking() {
            return;
        }
        let is_bad = |line: &&str| line.contains(" WARN ") || line.contains(" ERROR ");
        let bad: Vec<&str> = log.lines().filter(is_bad).collect();
        assert!(self.may_warn || bad.is_empty(), "{}", bad.join("\n"));
    }
}

fn starts(log: &str) -> usize {
    let tiers = ["tier `bpf`", "tier `process-connector`"];
    tiers.iter().map(|tier| log.matches(tier).count()).sum()
}

/// The agent, built beside the program under test.
fn agent_binary() -> Option<PathBuf> {
    let binary = tidewaiter_binary().with_file_name("tidewaiter-agent");
    binary.exists().then_some(binary)
}

/// Why containers cannot be watched here, if they cannot.
fn unwatchable(agent: &Path, tier: &str) -> Option<String> {
    let mut probe = Command::new(agent);
    probe
        .arg("probe")
        .env("TIDEWAITER_AGENT_SENSOR__TIER", tier);
    let probe = probe.output().expect("it runs");
    let matrix: Value = serde_json::from_slice(&probe.stdout).unwrap_or_default();
    (matrix["tier"] != tier).then(|| matrix["missing"].to_string())
}

/// An image of programs of this machine, with these settings.
fn image(settings: &Value) -> Image {
    let mut layer = LayerBuilder::new();
    for dir in [
        "data",
        "etc/cron.d",
        "proc",
        "root/.ssh",
        "sys",
        "tmp",
        "var/log",
    ] {
        layer = layer.dir(dir);
    }
    for path in libraries(PROGRAMS) {
        layer = layer.file_mode(path.trim_start_matches('/'), 0o755, bytes(&path));
    }
    for (program, path) in STAND_INS {
        layer = layer.file_mode(path, 0o755, bytes(program));
    }
    let layer = layer
        .file("etc/shadow", "root:*:1::::::\n")
        .file("etc/passwd", "root:x:0:0::/root:/bin/sh\n")
        .file(TOKEN, "not a token\n")
        .file("var/log/app.log", "")
        .file_mode("entry.sh", 0o755, ENTRY);
    let image = ImageBuilder::new().layer(layer.build(), "COPY / /");
    image.runtime(settings.clone()).build()
}

/// Where orchestrators put a pod's token.
const TOKEN: &str = "run/secrets/kubernetes.io/serviceaccount/token";

/// Programs, and the libraries that they need.
fn libraries(programs: &[&str]) -> Vec<String> {
    let mut paths: Vec<String> = Vec::new();
    for program in programs {
        let listed = Command::new("ldd").arg(program).output();
        let listed = String::from_utf8(listed.expect("ldd runs").stdout).expect("text");
        let words = listed.split_whitespace().map(str::to_owned);
        paths.push((*program).to_owned());
        paths.extend(words.filter(|word| word.starts_with('/')));
    }
    paths.sort();
    paths.dedup();
    paths
}

/// The program that loads others, as this machine calls it.
fn loader() -> String {
    let mut paths = libraries(&["/bin/ls"]).into_iter();
    let found = paths.find(|path| path.contains("/ld-"));
    found.expect("programs of this machine have a loader")
}

#[expect(
    clippy::disallowed_methods,
    reason = "programs of this machine, and a spool"
)]
fn bytes(path: &str) -> Vec<u8> {
    std::fs::read(path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[expect(clippy::disallowed_methods, reason = "a log file of a test")]
fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}
