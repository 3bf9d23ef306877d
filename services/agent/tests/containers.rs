//! Real containers: what podman runs here is what the agent tells. Needs root, podman, runc and a
//! kernel that takes the sensor; without them it says so and passes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::too_many_lines,
    reason = "all of this file is one test, which says why it is skipped"
)]

#[path = "engines/podman.rs"]
mod engine;
#[path = "engines/ground.rs"]
mod ground;

use std::{
    fs,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agent::{Config, Told};
use chassis::Cx;
use model::{
    Digest,
    runtime::{Activity, ContainerState, Exec, ExecutedFile, Origin, RareCall},
};

use crate::{engine::Podman, ground::is_possible};

const DEADLINE: Duration = Duration::from_secs(20);
/// What the image holds, with the libraries of each.
const PROGRAMS: &[&str] = &[
    "/bin/sh",
    "/bin/cp",
    "/bin/chmod",
    "/bin/sleep",
    "/bin/ls",
    "/bin/rm",
    "/bin/mkdir",
];
const IMAGE: &str = "localhost/agent-test:1";
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// podman, with an image that containers are made of and one that nothing runs.
struct Ground {
    podman: Podman,
    _dir: tempfile::TempDir,
}

impl Ground {
    /// `None`, and why on standard output, where there is no podman to test with.
    fn start() -> Option<Self> {
        if !is_possible(&["podman", "runc"]) {
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let podman = Podman::start(dir.path());
        let root = dir.path().join("root/etc");
        fs::create_dir_all(&root).unwrap();
        fs::write(root.join("shadow"), "root:*:1::::::\n").unwrap();
        let folders = ["tmp", "etc", "proc", "sys", "dev"];
        let tar = podman.import(PROGRAMS, &folders, IMAGE);
        let latent = ["import", "-q", "-c", "CMD=sh", tar.to_str().unwrap()];
        podman.run(&[&latent[..], &["localhost/latent:1"]].concat());
        Some(Self { podman, _dir: dir })
    }

    fn config(&self) -> Config {
        let mut config = Config::default();
        config.engines.docker.clear();
        config.engines.containerd.clear();
        config.engines.podman = vec![self.podman.socket()];
        config
    }

    /// Starts a container that sleeps; returns its id.
    fn container(&self, name: &str, options: &[&str]) -> String {
        let command = ["/bin/sleep", "1000"];
        self.podman.container((name, IMAGE), options, &command)
    }

    fn run(&self, arguments: &[&str]) -> String {
        self.podman.run(arguments)
    }

    /// Runs something in a container, whatever becomes of it.
    fn exec(&self, name: &str, script: &str) {
        drop(
            self.podman
                .try_run(&["exec", name, "/bin/sh", "-c", script]),
        );
    }
}

/// Waits until there is a value, and not for ever.
fn wait<T>(mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let end = Instant::now() + DEADLINE;
    loop {
        let found = look();
        if found.is_some() || Instant::now() >= end {
            return found;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// What the agent told.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Told>>>);

impl Heard {
    /// The first event of a container that fits.
    fn find<T>(&self, container: &str, mut fits: impl FnMut(&Activity) -> Option<T>) -> Option<T> {
        wait(|| {
            let heard = self.0.lock().unwrap();
            let own = heard.iter().filter(|told| told.container == container);
            own.map(|told| &told.activity).find_map(&mut fits)
        })
    }

    fn exec(&self, container: &str, mut fits: impl FnMut(&Exec) -> bool) -> Option<Exec> {
        self.find(container, |activity| match activity {
            Activity::Exec(exec) if fits(exec) => Some((**exec).clone()),
            _ => None,
        })
    }

    /// A script that was run, by the end of its path.
    fn script(&self, container: &str, path: &str) -> Option<ExecutedFile> {
        let exec = self.exec(container, |exec| {
            exec.script
                .as_ref()
                .is_some_and(|script| script.path == path)
        });
        exec.and_then(|exec| exec.script)
    }
}

fn digest(path: &str) -> Digest {
    let bytes = chassis::files::read_bounded(Path::new(path), 64 << 20).unwrap();
    Digest::of(&bytes)
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_runs_in_a_container_is_told_with_where_it_comes_from() {
    let Some(podman) = Ground::start() else {
        return;
    };
    let (cx, config, heard) = (Cx::for_tests(), podman.config(), Heard::default());
    // The thread that loads the sensor may get mounts of its own: podman must not run there.
    let matrix = std::thread::spawn({
        let config = config.clone();
        move || agent::probe(&config)
    });
    let matrix = matrix.join().unwrap();
    if matrix.tier != "bpf" {
        println!("skipped: the sensor does not load: {:?}", matrix.missing);
        return;
    }
    // One that ran before the agent, and one that starts under its eyes.
    let before = podman.container("before", &[]);
    let watching = {
        let (cx, config, heard) = (cx.clone(), config.clone(), heard.clone());
        async move {
            agent::watch(&cx, &config, |told| {
                heard.0.lock().unwrap().push(told);
                Ok(())
            })
            .await
            .unwrap();
        }
    };
    cx.spawn("watch", watching);
    let checked = tokio::task::block_in_place(|| {
        std::panic::catch_unwind(AssertUnwindSafe(|| check(&podman, &before, &heard)))
    });
    cx.stop();
    assert!(cx.finish(DEADLINE).await);
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
}

fn check(podman: &Ground, before: &str, heard: &Heard) {
    // The sensor is there as soon as it tells of the older container.
    let seen = wait(|| {
        podman.exec("before", "exec /bin/ls /");
        let heard = heard.0.lock().unwrap();
        heard
            .iter()
            .any(|told| told.container == before)
            .then_some(())
    });
    assert!(
        seen.is_some(),
        "nothing is told of a container that ran before"
    );
    let id = podman.container(
        "after",
        &["--tmpfs", "/scratch:exec", "--cap-add", "SYS_PTRACE"],
    );
    let entry = heard
        .exec(&id, |exec| exec.file.path.ends_with("bin/sleep"))
        .expect("entry point");
    assert_eq!(entry.file.origin, Origin::Lower);
    assert!(
        !entry.injected && entry.args == ["/bin/sleep", "1000"],
        "{entry:?}"
    );
    assert_eq!((entry.uid, entry.script), (0, None));

    podman.exec("after", "cp /bin/ls /tmp/dropped; /tmp/dropped /");
    let exec = heard
        .exec(&id, |exec| exec.file.path == "tmp/dropped")
        .expect("a dropped binary");
    assert_eq!(
        (exec.file.origin, exec.file.digest),
        (Origin::Upper, Some(digest("/bin/ls")))
    );
    let shell = heard
        .exec(&id, |exec| exec.injected)
        .expect("the shell that was put in");
    assert!(shell.file.path.ends_with("bin/sh") || shell.file.path.ends_with("bin/dash"));
    assert!(shell.file.origin == Origin::Lower && shell.file.digest.is_none());

    podman.exec("after", "cp /bin/ls /scratch/t; /scratch/t /");
    let exec = heard
        .exec(&id, |exec| exec.file.path == "scratch/t")
        .expect("from tmpfs");
    assert_eq!(
        (exec.file.origin, exec.file.digest),
        (Origin::Tmpfs, Some(digest("/bin/ls")))
    );
    assert_eq!(exec.file.mount.as_deref(), Some("scratch"));

    podman.exec(
        "after",
        "printf '#!/bin/sh\\n/bin/ls /\\n' >/tmp/s.sh; chmod +x /tmp/s.sh; cd /tmp; ./s.sh",
    );
    let script = heard.script(&id, "tmp/s.sh").expect("a script");
    assert_eq!(script.origin, Origin::Upper);
    assert_eq!(script.digest, Some(Digest::of(b"#!/bin/sh\n/bin/ls /\n")));
    podman.exec(
        "after",
        "printf '/bin/ls /\\n/bin/ls /\\n' >/tmp/plain; cd /etc; sh ../tmp/plain",
    );
    let script = heard
        .script(&id, "tmp/plain")
        .expect("the argument of a shell");
    assert_eq!(script.origin, Origin::Upper);
    podman.exec("after", "echo 'sleep 2' >/tmp/input; sh </tmp/input");
    let script = heard.script(&id, "tmp/input").expect("standard input");
    assert_eq!(
        (script.origin, script.digest),
        (Origin::Upper, Some(Digest::of(b"sleep 2\n")))
    );
    podman.exec("after", &format!("{LOADER} /tmp/dropped /; :"));
    let script = heard
        .script(&id, "tmp/dropped")
        .expect("the argument of the loader");
    assert_eq!(
        (script.origin, script.digest),
        (Origin::Upper, Some(digest("/bin/ls")))
    );

    podman.exec(
        "after",
        "cp /bin/sleep /tmp/u; exec 3</tmp/u; rm /tmp/u; /proc/self/fd/3 2",
    );
    let exec = heard
        .exec(&id, |exec| exec.file.origin == Origin::Unlinked)
        .expect("a deleted file");
    assert_eq!(exec.file.digest, Some(digest("/bin/sleep")));

    // Copied up, and the content is the image's: the digest says so.
    podman.exec("after", "chmod 700 /bin/mkdir; /bin/mkdir /tmp/x");
    let exec = heard
        .exec(&id, |exec| exec.file.path.ends_with("bin/mkdir"))
        .expect("copied up");
    assert_eq!(
        (exec.file.origin, exec.file.digest),
        (Origin::Upper, Some(digest("/bin/mkdir")))
    );

    podman.exec("after", "read line </etc/shadow");
    let opened = heard.find(&id, |activity| match activity {
        Activity::Open(open) if open.path == "etc/shadow" => Some(open.write),
        _ => None,
    });
    assert_eq!(opened, Some(false));
    // The runtime mounts and changes namespaces inside the container's cgroup: that is not told.
    let heard = heard.0.lock().unwrap();
    let calls = heard.iter().filter_map(|told| match &told.activity {
        Activity::Syscall(made) if told.container == id => Some(made.call),
        _ => None,
    });
    let of_runtime = [
        RareCall::Mount,
        RareCall::PivotRoot,
        RareCall::Setns,
        RareCall::Unshare,
    ];
    let told: Vec<_> = calls.filter(|call| of_runtime.contains(call)).collect();
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_inventory_is_what_podman_lists() {
    let Some(podman) = Ground::start() else {
        return;
    };
    let running = podman.container(
        "running",
        &["--label", "team=shop", "--label", "token=0123456789"],
    );
    let limits = [
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=2048:2048",
    ];
    let mut created = vec!["create", "--name", "created", "--network", "none"];
    created.extend(limits);
    created.extend(["localhost/agent-test:1", "/bin/sleep", "1"]);
    podman.run(&created);
    let config = podman.config();
    let node = agent::node::Node::here(&config).unwrap();
    let mut held = agent::look_around(&Cx::for_tests(), &config, &node).await;
    let host = held.images.remove(0);
    assert_eq!(host.runtime, model::runtime::HOST_RUNTIME);
    let lines = |text: String| {
        let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let listed = lines(podman.run(&["ps", "--all", "--no-trunc", "--format", "{{.ID}}"]));
    let mut told: Vec<String> = held
        .containers
        .iter()
        .map(|container| container.id.clone())
        .collect();
    told.sort();
    assert_eq!(told, listed);
    let listed = lines(podman.run(&["images", "--no-trunc", "--quiet"]));
    let mut told: Vec<String> = held
        .images
        .iter()
        .map(|image| image.id.to_string())
        .collect();
    told.sort();
    assert_eq!(told, listed);
    let container = held
        .containers
        .iter()
        .find(|container| container.id == running)
        .unwrap();
    assert_eq!(container.state, ContainerState::Running);
    assert!(
        container.cgroup.as_ref().unwrap().contains(&running),
        "{container:?}"
    );
    assert_eq!(container.labels.keys().collect::<Vec<_>>(), ["team"]);
    assert!(
        container
            .security
            .capabilities
            .contains(&"CAP_CHOWN".to_owned())
    );
    let used: Vec<_> = held
        .containers
        .iter()
        .filter_map(|container| container.image_id)
        .collect();
    let latent: Vec<_> = held
        .images
        .iter()
        .filter(|image| !used.contains(&image.id))
        .collect();
    assert_eq!(latent.len(), 1);
    assert_eq!(latent[0].names, ["localhost/latent:1"]);
}
