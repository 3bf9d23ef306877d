//! `behavior`: runtime events judged per second on one core, from the bytes of the wire to what must
//! be written.
//!
//! The mix is that of services that serve: they are asked for their health, start helpers, connect,
//! open files that are watched. One event in a thousand is of an attack. Each round is taken by a
//! memory that has seen nothing, so nothing is cheap because it was judged before; the first round
//! is not counted.

use std::{fmt, time::Instant};

use anyhow::ensure;
use behavior::{Trial, Tried};
use clap::Args;
use jiff::Timestamp;
use model::{
    Digest, EntryKind, Slug,
    runtime::{
        Activity, Container, ContainerState, Exec, ExecutedFile, FileOpen, HostFacts, LayerFile,
        LayerFiles, Listen, NetworkFlow, NodeReported, Origin, ProcessKey, RareCall, RuntimeBatch,
        RuntimeEvent, Security, SensorMatrix, Stdio, SyscallMade, Transport,
    },
};
use serde::Serialize;

use crate::{
    figures::{Spread, per_second},
    say,
};

/// Events of a batch.
const BATCH: usize = 200;
/// Files of an image that can run.
const FILES: usize = 2_000;
/// Kinds of events in the mix.
const KINDS: usize = 13;
/// Turns of the mix that have one attack.
const ATTACK_EVERY: usize = 80;

/// Flags of `behavior`.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// Containers
    #[arg(long, default_value_t = 1000)]
    containers: usize,
    /// Images that they run
    #[arg(long, default_value_t = 50)]
    images: usize,
    /// Nodes that they run on
    #[arg(long, default_value_t = 20)]
    nodes: usize,
    /// Events
    #[arg(long, default_value_t = 1_000_000)]
    events: usize,
    /// How often they are judged
    #[arg(long, default_value_t = 5)]
    rounds: usize,
}

/// The table.
#[derive(Debug, Serialize)]
pub(crate) struct Measured {
    containers: usize,
    images: usize,
    kinds: usize,
    events: usize,
    bytes_per_event: usize,
    compared: usize,
    detections: usize,
    round: Spread,
    events_per_second: f64,
}

/// What a thousand containers did.
struct Recording {
    reports: Vec<NodeReported>,
    images: Vec<(Digest, LayerFiles)>,
    batches: Vec<Vec<u8>>,
    bytes: usize,
}

/// A container that acts.
struct Acting {
    number: usize,
    image: usize,
    clock_ns: u64,
    next_pid: u32,
    turn: usize,
}

pub(crate) fn run(options: &Options) -> anyhow::Result<Measured> {
    ensure!(
        options.nodes > 0 && options.images > 0 && options.containers >= options.nodes,
        "there must be nodes, images, and a container on each node"
    );
    say("recording");
    let recording = Recording::make(options)?;
    say("judging");
    let (mut took, mut all) = (Vec::new(), Tried::default());
    for round in 0..=options.rounds {
        let mut trial = recording.trial();
        all = Tried::default();
        let started = Instant::now();
        for bytes in &recording.batches {
            let tried = trial.batch(bytes)?;
            all.events += tried.events;
            all.compared += tried.compared;
            all.detections += tried.detections;
        }
        if round > 0 {
            took.push(started.elapsed());
        }
    }
    ensure!(all.detections > 0, "nothing was detected: the mix is wrong");
    took.sort();
    let middle = took.get(took.len() / 2).copied().unwrap_or_default();
    Ok(Measured {
        containers: options.containers,
        images: options.images,
        kinds: KINDS,
        events: all.events,
        bytes_per_event: recording.bytes / all.events.max(1),
        compared: all.compared,
        detections: all.detections,
        round: Spread::of(&took),
        events_per_second: per_second(all.events, middle),
    })
}

// === impl Recording ===

impl Recording {
    fn make(options: &Options) -> anyhow::Result<Self> {
        let images: Vec<_> = (0..options.images).map(image).collect();
        let per_node = options.containers / options.nodes;
        let names: Vec<Slug> = (0..options.nodes)
            .map(|node| format!("node-{node}").parse())
            .collect::<Result<_, _>>()?;
        let mut reports = Vec::new();
        let mut batches = Vec::new();
        let mut acting: Vec<Acting> = (0..per_node * options.nodes)
            .map(|number| Acting::new(number, options.images))
            .collect();
        for (node, name) in names.iter().enumerate() {
            let containers = (node * per_node..(node + 1) * per_node)
                .map(|number| container(number, options.images))
                .collect();
            reports.push(report(name, containers));
        }
        let (mut bytes, mut events, mut sequence) = (0, 0, 1);
        while events < options.events {
            sequence += 1;
            for (node, name) in names.iter().enumerate() {
                let own = node * per_node..(node + 1) * per_node;
                let Some(own) = acting.get_mut(own) else {
                    continue;
                };
                let batch = batch(name, sequence, own);
                events += batch.events.len();
                let encoded = bus::encode(&batch)?.to_vec();
                bytes += encoded.len();
                batches.push(encoded);
            }
        }
        Ok(Self {
            reports,
            images,
            batches,
            bytes,
        })
    }

    fn trial(&self) -> Trial {
        let mut trial = Trial::default();
        for (id, files) in &self.images {
            trial.image(*id, vec![files.clone()]);
        }
        for report in &self.reports {
            trial.report(report);
        }
        trial
    }
}

fn image_id(number: usize) -> Digest {
    Digest::of(format!("image {number}").as_bytes())
}

/// What an image has at a path.
fn content(image: usize, path: &str) -> Digest {
    Digest::of(format!("{image} {path}").as_bytes())
}

fn image(number: usize) -> (Digest, LayerFiles) {
    let mut paths: Vec<String> = (0..FILES)
        .map(|file| format!("usr/bin/tool-{file}"))
        .collect();
    paths.push("usr/local/bin/entrypoint.sh".to_owned());
    let entry = |path: String| LayerFile {
        digest: Some(content(number, &path)),
        path,
        kind: EntryKind::File,
        link: None,
    };
    let files = LayerFiles {
        entries: paths.into_iter().map(entry).collect(),
        partial: false,
    };
    (image_id(number), files)
}

fn container_id(number: usize) -> String {
    Digest::of(format!("container {number}").as_bytes()).hex()
}

fn container(number: usize, images: usize) -> Container {
    Container {
        id: container_id(number),
        name: format!("service-{number}"),
        runtime: "containerd".to_owned(),
        image: format!("registry.example/team/service:{}", number % images),
        image_id: Some(image_id(number % images)),
        repo_digests: Vec::new(),
        state: ContainerState::Running,
        created_at: None,
        started_at: None,
        pid: 0,
        cgroup: None,
        pod: None,
        namespace: None,
        owner: None,
        labels: std::collections::BTreeMap::default(),
        ports: Vec::new(),
        addresses: Vec::new(),
        mounts: Vec::new(),
        security: Security::default(),
    }
}

fn report(node: &Slug, containers: Vec<Container>) -> NodeReported {
    NodeReported {
        node: node.clone(),
        boot: "boot".to_owned(),
        sequence: 1,
        at: Timestamp::UNIX_EPOCH,
        agent: "0".to_owned(),
        host: HostFacts::default(),
        sensors: SensorMatrix::default(),
        containers,
        images: Vec::new(),
        left_out: 0,
    }
}

/// The next events of a node's containers, a turn of the mix for one after another.
fn batch(node: &Slug, sequence: u64, acting: &mut [Acting]) -> RuntimeBatch {
    let mut events = Vec::with_capacity(BATCH + KINDS);
    let start = usize::try_from(sequence).unwrap_or_default() * 16;
    let count = acting.len();
    for step in 0.. {
        if events.len() >= BATCH {
            break;
        }
        let place = (start + step) % count.max(1);
        if let Some(one) = acting.get_mut(place) {
            one.act(u16::try_from(place).unwrap_or_default(), &mut events);
        }
    }
    RuntimeBatch {
        node: node.clone(),
        boot: "boot".to_owned(),
        sequence,
        booted_at: Timestamp::UNIX_EPOCH,
        containers: acting.iter().map(|one| container_id(one.number)).collect(),
        events,
        drops: Vec::new(),
    }
}

// === impl Acting ===

impl Acting {
    fn new(number: usize, images: usize) -> Self {
        Self {
            number,
            image: number % images,
            clock_ns: 1_000_000_000,
            next_pid: 100,
            turn: number,
        }
    }

    /// One turn: a service starts a helper that does this and that.
    fn act(&mut self, place: u16, out: &mut Vec<RuntimeEvent>) {
        self.turn += 1;
        let main = ProcessKey {
            pid: 10,
            started_ns: 1,
        };
        let helper = ProcessKey {
            pid: self.next_pid,
            started_ns: self.clock_ns,
        };
        self.next_pid = self.next_pid % 4_000_000 + 1;
        let mut add = |process: ProcessKey, activity: Activity| {
            self.clock_ns += 1_000_000;
            out.push(RuntimeEvent {
                at_ns: self.clock_ns,
                container: place,
                process,
                activity,
            });
        };
        let tool = self.turn % FILES;
        add(main, Activity::Fork { child: helper });
        let path = format!("usr/bin/tool-{tool}");
        let args = [&*path, "--config", "/etc/service/service.conf", "--verbose"];
        add(helper, exec(main, &path, Origin::Lower, &args));
        add(helper, flow("10.1.2.3", 5432, self.turn));
        add(helper, open("etc/passwd", false));
        let (watched, written) = ("root/.bashrc", format!("var/lib/service/{tool}"));
        add(
            helper,
            open(
                if tool.is_multiple_of(2) {
                    watched
                } else {
                    &written
                },
                false,
            ),
        );
        match self.turn % 8 {
            0 => add(main, listen(8080)),
            1 => add(helper, call(RareCall::Memfd, &[1])),
            2 => add(helper, Activity::Bind(listening(0))),
            3 => add(helper, health_check()),
            4 => add(helper, script(main)),
            5 => {
                // Copied up, and as the image has it.
                let mut same = exec(main, &path, Origin::Upper, &args);
                if let Activity::Exec(exec) = &mut same {
                    exec.file.digest = Some(content(self.image, &path));
                }
                add(helper, same);
            }
            6 => add(helper, flow("2001:db8::7", 443, self.turn)),
            _ => add(helper, call(RareCall::Unshare, &[0x2000_0000])),
        }
        if self.turn.is_multiple_of(ATTACK_EVERY) {
            add(helper, attack(self.turn / ATTACK_EVERY, main));
        }
        add(helper, Activity::Exit { code: 0, signal: 0 });
    }
}

/// A health check, sent in from outside.
fn health_check() -> Activity {
    let args = [
        "sh",
        "-c",
        "curl -fsS http://localhost:8080/health || exit 1",
    ];
    let mut check = exec(ProcessKey::default(), "usr/bin/dash", Origin::Lower, &args);
    if let Activity::Exec(exec) = &mut check {
        exec.injected = true;
    }
    check
}

/// A script of the image, by its interpreter.
fn script(parent: ProcessKey) -> Activity {
    let args = ["/bin/sh", "/usr/local/bin/entrypoint.sh", "reload"];
    let mut script = exec(parent, "usr/bin/dash", Origin::Lower, &args);
    if let Activity::Exec(exec) = &mut script {
        exec.script = Some(file("usr/local/bin/entrypoint.sh", Origin::Lower));
    }
    script
}

/// One thing after another that attackers do.
fn attack(number: usize, parent: ProcessKey) -> Activity {
    match number % 4 {
        0 => {
            let mut dropped = exec(parent, "tmp/x", Origin::Upper, &["/tmp/x"]);
            if let Activity::Exec(exec) = &mut dropped {
                exec.file.digest = Some(Digest::of(b"dropped"));
            }
            dropped
        }
        1 => open("etc/shadow", false),
        2 => flow("169.254.169.254", 80, 0),
        _ => call(RareCall::Ptrace, &[16, 10]),
    }
}

fn file(path: &str, origin: Origin) -> ExecutedFile {
    ExecutedFile {
        path: path.to_owned(),
        origin,
        digest: None,
        mount: None,
    }
}

fn exec(parent: ProcessKey, path: &str, origin: Origin, args: &[&str]) -> Activity {
    Activity::Exec(Box::new(Exec {
        parent,
        file: file(path, origin),
        args: args.iter().map(|arg| (*arg).to_owned()).collect(),
        cwd: Some("/srv".to_owned()),
        uid: 1_000,
        gid: 1_000,
        stdin: Stdio::Pipe,
        stdout: Stdio::Pipe,
        ..Exec::default()
    }))
}

fn flow(address: &str, port: u16, turn: usize) -> Activity {
    let other = u16::try_from(turn % 3).unwrap_or_default();
    Activity::Connect(NetworkFlow {
        transport: Transport::Tcp,
        address: address.parse().expect("it is an address"),
        port: if port == 80 { port } else { port + other },
    })
}

fn open(path: &str, write: bool) -> Activity {
    Activity::Open(FileOpen {
        path: path.to_owned(),
        write,
    })
}

fn listening(port: u16) -> Listen {
    Listen {
        transport: Transport::Tcp,
        address: "0.0.0.0".parse().expect("it is an address"),
        port,
    }
}

fn listen(port: u16) -> Activity {
    Activity::Listen(listening(port))
}

fn call(call: RareCall, args: &[u64]) -> Activity {
    Activity::Syscall(SyscallMade {
        call,
        args: args.to_vec(),
        text: None,
    })
}

impl fmt::Display for Measured {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            containers,
            images,
            kinds,
            events,
            bytes_per_event,
            compared,
            detections,
            round,
            events_per_second,
        } = self;
        writeln!(
            f,
            "{events} events of {kinds} kinds, {bytes_per_event} bytes each, from {containers} \
             containers of {images} images"
        )?;
        writeln!(
            f,
            "{compared} files compared with their image, {detections} detections"
        )?;
        writeln!(
            f,
            "median of {} rounds {:.3} s ({:.3} to {:.3}): {events_per_second:.0} events per second \
             and core, decoding included",
            round.rounds, round.median_s, round.min_s, round.max_s
        )
    }
}
