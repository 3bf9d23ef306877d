use model::runtime::Security;
use serde_json::json;

use super::*;

/// A container with which nothing is wrong.
fn hardened() -> Container {
    serde_json::from_value(json!({
        "id": "c1", "runtime": "podman", "image": "r.example/app:1.2", "state": "running",
        "ports": [{"host_address": "127.0.0.1", "host_port": 8080, "container_port": 80, "protocol": "tcp"}],
        "mounts": [
            {"kind": "volume", "source": "data", "target": "/data", "writable": true},
            {"kind": "bind", "source": "/etc/localtime", "target": "/etc/localtime", "writable": false},
            {"kind": "bind", "source": "/srv/app", "target": "/srv", "writable": true},
            {"kind": "proc", "source": "proc", "target": "/proc", "writable": true},
        ],
        "security": {
            "user": "1000:1000", "capabilities": ["CAP_NET_BIND_SERVICE"], "read_only_root": true,
            "seccomp": "default", "apparmor": "docker-default", "memory_bytes_max": 1_000_000,
            "pids_max": 100, "cpu_millis_max": 500, "restart": "on-failure:5", "health_check": true,
        },
    }))
    .unwrap()
}

fn with(change: impl FnOnce(&mut Security)) -> Container {
    let mut container = hardened();
    change(&mut container.security);
    container
}

fn mounting(source: &str, writable: bool) -> Container {
    let mut container = hardened();
    container.mounts.push(MountPoint {
        kind: "bind".to_owned(),
        source: source.to_owned(),
        target: "/mnt".to_owned(),
        writable,
    });
    container
}

fn publishing(address: &str, port: u16) -> Container {
    let mut container = hardened();
    container.ports.push(PortMapping {
        host_address: address.to_owned(),
        host_port: port,
        container_port: 80,
        protocol: "tcp".to_owned(),
    });
    container
}

fn of_image(name: &str) -> Container {
    Container {
        image: name.to_owned(),
        ..hardened()
    }
}

fn fired(container: &Container) -> Vec<&'static str> {
    let fired = CHECKS.iter().filter(|check| check.fires(container));
    fired.map(|check| check.id).collect()
}

/// For each check what it fires at, and it alone; and what is close to that and fine.
#[expect(clippy::too_many_lines, reason = "a table: one case per check")]
fn cases() -> Vec<(&'static str, Vec<Container>, Vec<Container>)> {
    vec![
        (
            "root-user",
            ["", "0", "root", "0:1000"]
                .map(|user| with(|at| at.user = user.to_owned()))
                .into(),
            ["1", "nobody", "10:0"]
                .map(|user| with(|at| at.user = user.to_owned()))
                .into(),
        ),
        (
            "apparmor-unconfined",
            vec![with(|at| at.apparmor = Some("unconfined".to_owned()))],
            vec![with(|at| at.apparmor = None)],
        ),
        (
            "added-capabilities",
            vec![
                with(|at| at.capabilities.push("CAP_SYS_ADMIN".to_owned())),
                with(|at| at.capabilities.push("cap_net_admin".to_owned())),
            ],
            vec![with(|at| at.capabilities.push("CAP_CHOWN".to_owned()))],
        ),
        (
            "privileged",
            vec![with(|at| {
                at.privileged = true;
                at.capabilities.push("CAP_SYS_ADMIN".to_owned());
            })],
            vec![hardened()],
        ),
        (
            "sensitive-mount",
            vec![
                mounting("/", false),
                mounting("/etc/", false),
                mounting("/proc", true),
                mounting("/etc/cron.d", true),
                mounting("/etc/shadow", false),
                mounting("/var/lib/kubelet", true),
            ],
            vec![
                mounting("/etc/ssl/certs", false),
                mounting("/etcetera", true),
                mounting("/var/lib/kubelet/pods/1/etc-hosts", true),
            ],
        ),
        (
            "privileged-port",
            vec![publishing("127.0.0.1", 1), publishing("127.0.0.1", 1023)],
            vec![publishing("127.0.0.1", 0), publishing("127.0.0.1", 1024)],
        ),
        (
            "host-network",
            vec![with(|at| at.host_network = true)],
            vec![hardened()],
        ),
        (
            "no-memory-limit",
            vec![with(|at| at.memory_bytes_max = None)],
            vec![hardened()],
        ),
        (
            "no-cpu-limit",
            vec![with(|at| at.cpu_millis_max = None)],
            vec![hardened()],
        ),
        (
            "writable-root",
            vec![with(|at| at.read_only_root = false)],
            vec![hardened()],
        ),
        (
            "any-interface",
            ["", "0.0.0.0", "::"]
                .map(|address| publishing(address, 8081))
                .into(),
            vec![publishing("192.0.2.1", 8081), publishing("0.0.0.0", 0)],
        ),
        (
            "restarts-forever",
            ["always", "unless-stopped", "on-failure", "on-failure:6"]
                .map(|name| with(|at| at.restart = Some(name.to_owned())))
                .into(),
            vec![
                with(|at| at.restart = None),
                with(|at| at.restart = Some("no".to_owned())),
                with(|at| at.restart = Some("on-failure:1".to_owned())),
            ],
        ),
        (
            "host-processes",
            vec![with(|at| at.host_pid = true)],
            vec![hardened()],
        ),
        (
            "host-ipc",
            vec![with(|at| at.host_ipc = true)],
            vec![hardened()],
        ),
        (
            "host-devices",
            vec![with(|at| at.devices.push("/dev/sda".to_owned()))],
            vec![hardened()],
        ),
        (
            "host-names",
            vec![with(|at| at.host_uts = true)],
            vec![hardened()],
        ),
        (
            "seccomp-unconfined",
            vec![with(|at| at.seccomp = Some("unconfined".to_owned()))],
            vec![with(|at| at.seccomp = None)],
        ),
        (
            "gains-privileges",
            vec![with(|at| at.new_privileges = true)],
            vec![hardened()],
        ),
        (
            "no-health-check",
            vec![with(|at| at.health_check = Some(false))],
            vec![with(|at| at.health_check = None)],
        ),
        (
            "floating-tag",
            ["app", "r.example:5000/app", "r.example/app:latest"]
                .map(of_image)
                .into(),
            vec![
                of_image(""),
                of_image("r.example/app@sha256:00"),
                of_image("sha256:00"),
                of_image("0123456789ab"),
                of_image("app:2"),
            ],
        ),
        (
            "no-process-limit",
            vec![with(|at| at.pids_max = None)],
            vec![hardened()],
        ),
        (
            "host-users",
            vec![with(|at| at.host_users = true)],
            vec![hardened()],
        ),
        (
            "runtime-socket",
            vec![
                mounting("/var/run/docker.sock", false),
                mounting("/run/containerd/containerd.sock", true),
            ],
            vec![mounting("/srv/app.sock", true)],
        ),
    ]
}

#[test]
fn each_check_fires_alone_and_is_silent_where_nothing_is_wrong() {
    assert_eq!(fired(&hardened()), [""; 0]);
    let cases = cases();
    for (id, bad, fine) in &cases {
        for container in bad {
            assert_eq!(fired(container), [*id], "{container:?}");
        }
        for container in fine {
            assert_eq!(fired(container), [""; 0], "{id}: {container:?}");
        }
    }
    let tested: Vec<&str> = cases.iter().map(|(id, ..)| *id).collect();
    let all: Vec<&str> = CHECKS.iter().map(|check| check.id).collect();
    assert_eq!(tested, all, "every check has its case");
}

#[test]
fn a_container_with_default_settings_is_told_of_worst_first() {
    let mut container = mounting("/var/run/docker.sock", true);
    container.security = Security::default();
    let found = of(&container);
    let ids: Vec<&str> = found.iter().map(|found| found.id.as_str()).collect();
    assert_eq!(
        ids,
        [
            "runtime-socket",
            "root-user",
            "no-memory-limit",
            "no-process-limit",
            "no-cpu-limit",
            "writable-root"
        ]
    );
    assert_eq!(
        found[0].evidence,
        "`/var/run/docker.sock` at `/mnt`, writable"
    );
    assert_eq!(found[0].clauses, ["CIS Docker 5.32"]);
    assert_eq!(summary(&container), (6, Some(Severity::Critical)));
    assert_eq!(summary(&hardened()), (0, None));
}

#[test]
fn evidence_is_bounded() {
    let many = (0..100).map(|n| format!("/dev/{n}"));
    let container = with(|at| at.devices = many.collect());
    let found = of(&container);
    assert!(found[0].evidence.ends_with(", and 92 more"), "{found:?}");
}

#[test]
fn what_the_host_alone_can_reach_is_not_exposed() {
    assert!(!is_exposed(&hardened()));
    assert!(!is_exposed(&publishing("::1", 8081)));
    assert!(!is_exposed(&publishing("", 0)), "it is not published");
    assert!(is_exposed(&publishing("", 8081)));
    assert!(is_exposed(&publishing("192.0.2.1", 8081)));
    assert!(is_exposed(&with(|at| at.host_network = true)));
}
