//! What a container may do, read from its OCI runtime spec (`config.json`).

use model::runtime::{MountPoint, Security};
use serde_json::Value;

use super::{PARTS_MAX, text};

/// Capabilities that Docker, containerd and CRI-O give where nothing is said.
pub(super) const DEFAULT_CAPABILITIES: &[&str] = &[
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// How many capabilities a process has that has all of them, on the oldest kernel in use.
const ALL_CAPABILITIES: usize = 37;
/// Mounts that runtimes make for every container.
const OF_RUNTIME: &[&str] = &["proc", "sysfs", "devpts", "mqueue", "cgroup", "cgroup2"];
/// Files that runtimes write for every pod or container, into a folder that bears its id.
const WRITTEN_BY_RUNTIME: &[&str] = &["/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// Which namespaces of the host a container is in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a namespace, and all of them are independent"
)]
pub(super) struct OfHost {
    network: bool,
    pid: bool,
    ipc: bool,
    uts: bool,
    users: bool,
}

// === impl OfHost ===

impl OfHost {
    /// What a spec says. Where it joins a namespace that is there already, that is its pod's, which
    /// may be the host's: containerd has containers of a pod of the host's network join the network
    /// of the pod's own container as any other.
    pub(super) fn of(spec: &Value, pod: Option<Self>) -> Self {
        let namespaces = at(spec, "/linux/namespaces").as_array();
        let shares = |kind: &str, is_of_pod: fn(&Self) -> bool| {
            let mut namespaces = namespaces.into_iter().flatten();
            let found = namespaces.find(|namespace| namespace["type"] == kind);
            match (found, &pod) {
                (None, _) => true,
                (Some(found), Some(pod)) => found["path"].is_string() && is_of_pod(pod),
                (Some(_), None) => false,
            }
        };
        Self {
            network: shares("network", |pod| pod.network),
            pid: shares("pid", |pod| pod.pid),
            ipc: shares("ipc", |pod| pod.ipc),
            uts: shares("uts", |pod| pod.uts),
            users: shares("user", |pod| pod.users),
        }
    }
}

/// What a spec says of the container's rights, in its pod if it has one; nothing where the runtime
/// tells no spec.
pub(super) fn security(spec: &Value, pod: Option<OfHost>) -> Security {
    if !spec.is_object() {
        return Security::default();
    }
    let process = &spec["process"];
    let linux = &spec["linux"];
    let names = strings(at(process, "/capabilities/effective"));
    let host = OfHost::of(spec, pod);
    let has_all = names.len() >= ALL_CAPABILITIES;
    let devices = at(linux, "/resources/devices").as_array();
    let all_devices = devices.into_iter().flatten().any(|rule| {
        rule["allow"] == true
            && rule["major"].is_null()
            && rule["access"] == "rwm"
            && rule["type"].as_str().is_none_or(|kind| kind == "a")
    });
    let uid = at(process, "/user/uid").as_u64().unwrap_or(0);
    let gid = at(process, "/user/gid").as_u64().unwrap_or(0);
    let cpu = at(linux, "/resources/cpu");
    let millis = match (cpu["quota"].as_u64(), cpu["period"].as_u64()) {
        (Some(quota), Some(period)) if quota > 0 && period > 0 => {
            quota.saturating_mul(1_000).checked_div(period)
        }
        _ => None,
    };
    let positive = |value: &Value| value.as_u64().filter(|number| *number > 0);
    Security {
        privileged: has_all && all_devices,
        user: format!("{uid}:{gid}"),
        capabilities: names,
        host_network: host.network,
        host_pid: host.pid,
        host_ipc: host.ipc,
        host_uts: host.uts,
        host_users: host.users,
        read_only_root: *at(spec, "/root/readonly") == true,
        new_privileges: process["noNewPrivileges"] != true,
        seccomp: Some(
            if linux["seccomp"].is_object() {
                "default"
            } else {
                "unconfined"
            }
            .into(),
        ),
        apparmor: process["apparmorProfile"].as_str().map(text),
        memory_bytes_max: positive(at(linux, "/resources/memory/limit")),
        pids_max: positive(at(linux, "/resources/pids/limit")),
        cpu_millis_max: millis,
        devices: {
            let devices = linux["devices"].as_array().into_iter().flatten();
            let paths = devices.filter_map(|device| device["path"].as_str());
            paths.take(PARTS_MAX).map(text).collect()
        },
        restart: None,
        health_check: None,
    }
}

/// The mounts of a spec, without those that every container has. The ids are the container's and its
/// pod's.
pub(super) fn mounts(spec: &Value, ids: [&str; 2]) -> Vec<MountPoint> {
    let mounts = spec["mounts"].as_array().into_iter().flatten();
    let kind = |mount: &Value| mount["type"].as_str().unwrap_or("bind").to_owned();
    mounts
        .filter(|mount| !OF_RUNTIME.contains(&kind(mount).as_str()))
        .filter(|mount| mount["destination"] != "/dev" && mount["destination"] != "/dev/shm")
        .filter(|mount| !is_written_by_runtime(mount, ids))
        .take(PARTS_MAX)
        .map(|mount| MountPoint {
            kind: text(&kind(mount)),
            source: text(mount["source"].as_str().unwrap_or_default()),
            target: text(mount["destination"].as_str().unwrap_or_default()),
            writable: !strings(&mount["options"])
                .iter()
                .any(|option| option == "ro"),
        })
        .collect()
}

fn is_written_by_runtime(mount: &Value, ids: [&str; 2]) -> bool {
    let target = mount["destination"].as_str().unwrap_or_default();
    let source = mount["source"].as_str().unwrap_or_default();
    let mut parts = source.split('/').filter(|part| !part.is_empty());
    WRITTEN_BY_RUNTIME.contains(&target) && parts.any(|part| ids.contains(&part))
}

/// What stands at a JSON pointer; null where nothing does.
fn at<'a>(value: &'a Value, pointer: &str) -> &'a Value {
    static NOTHING: Value = Value::Null;
    value.pointer(pointer).unwrap_or(&NOTHING)
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.as_array().into_iter().flatten();
    let texts = list.filter_map(Value::as_str);
    texts.take(PARTS_MAX).map(text).collect()
}
