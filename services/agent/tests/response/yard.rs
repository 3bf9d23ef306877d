//! A node with podman and an agent, and a fabric that consists of its broker.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bus::{Bus, Consume, Delivery, Failure, Handler, Outcome};
use chassis::{Clock as _, Cx, SystemClock};
use jiff::Timestamp;
use model::{
    SigningKey, Slug,
    event::NODES,
    runtime::{
        Action, ActionKind, Desired, Mode, Phase, RESPONSES, Response, ResponseId,
        ResponseReported, SignedDesired, StartGate,
    },
};
use testkit::{NatsServer, TempDir};

use crate::{engine::Podman, ground::is_possible};

pub(crate) const PATIENCE: Duration = Duration::from_secs(40);
/// No guard of a test lives longer.
const GUARD_MAX: Duration = Duration::from_mins(10);
const NODE: &str = "node-1";
/// What the image holds, with the libraries of each.
const PROGRAMS: &[&str] = &[
    "/bin/bash",
    "/bin/sh",
    "/bin/cat",
    "/bin/chmod",
    "/bin/cp",
    "/bin/ls",
    "/bin/rm",
    "/bin/sleep",
    "/bin/true",
    "/usr/bin/perl",
];
pub(crate) const IMAGE: &str = "localhost/response-test:1";

/// Everything that a test works with.
pub(crate) struct Yard {
    /// Before its folder.
    podman: Podman,
    pub(crate) dir: TempDir,
    agent: Mutex<Option<Child>>,
    pub(crate) nats: NatsServer,
    pub(crate) bus: Bus,
    cx: Cx,
    pub(crate) key: SigningKey,
    pub(crate) desired: Mutex<Desired>,
    heard: Arc<Heard>,
}

/// What the agent answered.
#[derive(Default)]
struct Heard(Mutex<Vec<(ResponseReported, Instant)>>);

impl Handler for Heard {
    type Input = ResponseReported;

    async fn handle(&self, delivery: Delivery<ResponseReported>) -> Result<Outcome, Failure> {
        self.0.lock().unwrap().push((delivery.body, Instant::now()));
        Ok(Outcome::none())
    }
}

pub(crate) fn now() -> Timestamp {
    SystemClock.now()
}

pub(crate) fn slug(name: &str) -> Slug {
    name.parse().unwrap()
}

// === impl Yard ===

impl Yard {
    /// Starts everything; `None`, and why on standard output, where something is missing.
    pub(crate) async fn start() -> Option<Self> {
        if !is_possible(&["podman", "runc", "nats-server"]) {
            return None;
        }
        let nats = NatsServer::start()?;
        let dir = testkit::temp_dir();
        let podman = Podman::start(dir.path());
        let folders = ["tmp", "etc", "proc", "sys", "dev", "shared"];
        podman.import(PROGRAMS, &folders, IMAGE);
        let cx = Cx::for_tests();
        let config = bus::Config {
            url: Some(nats.url()),
            ..bus::Config::default()
        };
        let bus = Bus::connect(&cx, &config, "test").await.unwrap();
        bus.provision().await.unwrap();
        let heard = Arc::new(Heard::default());
        let consume = Consume {
            stream: RESPONSES.to_owned(),
            durable: "policy_responses".to_owned(),
            filter: String::new(),
            concurrency: 1,
            ack_wait: Duration::from_secs(10),
        };
        bus.consume(&cx, consume, Arc::clone(&heard));
        let begun = now();
        let yard = Self {
            podman,
            dir,
            agent: Mutex::new(None),
            nats,
            bus,
            cx,
            key: SigningKey::generate().unwrap(),
            desired: Mutex::new(Desired {
                tenant: Slug::default_tenant(),
                node: slug(NODE),
                generation: 0,
                issued_at: begun,
                expires_at: begun + Duration::from_hours(1),
                responses: Vec::new(),
                start_gate: None,
            }),
            heard,
        };
        yard.configure(None);
        // Whatever happens to this test.
        let own = yard.own_dir();
        std::thread::spawn(move || {
            std::thread::sleep(GUARD_MAX);
            end_guards(&own);
        });
        Some(yard)
    }

    /// Where the agent keeps what it took and did.
    pub(crate) fn own_dir(&self) -> PathBuf {
        self.dir.path().join("data/response")
    }

    pub(crate) fn config(&self) -> PathBuf {
        self.dir.path().join("agent.yaml")
    }

    /// Has the agent ask podman, and perhaps a containerd.
    pub(crate) fn configure(&self, containerd: Option<&Path>) {
        let dir = self.dir.path();
        let containerd = containerd.map_or_else(String::new, |at| at.display().to_string());
        let text = format!(
            "node: {NODE}\ndata_dir: {}\nbus:\n  url: {}\nengines:\n  docker: []\n  cri: []\n  \
             containerd: [{containerd}]\n  podman: [{}]\nsensor:\n  enabled: false\n\
             response:\n  keys: [{}]\n  reread_s: 2\n  bpffs: {}\n",
            dir.join("data").display(),
            self.nats.url(),
            self.podman.socket().display(),
            self.key.verifying(),
            dir.join("bpf").display(),
        );
        fs::write(self.config(), text).unwrap();
    }

    /// A command of podman that must succeed; returns what it prints.
    pub(crate) fn podman(&self, arguments: &[&str]) -> String {
        self.podman.run(arguments)
    }

    pub(crate) fn try_podman(&self, arguments: &[&str]) -> Output {
        self.podman.try_run(arguments)
    }

    /// Starts a container; returns its id.
    pub(crate) fn container(&self, name: &str, options: &[&str], command: &[&str]) -> String {
        self.podman.container((name, IMAGE), options, command)
    }

    pub(crate) fn sleeper(&self, name: &str) -> String {
        self.container(name, &[], &["/bin/sleep", "1000"])
    }

    /// Runs a line of a shell in a container; whether it succeeded, and what it printed.
    pub(crate) fn exec(&self, name: &str, line: &str) -> (bool, String) {
        let output = self.try_podman(&["exec", name, "/bin/bash", "-c", line]);
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.success(), text)
    }

    /// Starts the agent.
    pub(crate) fn launch(&self) {
        let log = File::options().append(true).create(true).open(self.log());
        let child = Command::new(program())
            .arg("run")
            .arg("--config")
            .arg(self.config())
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log.unwrap())
            .spawn()
            .unwrap();
        *self.agent.lock().unwrap() = Some(child);
    }

    /// `kill -9`.
    pub(crate) fn kill(&self) {
        if let Some(mut child) = self.agent.lock().unwrap().take() {
            drop(child.kill());
            drop(child.wait());
        }
    }

    /// The agent's process.
    pub(crate) fn agent(&self) -> u32 {
        self.agent.lock().unwrap().as_ref().unwrap().id()
    }

    pub(crate) fn log(&self) -> PathBuf {
        self.dir.path().join("agent.log")
    }

    /// A response to a container; it is not ordered yet.
    pub(crate) fn response(&self, container: &str, action: Action) -> Response {
        let begun = now();
        let round = self.desired.lock().unwrap().responses.len();
        let round = u32::try_from(round).unwrap();
        Response {
            id: ResponseId::of("incident", action.kind(), (container, None), round),
            incident: "incident".to_owned(),
            action,
            container: container.to_owned(),
            container_name: String::new(),
            container_started_at: None,
            mode: Mode::Enforced,
            issued_at: begun,
            expires_at: begun + Duration::from_mins(30),
            approved_by: "test".to_owned(),
            reason: String::new(),
            released: None,
        }
    }

    /// Orders something that is done to a container; returns its id.
    pub(crate) async fn order(&self, container: &str, action: Action) -> ResponseId {
        let response = self.response(container, action);
        let id = response.id.clone();
        self.change(|desired| desired.responses.push(response))
            .await;
        id
    }

    /// Takes responses back, all of a container.
    pub(crate) async fn release(&self, container: &str) {
        self.change(|desired| desired.responses.retain(|one| one.container != container))
            .await;
    }

    pub(crate) async fn gate(&self, gate: Option<StartGate>) {
        self.change(|desired| desired.start_gate = gate).await;
    }

    /// Writes another desired state, and wakes the agent.
    pub(crate) async fn change(&self, change: impl FnOnce(&mut Desired)) {
        let desired = {
            let mut desired = self.desired.lock().unwrap();
            desired.generation += 1;
            change(&mut desired);
            desired.clone()
        };
        let signed = SignedDesired::sign(&desired, &self.key).unwrap();
        self.write(&signed).await;
    }

    pub(crate) async fn write(&self, signed: &SignedDesired) {
        let (tenant, node) = (Slug::default_tenant(), slug(NODE));
        let key = Desired::key(&tenant, &node);
        self.bus
            .store()
            .put(NODES, &key, signed, None)
            .await
            .unwrap();
        self.bus.wake(&tenant, &node).await;
    }

    /// Everything that was answered.
    pub(crate) fn heard(&self) -> Vec<(ResponseReported, Instant)> {
        self.heard.0.lock().unwrap().clone()
    }

    /// How often a phase of a response was told.
    pub(crate) fn times(&self, id: &ResponseId, phase: Phase) -> usize {
        let heard = self.heard();
        let own = heard
            .iter()
            .filter(|(one, _)| one.response.as_ref() == Some(id));
        own.filter(|(one, _)| one.phase == phase).count()
    }

    /// Waits for an answer.
    pub(crate) async fn until(&self, id: &ResponseId, phase: Phase) -> ResponseReported {
        let what = format!("`{phase}` of {id}");
        self.until_heard(&what, |one| {
            one.response.as_ref() == Some(id) && one.phase == phase
        })
        .await
    }

    pub(crate) async fn until_heard(
        &self,
        what: &str,
        fits: impl Fn(&ResponseReported) -> bool,
    ) -> ResponseReported {
        let end = Instant::now() + PATIENCE;
        loop {
            let heard = self.heard();
            if let Some((found, _)) = heard.into_iter().find(|(one, _)| fits(one)) {
                return found;
            }
            if Instant::now() >= end {
                let heard: Vec<_> = self.heard().into_iter().map(|(one, _)| one).collect();
                panic!("{what} did not come\n{heard:#?}\n{}", read(&self.log()));
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    /// A cgroup's file of a container, in the tree of v2.
    pub(crate) fn cgroup(&self, id: &str) -> Option<PathBuf> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"];
        let named = format!("libpod-{id}");
        roots
            .iter()
            .flat_map(|root| [Path::new(root).join("libpod_parent"), PathBuf::from(root)])
            .map(|root| root.join(&named))
            .find(|dir| dir.join("cgroup.events").exists())
    }

    pub(crate) fn is_frozen(&self, id: &str) -> bool {
        self.cgroup(id)
            .is_some_and(|dir| read(&dir.join("cgroup.events")).contains("frozen 1"))
    }

    /// Tells a release token to the program, the agent dead or alive.
    pub(crate) fn release_by_hand(&self, token: &str) -> Output {
        let file = self.dir.path().join("token");
        fs::write(&file, token).unwrap();
        Command::new(program())
            .args(["release", "--all", "--config"])
            .arg(self.config())
            .arg("--token")
            .arg(file)
            .output()
            .unwrap()
    }
}

impl Drop for Yard {
    fn drop(&mut self) {
        self.kill();
        end_guards(&self.own_dir());
        let bpf = self.dir.path().join("bpf");
        drop(fs::remove_dir_all(bpf.join("tidewaiter")));
        drop(Command::new("umount").arg(&bpf).output());
        // What stands still cannot be removed.
        let ids = self
            .try_podman(&["ps", "--all", "--quiet", "--no-trunc"])
            .stdout;
        for id in String::from_utf8_lossy(&ids).lines() {
            if let Some(dir) = self.cgroup(id) {
                drop(fs::write(dir.join("cgroup.freeze"), "0"));
            }
        }
        self.cx.stop();
    }
}

/// The agent's program; a variable names another one than was built just now.
fn program() -> PathBuf {
    let named = std::env::vars_os().find(|(name, _)| name == "TIDEWAITER_AGENT_BINARY");
    named.map_or_else(
        || PathBuf::from(env!("CARGO_BIN_EXE_tidewaiter-agent")),
        |(_, path)| PathBuf::from(path),
    )
}

/// Ends guards by what they were started with.
pub(crate) fn end_guards(dir: &Path) {
    for pid in guards(dir) {
        drop(Command::new("kill").args(["-9", &pid.to_string()]).output());
    }
}

/// The guards of an agent.
pub(crate) fn guards(dir: &Path) -> Vec<u32> {
    let wanted = format!("tidewaiter-agent\0guard\0{}\0", dir.display());
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|pid| read(Path::new(&format!("/proc/{pid}/cmdline"))) == wanted)
        .collect()
}

pub(crate) fn read(path: &Path) -> String {
    chassis::files::read_bounded(path, 64 << 20)
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .unwrap_or_default()
}

/// Actions that last, for those that try each.
pub(crate) fn lasting() -> [Action; 3] {
    [
        Action::Pause,
        Action::Quarantine { allow: Vec::new() },
        Action::Block,
    ]
}

/// Whether a response of this kind is in force.
pub(crate) fn holds(yard: &Yard, container: &str, kind: ActionKind) -> bool {
    match kind {
        ActionKind::Pause => yard.is_frozen(container),
        ActionKind::Quarantine => {
            let pins = yard.dir.path().join("bpf/tidewaiter/default-node-1/cut");
            pins.join(container).join("on_sent").exists()
        }
        ActionKind::Block => !guards(&yard.own_dir()).is_empty(),
        _ => yard
            .cgroup(container)
            .is_none_or(|dir| read(&dir.join("cgroup.events")).contains("populated 0")),
    }
}
