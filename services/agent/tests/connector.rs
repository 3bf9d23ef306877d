//! A node without BPF: of programs that end at once it is told all the same, by the process connector
//! and fanotify. Needs root, podman and runc; without them it says so and passes.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "all of this file is one test, which says why it is skipped"
)]

#[path = "engines/podman.rs"]
mod engine;
#[path = "engines/ground.rs"]
mod ground;

use std::{
    collections::HashSet,
    fs,
    os::unix::fs::MetadataExt as _,
    panic::AssertUnwindSafe,
    path::Path,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agent::{Config, Told, config::Tier};
use chassis::Cx;
use model::{
    Digest,
    runtime::{Activity, Exec, Origin},
};

use crate::{
    engine::Podman,
    ground::{is_possible, wait},
};

const DEADLINE: Duration = Duration::from_secs(20);
const PROGRAMS: &[&str] = &[
    "/bin/sh",
    "/bin/cp",
    "/bin/chmod",
    "/bin/rm",
    "/bin/sleep",
    "/bin/true",
];
const IMAGE: &str = "localhost/agent-connector:1";
/// Programs that are started one after the other.
const STARTS: usize = 1_000;

/// What the agent told.
#[derive(Clone, Default)]
struct Heard(Arc<Mutex<Vec<Told>>>);

impl Heard {
    /// Programs of a container, each with its process.
    fn execs(&self, container: &str) -> Vec<(u32, Exec)> {
        let heard = self.0.lock().unwrap();
        let own = heard.iter().filter(|told| told.container == container);
        let execs = own.filter_map(|told| match &told.activity {
            Activity::Exec(exec) => Some((told.process.pid, (**exec).clone())),
            _ => None,
        });
        execs.collect()
    }

    fn exec(&self, container: &str, path: &str) -> Exec {
        wait(path, || {
            let mut execs = self.execs(container).into_iter();
            execs.find(|(_, exec)| exec.file.path.ends_with(path))
        })
        .1
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_bpf_a_program_that_ends_at_once_is_told_with_its_file() {
    if !is_possible(&["podman", "runc"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let podman = Podman::start(dir.path());
    podman.import(PROGRAMS, &["tmp", "etc", "proc", "sys", "dev"], IMAGE);
    let mut config = Config::default();
    config.sensor.tier = Some(Tier::ProcessConnector);
    let matrix = agent::probe(&config);
    let is_seen = matrix.sees.iter().any(|sees| sees == "exec-file");
    if matrix.tier != "process-connector" || !is_seen {
        println!("skipped: {:?}", matrix.missing);
        assert!(matrix.tier == "none" || matrix.missing.contains_key("exec-file"));
        return;
    }
    let (cx, heard) = (Cx::for_tests(), Heard::default());
    cx.spawn("watch", {
        let (cx, heard) = (cx.clone(), heard.clone());
        async move {
            let watched = agent::watch(&cx, &config, |told| {
                heard.0.lock().unwrap().push(told);
                Ok(())
            });
            watched.await.unwrap();
        }
    });
    let checked = tokio::task::block_in_place(|| {
        std::panic::catch_unwind(AssertUnwindSafe(|| {
            each_start_is_told(&podman, dir.path(), &heard);
            a_container_that_ends_at_once_is_seen(&podman, &heard);
        }))
    });
    cx.stop();
    assert!(cx.finish(DEADLINE).await);
    if let Err(panic) = checked {
        std::panic::resume_unwind(panic);
    }
}

fn each_start_is_told(podman: &Podman, dir: &Path, heard: &Heard) {
    let volume = dir.join("volume");
    fs::create_dir(&volume).unwrap();
    let volume = format!("{}:/data", volume.display());
    let options = ["--tmpfs", "/scratch:exec", "--volume", &volume];
    let id = podman.container(("plain", IMAGE), &options, &["/bin/sleep", "1000"]);
    let run = |script: &str| podman.run(&["exec", "plain", "/bin/sh", "-c", script]);
    let entry = heard.exec(&id, "bin/sleep");
    assert!(
        !entry.injected && entry.file.origin == Origin::Lower,
        "{entry:?}"
    );

    let repeat = |path: &str| {
        run(&format!(
            "i=0; while [ $i -lt {STARTS} ]; do {path}; i=$((i+1)); done"
        ));
    };
    repeat("/bin/true");
    run("cp /bin/true /tmp/dropped");
    repeat("/tmp/dropped");
    let of_image = settled(|| told(&heard.execs(&id), "bin/true"));
    let dropped = settled(|| told(&heard.execs(&id), "tmp/dropped"));
    println!("of {STARTS} starts told: {of_image} of the image, {dropped} of what was dropped");
    assert_eq!((of_image, dropped), (STARTS, STARTS));
    let content =
        Digest::of(&chassis::files::read_bounded(Path::new("/bin/true"), 1 << 20).unwrap());
    let is_right = |exec: &Exec| match exec.file.path.as_str() {
        "tmp/dropped" => exec.file.origin == Origin::Upper && exec.file.digest == Some(content),
        "bin/true" => exec.file.origin == Origin::Lower && exec.file.digest.is_none(),
        _ => true,
    };
    let execs = heard.execs(&id);
    let wrong: Vec<_> = execs.iter().filter(|(_, exec)| !is_right(exec)).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
    // Who started it is known, though neither it nor who started it is there any more.
    let shells: HashSet<u32> = execs
        .iter()
        .filter(|(_, exec)| exec.file.path.ends_with("bin/sh"))
        .map(|(pid, _)| *pid)
        .collect();
    let children = execs
        .iter()
        .filter(|(_, exec)| exec.file.path == "tmp/dropped");
    let orphans = children.filter(|(_, exec)| !shells.contains(&exec.parent.pid) || exec.injected);
    assert_eq!(orphans.count(), 0);

    let from = |path: &str| {
        run(&format!("cp /bin/true /{path}; /{path}"));
        let file = heard.exec(&id, path).file;
        assert_eq!((file.digest, &*file.path), (Some(content), path));
        (file.origin, file.mount)
    };
    assert_eq!(
        from("scratch/t"),
        (Origin::Tmpfs, Some("scratch".to_owned()))
    );
    assert_eq!(from("data/v"), (Origin::Other, Some("data".to_owned())));
    run("cp /bin/true /tmp/u; exec 3</tmp/u; rm /tmp/u; /proc/self/fd/3");
    assert_eq!(heard.exec(&id, "tmp/u").file.origin, Origin::Unlinked);
    for (name, text) in [("s", "#!/bin/sh\n"), ("plain", ":\n")] {
        run(&format!(
            "printf '{text}' >/tmp/{name}; chmod +x /tmp/{name}; /tmp/{name}"
        ));
        let script = wait(name, || {
            let execs = heard.execs(&id).into_iter();
            let mut scripts = execs.filter_map(|(_, exec)| exec.script);
            scripts.find(|script| script.path == format!("tmp/{name}"))
        });
        let expected = (Origin::Upper, Some(Digest::of(text.as_bytes())));
        assert_eq!((script.origin, script.digest), expected);
    }
    scripts_that_become_programs_are_told(&run, &id, heard);
    marks_go_with_their_container(podman, "plain");
}

/// What comes next is opened before it is told that the script started.
fn scripts_that_become_programs_are_told(run: &impl Fn(&str) -> String, id: &str, heard: &Heard) {
    const SCRIPTS: usize = 100;
    run(
        "cp /bin/true /tmp/next; printf '#!/bin/sh\\nexec /tmp/next\\n' >/tmp/becomes; \
         chmod +x /tmp/becomes",
    );
    run(&format!(
        "i=0; while [ $i -lt {SCRIPTS} ]; do /tmp/becomes; i=$((i+1)); done"
    ));
    let count = |is_it: &dyn Fn(&Exec) -> bool| {
        let execs = heard.execs(id);
        execs.iter().filter(|(_, exec)| is_it(exec)).count()
    };
    let is_script = |exec: &Exec| {
        let script = exec.script.as_ref();
        script.is_some_and(|script| script.path == "tmp/becomes")
    };
    let scripts = settled(|| count(&is_script));
    let next = settled(|| count(&|exec| exec.file.path == "tmp/next"));
    println!("of {SCRIPTS} scripts that become programs told: {scripts}, and {next} of these");
    // On a machine that is busy one may be taken for the other.
    assert!(scripts >= SCRIPTS * 9 / 10 && next >= SCRIPTS * 9 / 10);
}

/// A number that does not change any more.
fn settled(look: impl Fn() -> usize) -> usize {
    let (mut last, mut since) = (look(), Instant::now());
    while since.elapsed() < Duration::from_secs(3) {
        std::thread::sleep(Duration::from_millis(50));
        let found = look();
        if found != last {
            (last, since) = (found, Instant::now());
        }
    }
    last
}

/// Different processes that ran a file.
fn told(execs: &[(u32, Exec)], path: &str) -> usize {
    let of_file = execs.iter().filter(|(_, exec)| exec.file.path == path);
    let pids: HashSet<u32> = of_file.clone().map(|(pid, _)| *pid).collect();
    assert_eq!(pids.len(), of_file.count(), "one start is told once");
    pids.len()
}

/// Whether this process has the kernel tell of a file system.
fn is_marked(device: u64) -> bool {
    // As the kernel writes it: major and minor.
    let number = (device >> 8 & 0xfff) << 20 | device & 0xff | device >> 12 & 0xf_ff00;
    let line = format!("fanotify sdev:{number:x} ");
    let entries = fs::read_dir("/proc/self/fdinfo").unwrap().flatten();
    let mut lists =
        entries.filter_map(|entry| chassis::files::read_text_bounded(&entry.path(), 1 << 20).ok());
    lists.any(|list| list.contains(&line))
}

fn marks_go_with_their_container(podman: &Podman, name: &str) {
    let pid = podman.run(&["inspect", "--format", "{{.State.Pid}}", name]);
    let device = fs::metadata(format!("/proc/{pid}/root/")).unwrap().dev();
    assert!(is_marked(device));
    podman.run(&["rm", "--force", "--time", "0", name]);
    wait("the end of a mark", || (!is_marked(device)).then_some(()));
}

fn a_container_that_ends_at_once_is_seen(podman: &Podman, heard: &Heard) {
    let script = "cp /bin/true /tmp/brief; /tmp/brief; /tmp/brief";
    let id = podman.container(("brief", IMAGE), &["--rm"], &["/bin/sh", "-c", script]);
    let exec = heard.exec(&id, "tmp/brief");
    assert_eq!(exec.file.origin, Origin::Upper);
}
