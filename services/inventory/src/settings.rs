//! Settings of containers that are insecure, or left at an insecure default: CIS Docker Benchmark
//! 1.6.0, section 5, as far as a runtime tells of them. Other versions count otherwise: 1.5.0 has no
//! clause on swarm mode at the beginning of the section, so its numbers are one lower.
//!
//! To add a check: a line in [`CHECKS`], and a case in the tests that makes it fire.

use std::net::IpAddr;

use model::{
    Fingerprint, Misconfiguration, Severity,
    runtime::{Container, MountPoint, PortMapping},
};

/// A setting that a container should not have.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Check {
    /// Its name: part of what programs match on.
    pub(crate) id: &'static str,
    /// The clause of the benchmark.
    clause: &'static str,
    title: &'static str,
    severity: Severity,
    remediation: &'static str,
    /// What shows it, where it does.
    finds: fn(&Container) -> Option<String>,
}

/// All of them, by clause.
#[rustfmt::skip]
pub(crate) const CHECKS: &[Check] = &[
    Check {
        id: "root-user", clause: "CIS Docker 4.1", severity: Severity::Medium,
        title: "The container runs as root",
        remediation: "run it as another user: `USER` of the image, `--user`, or `runAsNonRoot`",
        finds: root_user,
    },
    Check {
        id: "apparmor-unconfined", clause: "CIS Docker 5.2", severity: Severity::Medium,
        title: "No AppArmor profile confines the container",
        remediation: "leave the runtime's default profile on, or name one of your own",
        finds: |container| unconfined(container.security.apparmor.as_deref()),
    },
    Check {
        id: "added-capabilities", clause: "CIS Docker 5.4", severity: Severity::High,
        title: "The container has capabilities beyond the default",
        remediation: "drop all capabilities, and add those alone that the program needs",
        finds: added_capabilities,
    },
    Check {
        id: "privileged", clause: "CIS Docker 5.5", severity: Severity::Critical,
        title: "The container is privileged: it may do to the host what root may",
        remediation: "run it without `--privileged`, with the devices and capabilities that it needs",
        finds: |container| container.security.privileged.then(|| "privileged".to_owned()),
    },
    Check {
        id: "sensitive-mount", clause: "CIS Docker 5.6", severity: Severity::High,
        title: "A directory that the host lives on is mounted",
        remediation: "mount the one file that is needed, read-only, or use a volume",
        finds: |container| mounts(container, is_sensitive),
    },
    Check {
        id: "privileged-port", clause: "CIS Docker 5.8", severity: Severity::Low,
        title: "A port of the host below 1024 leads into the container",
        remediation: "publish it at a higher port, behind what listens on the low one",
        finds: |container| ports(container, |port| (1..1024).contains(&port.host_port)),
    },
    Check {
        id: "host-network", clause: "CIS Docker 5.10", severity: Severity::High,
        title: "The container shares the host's network",
        remediation: "give it a network of its own, and publish the ports that it serves",
        finds: |container| container.security.host_network.then(|| "the host's network".to_owned()),
    },
    Check {
        id: "no-memory-limit", clause: "CIS Docker 5.11", severity: Severity::Medium,
        title: "The container may take all memory of the host",
        remediation: "set a limit: `--memory`, or `resources.limits.memory`",
        finds: |container| {
            let limit = container.security.memory_bytes_max;
            limit.is_none().then(|| "no limit of memory".to_owned())
        },
    },
    Check {
        id: "no-cpu-limit", clause: "CIS Docker 5.12", severity: Severity::Low,
        title: "The container may take all processors of the host",
        remediation: "set a limit: `--cpus`, or `resources.limits.cpu`",
        finds: |container| {
            let limit = container.security.cpu_millis_max;
            limit.is_none().then(|| "no limit of processors".to_owned())
        },
    },
    Check {
        id: "writable-root", clause: "CIS Docker 5.13", severity: Severity::Low,
        title: "The container's root file system can be written",
        remediation: "run it with `--read-only` or `readOnlyRootFilesystem`, and volumes for what it writes",
        finds: |container| {
            let is_written = !container.security.read_only_root;
            is_written.then(|| "the root file system can be written".to_owned())
        },
    },
    Check {
        id: "any-interface", clause: "CIS Docker 5.14", severity: Severity::Low,
        title: "A port is published on every interface of the host",
        remediation: "name the address to publish it at: `-p 192.0.2.1:8080:80`",
        finds: |container| ports(container, |port| is_everywhere(&port.host_address)),
    },
    Check {
        id: "restarts-forever", clause: "CIS Docker 5.15", severity: Severity::Low,
        title: "The container is started again without end",
        remediation: "restart it on failure, five times at most: `--restart on-failure:5`",
        finds: restarts_forever,
    },
    Check {
        id: "host-processes", clause: "CIS Docker 5.16", severity: Severity::High,
        title: "The container sees the host's processes",
        remediation: "run it without `--pid host` or `hostPID`",
        finds: |container| container.security.host_pid.then(|| "the host's processes".to_owned()),
    },
    Check {
        id: "host-ipc", clause: "CIS Docker 5.17", severity: Severity::Medium,
        title: "The container shares the host's shared memory",
        remediation: "run it without `--ipc host` or `hostIPC`",
        finds: |container| container.security.host_ipc.then(|| "the host's shared memory".to_owned()),
    },
    Check {
        id: "host-devices", clause: "CIS Docker 5.18", severity: Severity::High,
        title: "Devices of the host are given to the container",
        remediation: "give it no device, or the one that it needs and without the right to make others",
        finds: |container| listed(&container.security.devices),
    },
    Check {
        id: "host-names", clause: "CIS Docker 5.21", severity: Severity::Low,
        title: "The container can change the host's name",
        remediation: "run it without `--uts host`",
        finds: |container| container.security.host_uts.then(|| "the host's names".to_owned()),
    },
    Check {
        id: "seccomp-unconfined", clause: "CIS Docker 5.22", severity: Severity::High,
        title: "No seccomp profile keeps system calls from the container",
        remediation: "leave the runtime's default profile on: no `seccomp=unconfined`, and `RuntimeDefault`",
        finds: |container| unconfined(container.security.seccomp.as_deref()),
    },
    Check {
        id: "gains-privileges", clause: "CIS Docker 5.26", severity: Severity::Medium,
        title: "Processes of the container can gain privileges",
        remediation: "run it with `--security-opt no-new-privileges`, or `allowPrivilegeEscalation: false`",
        finds: |container| {
            let can = container.security.new_privileges;
            can.then(|| "setuid programs give privileges".to_owned())
        },
    },
    Check {
        id: "no-health-check", clause: "CIS Docker 5.27", severity: Severity::Low,
        title: "Nothing checks whether the container works",
        remediation: "give it a health check: `HEALTHCHECK` of the image, or `--health-cmd`",
        finds: |container| {
            let has_none = container.security.health_check == Some(false);
            has_none.then(|| "no health check".to_owned())
        },
    },
    Check {
        id: "floating-tag", clause: "CIS Docker 5.28", severity: Severity::Low,
        title: "The container's image is named by a tag that moves",
        remediation: "name the image by version or digest",
        finds: floating_tag,
    },
    Check {
        id: "no-process-limit", clause: "CIS Docker 5.29", severity: Severity::Medium,
        title: "The container may start processes without end",
        remediation: "set a limit: `--pids-limit`, or `podPidsLimit` of the kubelet",
        finds: |container| {
            let limit = container.security.pids_max;
            limit.is_none().then(|| "no limit of processes".to_owned())
        },
    },
    Check {
        id: "host-users", clause: "CIS Docker 5.31", severity: Severity::Low,
        title: "Root of the container is root of the host",
        remediation: "map users: rootless, `userns-remap`, `--userns auto`, or `hostUsers: false`",
        finds: |container| container.security.host_users.then(|| "the host's users".to_owned()),
    },
    Check {
        id: "runtime-socket", clause: "CIS Docker 5.32", severity: Severity::Critical,
        title: "The container can command its runtime, and so the host",
        remediation: "do not mount the socket of a container runtime; give it a proxy that allows what it needs",
        finds: |container| mounts(container, is_runtime_socket),
    },
];

/// Directories that nothing in a container should see, by name and no matter what is in them.
const SENSITIVE: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/home",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/var",
    "/var/lib",
    "/var/lib/containerd",
    "/var/lib/containers",
    "/var/lib/docker",
    "/var/lib/kubelet",
    "/var/log",
    "/var/run",
    "/etc/kubernetes",
    "/etc/passwd",
    "/etc/shadow",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/root/.ssh",
];

/// Directories of which nothing should be written.
const FIXED: &[&str] = &[
    "/bin/", "/boot/", "/etc/", "/lib/", "/lib64/", "/proc/", "/root/", "/sbin/", "/sys/", "/usr/",
];

const SOCKETS: &[&str] = &[
    "docker.sock",
    "containerd.sock",
    "crio.sock",
    "podman.sock",
    "dockershim.sock",
    "cri-dockerd.sock",
];

/// What Docker, containerd and podman give to a container that asks for nothing.
const DEFAULT_CAPABILITIES: &[&str] = &[
    "CAP_AUDIT_WRITE",
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FOWNER",
    "CAP_FSETID",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETFCAP",
    "CAP_SETGID",
    "CAP_SETPCAP",
    "CAP_SETUID",
    "CAP_SYS_CHROOT",
];

/// Things that are named as evidence of one check.
const SHOWN_MAX: usize = 8;

/// What is wrong with a container, worst first.
pub(crate) fn of(container: &Container) -> Vec<Misconfiguration> {
    let found = CHECKS.iter().filter_map(|check| {
        let evidence = (check.finds)(container)?;
        Some(Misconfiguration {
            id: check.id.to_owned(),
            title: check.title.to_owned(),
            severity: check.severity,
            clauses: vec![check.clause.to_owned()],
            fingerprint: Fingerprint::of(&["container", check.id, &container.id]),
            evidence,
            path: None,
            line: None,
            remediation: check.remediation.to_owned(),
            waived: None,
        })
    });
    let mut found: Vec<Misconfiguration> = found.collect();
    found.sort_by_key(|found| std::cmp::Reverse(found.severity));
    found
}

/// How many checks fire, and how bad the worst of them is.
pub(crate) fn summary(container: &Container) -> (u32, Option<Severity>) {
    let fired = CHECKS.iter().filter(|check| check.fires(container));
    fired.fold((0, None), |(count, worst), check| {
        (count + 1, worst.max(Some(check.severity)))
    })
}

/// Whether the outside world can reach a container over the host: a port is published at more than
/// the host itself, or the host's network is its own.
pub(crate) fn is_exposed(container: &Container) -> bool {
    let is_published = |port: &PortMapping| port.host_port != 0 && !is_loopback(&port.host_address);
    container.security.host_network || container.ports.iter().any(is_published)
}

// === impl Check ===

impl Check {
    /// Whether a container has the setting.
    pub(crate) fn fires(&self, container: &Container) -> bool {
        (self.finds)(container).is_some()
    }
}

fn root_user(container: &Container) -> Option<String> {
    let user = &container.security.user;
    let name = user.split(':').next().unwrap_or_default();
    matches!(name, "" | "0" | "root").then(|| match user.as_str() {
        "" => "no user is named".to_owned(),
        user => format!("user `{user}`"),
    })
}

fn unconfined(profile: Option<&str>) -> Option<String> {
    (profile == Some("unconfined")).then(|| "unconfined".to_owned())
}

/// A privileged container has all of them, which says nothing more.
fn added_capabilities(container: &Container) -> Option<String> {
    let security = &container.security;
    if security.privileged {
        return None;
    }
    let added = security.capabilities.iter().filter(|name| {
        let name = name.to_ascii_uppercase();
        !DEFAULT_CAPABILITIES.contains(&name.as_str())
    });
    listed(&added.cloned().collect::<Vec<_>>())
}

fn restarts_forever(container: &Container) -> Option<String> {
    let policy = container.security.restart.as_deref()?;
    let (name, times) = policy.split_once(':').unwrap_or((policy, ""));
    let is_bounded = times
        .parse::<u32>()
        .is_ok_and(|times| (1..=5).contains(&times));
    let is_endless = match name {
        "always" | "unless-stopped" => true,
        "on-failure" => !is_bounded,
        _ => false,
    };
    is_endless.then(|| format!("restart policy `{policy}`"))
}

/// The name is as it was asked for, so one without a tag means `latest`.
fn floating_tag(container: &Container) -> Option<String> {
    let name = container.image.as_str();
    if name.is_empty() || name.contains('@') || name.starts_with("sha256:") {
        return None;
    }
    let last = name.rsplit('/').next().unwrap_or_default();
    let tag = last.split_once(':').map_or("latest", |(_, tag)| tag);
    // Runtimes name an image that has no name by its id.
    let is_id = last.len() >= 12 && last.bytes().all(|byte| byte.is_ascii_hexdigit());
    (tag == "latest" && !is_id).then(|| format!("`{name}`"))
}

fn mounts(container: &Container, is_bad: fn(&MountPoint) -> bool) -> Option<String> {
    let bad = container.mounts.iter().filter(|mount| is_bad(mount));
    let shown = bad.map(|mount| {
        let how = if mount.writable {
            "writable"
        } else {
            "read-only"
        };
        format!("`{}` at `{}`, {how}", mount.source, mount.target)
    });
    listed(&shown.collect::<Vec<_>>())
}

fn is_sensitive(mount: &MountPoint) -> bool {
    let source = mount.source.as_str();
    let trimmed = match source.trim_end_matches('/') {
        "" => "/",
        trimmed => trimmed,
    };
    let is_written = mount.writable && FIXED.iter().any(|fixed| source.starts_with(fixed));
    is_of_host(mount) && (SENSITIVE.contains(&trimmed) || is_written)
}

fn is_runtime_socket(mount: &MountPoint) -> bool {
    let name = mount.source.rsplit('/').next().unwrap_or_default();
    is_of_host(mount) && SOCKETS.contains(&name)
}

fn is_of_host(mount: &MountPoint) -> bool {
    mount.kind == "bind" && mount.source.starts_with('/')
}

fn ports(container: &Container, is_bad: fn(&PortMapping) -> bool) -> Option<String> {
    let bad = container
        .ports
        .iter()
        .filter(|port| port.host_port != 0 && is_bad(port));
    let shown = bad.map(|port| {
        let PortMapping {
            host_address,
            host_port,
            container_port,
            protocol,
        } = port;
        format!("`{host_address}:{host_port}` to {container_port}/{protocol}")
    });
    listed(&shown.collect::<Vec<_>>())
}

fn is_everywhere(address: &str) -> bool {
    let parsed = address.parse::<IpAddr>();
    address.is_empty() || parsed.is_ok_and(|address| address.is_unspecified())
}

fn is_loopback(address: &str) -> bool {
    let parsed = address.parse::<IpAddr>();
    address == "localhost" || parsed.is_ok_and(|address| address.is_loopback())
}

fn listed(texts: &[String]) -> Option<String> {
    if texts.is_empty() {
        return None;
    }
    let more = texts.len().saturating_sub(SHOWN_MAX);
    let mut shown: Vec<String> = texts.iter().take(SHOWN_MAX).cloned().collect();
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    Some(shown.join(", "))
}

#[cfg(test)]
mod tests;
