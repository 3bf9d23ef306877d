//! The kernel side, loaded: programs tried one by one, maps written and read.
//!
//! All of libbpf is behind this file. Its object is opened from memory; where everything loads at
//! once, as on most nodes, that is one attempt, and otherwise each program is tried by itself and
//! those that do not load are left out with the reason.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs::File,
    os::fd::AsRawFd as _,
    path::Path,
};

use anyhow::{Context as _, anyhow, ensure};
use libbpf_rs::{
    Link, MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder, OpenObject, RingBuffer,
    RingBufferBuilder, TracepointCategory,
};
use nix::{
    mount::{MsFlags, mount},
    sched::{CloneFlags, unshare},
};

use crate::{
    cgroup::{Found, Layout},
    config::SensorConfig,
    watch::Watched,
};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/sensor.bpf.o"));

const TRACEFS: &str = "/sys/kernel/tracing";
const DEBUG_TRACEFS: &str = "/sys/kernel/debug/tracing";
const NANOSECONDS: u64 = 1_000_000_000;
/// The classes, as `enum class` in `bpf/events.h`.
const CLASSES: [&str; 5] = ["exec", "process", "network", "file", "syscall"];

/// A program of the object.
struct Program {
    name: &'static str,
    /// What is seen by it.
    sees: &'static str,
    attach: Attach,
}

/// Where it is attached.
#[derive(Clone, Copy)]
enum Attach {
    /// Where its section says.
    Trace,
    /// To the root of all cgroups.
    Cgroup,
    /// To the entry of system calls.
    Syscalls(&'static [&'static str]),
}

const PROGRAMS: &[Program] = &[
    trace("on_exec", "exec"),
    trace("on_fork", "fork"),
    trace("on_exit", "exit"),
    trace("on_cgroup_mkdir", "cgroup"),
    trace("on_cgroup_rmdir", "cgroup"),
    trace("on_listen", "listen"),
    cgroup("on_connect4", "connect"),
    cgroup("on_connect6", "connect"),
    cgroup("on_sendmsg4", "send"),
    cgroup("on_sendmsg6", "send"),
    cgroup("on_bind4", "bind"),
    cgroup("on_bind6", "bind"),
    syscalls("on_openat", "open", &["openat"]),
    syscalls("on_open", "open", &["open"]),
    syscalls("on_creat", "open", &["creat"]),
    syscalls("on_openat2", "open", &["openat2"]),
    syscalls("on_connect_unix", "connect-unix", &["connect"]),
    syscalls(
        "on_call1",
        "syscall",
        &[
            "process_vm_writev",
            "fsmount",
            "unshare",
            "init_module",
            "finit_module",
            "delete_module",
            "io_uring_setup",
            "userfaultfd",
            "perf_event_open",
            "kexec_load",
            "kexec_file_load",
            "open_by_handle_at",
        ],
    ),
    syscalls(
        "on_call2",
        "syscall",
        &["ptrace", "setns", "bpf", "keyctl", "add_key", "request_key"],
    ),
    syscalls(
        "on_call_text0",
        "syscall",
        &["umount", "pivot_root", "memfd_create"],
    ),
    syscalls("on_call_text1", "syscall", &["mount"]),
    syscalls("on_call_text3", "syscall", &["move_mount"]),
];

/// The kernel side at work; it ends when this is dropped.
pub(crate) struct Bpf {
    cgroups: MapHandle,
    members: MapHandle,
    drops: MapHandle,
    high: MapHandle,
    low: MapHandle,
    /// Drops that were told already.
    told: HashMap<(u64, u64), u64>,
    _links: Vec<Link>,
    _object: Object,
}

/// What was found while loading.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Loaded {
    /// What is seen.
    pub(crate) sees: Vec<String>,
    /// What is not, and why.
    pub(crate) missing: BTreeMap<String, String>,
}

/// What could be seen, each once.
pub(crate) fn sees() -> impl Iterator<Item = &'static str> {
    let all: BTreeSet<&str> = PROGRAMS.iter().map(|program| program.sees).collect();
    all.into_iter()
}

const fn trace(name: &'static str, sees: &'static str) -> Program {
    let attach = Attach::Trace;
    Program { name, sees, attach }
}

const fn cgroup(name: &'static str, sees: &'static str) -> Program {
    let attach = Attach::Cgroup;
    Program { name, sees, attach }
}

const fn syscalls(
    name: &'static str,
    sees: &'static str,
    calls: &'static [&'static str],
) -> Program {
    let attach = Attach::Syscalls(calls);
    Program { name, sees, attach }
}

// === impl Bpf ===

impl Bpf {
    /// Loads and attaches what this kernel takes. The calling thread may get a mount namespace of
    /// its own.
    pub(crate) fn load(
        layout: &Layout,
        config: &SensorConfig,
        watched: &Watched,
    ) -> anyhow::Result<(Self, Loaded)> {
        // What libbpf prints says less than the errors that it returns.
        libbpf_rs::set_print(None);
        ensure!(
            !layout.mode.is_empty(),
            "there are no cgroups to know containers by"
        );
        ensure!(
            Path::new("/sys/kernel/btf/vmlinux").exists(),
            "the kernel does not describe its types (/sys/kernel/btf/vmlinux)"
        );
        let mut loaded = Loaded::default();
        let traced = find_tracefs();
        if let Err(error) = &traced {
            for sees in ["open", "connect-unix", "syscall"] {
                let why = format!("no tracefs: {error:#}");
                loaded.missing.insert(sees.to_owned(), why);
            }
        }
        let wanted =
            |program: &&Program| traced.is_ok() || !matches!(program.attach, Attach::Syscalls(_));
        let wanted: Vec<&Program> = PROGRAMS.iter().filter(wanted).collect();
        let settings = settings(layout, config);
        let (object, programs) = load_all(&wanted, &settings, &mut loaded)?;
        let links = attach_all(&object, &programs, layout, &mut loaded);
        ensure!(
            loaded.sees.iter().any(|sees| sees == "exec"),
            "programs that start cannot be seen: {}",
            loaded.missing.get("exec").map_or("unknown", String::as_str)
        );
        let watched_names = handle(&object, "watched")?;
        for (hash, what) in watched.names() {
            watched_names.update(&hash.to_ne_bytes(), &[what], MapFlags::ANY)?;
        }
        let bpf = Self {
            cgroups: handle(&object, "cgroups")?,
            members: handle(&object, "members")?,
            drops: handle(&object, "drops")?,
            high: handle(&object, "high")?,
            low: handle(&object, "low")?,
            told: HashMap::new(),
            _links: links,
            _object: object,
        };
        // Drops that find no place in the table are counted as nobody's: their places are there.
        for class in 0..CLASSES.len() as u64 {
            let key = class_key(0, class);
            bpf.drops
                .update(&key, &0_u64.to_ne_bytes(), MapFlags::ANY)?;
        }
        Ok((bpf, loaded))
    }

    /// The two buffers, read into `take`.
    pub(crate) fn buffers<'a>(&self, take: &'a dyn Fn(&[u8])) -> anyhow::Result<RingBuffer<'a>> {
        let mut builder = RingBufferBuilder::new();
        for map in [&self.high, &self.low] {
            builder.add(map, move |bytes| {
                take(bytes);
                0
            })?;
        }
        builder.build().context("the ring buffers")
    }

    /// Watches a container that was found in another way than by its cgroup being made.
    pub(crate) fn learn(&self, found: &Found) -> anyhow::Result<()> {
        let root = found.cgroup.to_ne_bytes();
        for id in found.inner.iter().chain([&found.cgroup]) {
            self.cgroups
                .update(&id.to_ne_bytes(), &root, MapFlags::ANY)?;
        }
        for pid in &found.pids {
            self.members
                .update(&pid.to_ne_bytes(), &[1], MapFlags::ANY)?;
        }
        Ok(())
    }

    /// What was counted and not told since the last time: cgroup, class, how many.
    pub(crate) fn drops(&mut self) -> Vec<(u64, &'static str, u64)> {
        let mut found = Vec::new();
        for key in self.drops.keys() {
            let Ok(Some(value)) = self.drops.lookup(&key, MapFlags::ANY) else {
                continue;
            };
            let (Some(cgroup), Some(class)) = (number(&key, 0), number(&key, 8)) else {
                continue;
            };
            let count = number(&value, 0).unwrap_or(0);
            let told = self.told.insert((cgroup, class), count).unwrap_or(0);
            let class = usize::try_from(class)
                .ok()
                .and_then(|class| CLASSES.get(class));
            if count > told {
                found.push((cgroup, *class.unwrap_or(&"unknown"), count - told));
            }
        }
        found
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + 8)?;
    bytes.try_into().ok().map(u64::from_ne_bytes)
}

fn class_key(cgroup: u64, class: u64) -> Vec<u8> {
    [cgroup.to_ne_bytes(), class.to_ne_bytes()].concat()
}

/// `struct settings` of `bpf/sensor.bpf.c`.
fn settings(layout: &Layout, config: &SensorConfig) -> Vec<u8> {
    let controller = layout.v1.as_ref().map_or(-1, |v1| v1.index);
    let hierarchy = layout.v1.as_ref().map_or(0, |v1| v1.hierarchy);
    let mut bytes = Vec::new();
    bytes.extend(controller.to_ne_bytes());
    bytes.extend(config.quiet_s.saturating_mul(NANOSECONDS).to_ne_bytes());
    bytes.extend(hierarchy.to_ne_bytes());
    bytes.extend(config.events_per_s_max.to_ne_bytes());
    bytes
}

fn load_all<'a>(
    wanted: &[&'a Program],
    settings: &[u8],
    loaded: &mut Loaded,
) -> anyhow::Result<(Object, Vec<&'a Program>)> {
    if let Ok(object) = open(wanted, settings)?.load() {
        return Ok((object, wanted.to_vec()));
    }
    let mut fit = Vec::new();
    for program in wanted {
        match open(&[program], settings)?.load() {
            Ok(_) => fit.push(*program),
            Err(error) => {
                let why = format!("`{}` does not load: {error}", program.name);
                loaded.missing.insert(program.sees.to_owned(), why);
            }
        }
    }
    let object = open(&fit, settings)?.load();
    Ok((object.context("loading the sensor")?, fit))
}

fn open(programs: &[&Program], settings: &[u8]) -> anyhow::Result<OpenObject> {
    let mut builder = ObjectBuilder::default();
    builder.name("tidewaiter")?;
    let mut object = builder
        .open_memory(OBJECT)
        .context("reading the sensor's object")?;
    for mut program in object.progs_mut() {
        let name = program.name().to_owned();
        let is_wanted = programs.iter().any(|wanted| name == wanted.name);
        program.set_autoload(is_wanted);
    }
    let is_set = object.maps_mut().any(|mut map| {
        let is_it = map.name().to_string_lossy().ends_with(".settings");
        let value = map
            .initial_value_mut()
            .filter(|value| is_it && value.len() == settings.len());
        value.map(|value| value.copy_from_slice(settings)).is_some()
    });
    ensure!(is_set, "the sensor's object has no settings of this size");
    Ok(object)
}

fn attach_all(
    object: &Object,
    programs: &[&Program],
    layout: &Layout,
    loaded: &mut Loaded,
) -> Vec<Link> {
    let mut links = Vec::new();
    for program in programs {
        match attach(object, program, layout, &mut links) {
            Ok(()) => {
                if !loaded.sees.iter().any(|sees| sees == program.sees) {
                    loaded.sees.push(program.sees.to_owned());
                }
            }
            Err(error) => {
                let why = format!("`{}` cannot be attached: {error:#}", program.name);
                loaded.missing.insert(program.sees.to_owned(), why);
            }
        }
    }
    links
}

fn attach(
    object: &Object,
    wanted: &Program,
    layout: &Layout,
    links: &mut Vec<Link>,
) -> anyhow::Result<()> {
    let found = object
        .progs_mut()
        .find(|program| program.name() == wanted.name);
    let program = found.ok_or_else(|| anyhow!("it is not in the object"))?;
    match wanted.attach {
        Attach::Trace => links.push(program.attach()?),
        Attach::Cgroup => {
            ensure!(layout.v1.is_none(), "there is no cgroup v2");
            let root = File::open(&layout.root)?;
            links.push(program.attach_cgroup(root.as_raw_fd())?);
        }
        Attach::Syscalls(calls) => {
            for call in calls {
                let name = format!("sys_enter_{call}");
                // What this kernel does not have, nobody can call.
                if !has_tracepoint(&name) {
                    continue;
                }
                let link = program.attach_tracepoint(TracepointCategory::Syscalls, &name);
                links.push(link.with_context(|| format!("`{call}`"))?);
            }
        }
    }
    Ok(())
}

fn has_tracepoint(name: &str) -> bool {
    let mut places = [TRACEFS, DEBUG_TRACEFS].into_iter();
    places.any(|place| Path::new(place).join("events/syscalls").join(name).exists())
}

fn handle(object: &Object, name: &str) -> anyhow::Result<MapHandle> {
    let map = object.maps().find(|map| map.name() == name);
    let map = map.ok_or_else(|| anyhow!("the sensor's object has no map `{name}`"))?;
    Ok(MapHandle::try_from(&map)?)
}

/// Tracepoints of system calls are known by files of tracefs. Where it is not mounted, this thread
/// mounts it for itself alone, and the host's mounts stay as they are.
fn find_tracefs() -> anyhow::Result<()> {
    let is_there = || has_tracepoint("sys_enter_openat");
    if is_there() {
        return Ok(());
    }
    let none: Option<&str> = None;
    unshare(CloneFlags::CLONE_NEWNS).context("a mount namespace of its own")?;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)?;
    mount(
        Some("tracefs"),
        TRACEFS,
        Some("tracefs"),
        MsFlags::empty(),
        none,
    )
    .context("mounting it")?;
    ensure!(is_there(), "it has no tracepoints of system calls");
    Ok(())
}
