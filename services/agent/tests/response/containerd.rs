//! Replaced by containerd: a fresh container of the same layers answers, however often the agent is
//! killed meanwhile; and the mark of one in quarantine.

use std::{
    fs,
    sync::{Arc, Mutex},
    time::Duration,
};

use agent::{Config, Told, node::Node};
use chassis::Cx;
use model::runtime::{Action, Activity, ContainerState, ExecutedFile, HOST_RUNTIME, Phase};
use serde_json::Value;

use crate::{
    containerd_engine::Containerd,
    ground::wait,
    yard::{Yard, read},
};

/// Answers who asks by a file, with something of its environment.
const SERVE: &str = "while :; do if [ -e /shared/ask ]; then rm /shared/ask; echo \"$GREETING\" >/shared/answer; fi; sleep 0.05; done";
/// After so many milliseconds from the order on the agent is killed.
const AFTER_MS: [u64; 5] = [0, 20, 60, 120, 250];

fn id(number: usize) -> String {
    format!("{number:064x}")
}

fn info(containerd: &Containerd, id: &str) -> Value {
    let text = containerd.run(&["containers", "info", id]);
    serde_json::from_str(&text).unwrap()
}

fn is_frozen(containerd: &Containerd, id: &str) -> bool {
    let dir = containerd.cgroup(id);
    dir.is_some_and(|dir| read(&dir.join("cgroup.events")).contains("frozen 1"))
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_makes_another_one_of_the_same_layers_however_often_the_agent_is_killed() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    let programs = ["/bin/sh", "/bin/rm", "/bin/sleep", "/bin/cp"];
    let Some(containerd) = Containerd::start("default", &programs) else {
        return;
    };
    yard.configure(Some(&containerd.socket()));
    yard.launch();
    let shared = yard.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let mount = format!(
        "type=bind,src={},dst=/shared,options=rbind:rw",
        shared.display()
    );
    let options = [
        "--mount",
        &mount,
        "--env",
        "GREETING=hello",
        "--label",
        "team=shop",
    ];
    let old = id(1);
    containerd.container(&old, &options, &["/bin/sh", "-c", SERVE]);
    let ask = || {
        drop(fs::remove_file(shared.join("answer")));
        fs::write(shared.join("ask"), "").unwrap();
        wait("an answer", || {
            Some(read(&shared.join("answer"))).filter(|text| text.ends_with('\n'))
        })
    };
    assert_eq!(ask(), "hello\n");
    let before = info(&containerd, &old);

    // Its mark, where it is in quarantine.
    let quarantine = yard
        .order(&old, Action::Quarantine { allow: Vec::new() })
        .await;
    let told = yard.until(&quarantine, Phase::Done).await;
    assert!(told.detail.unwrap().contains("io.tidewaiter.quarantine"));
    let marked = info(&containerd, &old);
    assert_eq!(marked["Labels"]["io.tidewaiter.quarantine"], "true");
    assert_eq!(marked["Labels"]["team"], "shop");
    yard.release(&old).await;
    yard.until(&quarantine, Phase::Lifted).await;
    assert_eq!(info(&containerd, &old)["Labels"], before["Labels"]);

    let replace = yard.order(&old, Action::Replace).await;
    let done = yard.until(&replace, Phase::Done).await;
    let fresh = done.after.unwrap();
    assert_ne!(fresh, old);
    assert_eq!(ask(), "hello\n", "the fresh one answers");
    assert!(is_frozen(&containerd, &old) && !is_frozen(&containerd, &fresh));
    let after = info(&containerd, &fresh);
    assert_eq!(
        after["Labels"]["io.tidewaiter.replaces"],
        Value::from(&*old)
    );
    assert_eq!(after["Labels"]["team"], "shop");
    for pointer in [
        "/Image",
        "/Runtime",
        "/Snapshotter",
        "/Spec/process",
        "/Spec/mounts",
        "/Spec/linux/namespaces",
        "/Spec/linux/resources",
    ] {
        assert_eq!(after.pointer(pointer), before.pointer(pointer), "{pointer}");
    }
    let group = after["Spec"]["linux"]["cgroupsPath"].as_str().unwrap();
    assert!(group.contains(&fresh) && !group.contains(&old), "{group}");
    let parent = |key: &str| -> Value {
        let shown = containerd.run(&["snapshots", "--snapshotter", "native", "info", key]);
        let shown: Value = serde_json::from_str(&shown).unwrap();
        shown["Parent"].clone()
    };
    assert!(parent(&old).as_str().unwrap().starts_with("sha256:"));
    assert_eq!(parent(&fresh), parent(&old));

    yard.release(&old).await;
    let lifted = yard.until(&replace, Phase::Lifted).await;
    println!("{:?}", lifted.detail);
    assert_eq!(ask(), "hello\n");
    let tasks = containerd.run(&["tasks", "ls"]);
    let line = tasks.lines().find(|line| line.starts_with(&old)).unwrap();
    assert!(line.contains("STOPPED"), "{tasks}");
}

#[tokio::test(flavor = "multi_thread")]
async fn containerd_makes_one_and_no_more_whenever_the_agent_is_killed() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    let Some(containerd) = Containerd::start("default", &["/bin/sleep"]) else {
        return;
    };
    yard.configure(Some(&containerd.socket()));
    yard.launch();
    let mut known = 0;
    for (round, after) in AFTER_MS.into_iter().enumerate() {
        let old = id(0xa0 + round);
        containerd.container(&old, &[], &["/bin/sleep", "1000"]);
        let response = yard.order(&old, Action::Replace).await;
        tokio::time::sleep(Duration::from_millis(after)).await;
        yard.kill();
        yard.launch();
        let done = yard.until(&response, Phase::Done).await;
        let fresh = done.after.unwrap();
        known += 2;
        let all = containerd.run(&["containers", "ls", "-q"]);
        assert_eq!(all.lines().count(), known, "after {after} ms: {all}");
        assert!(all.lines().any(|id| id == fresh));
        assert!(is_frozen(&containerd, &old));
        let tasks = containerd.run(&["tasks", "ls"]);
        let line = tasks.lines().find(|line| line.starts_with(&fresh)).unwrap();
        assert!(line.contains("RUNNING"), "{tasks}");
        assert_eq!(yard.times(&response, Phase::Done), 1);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_containerd_cannot_make_again_is_refused_and_left_alone() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    let Some(containerd) = Containerd::start("default", &["/bin/sleep"]) else {
        return;
    };
    yard.configure(Some(&containerd.socket()));
    yard.launch();
    let cases: [(&[&str], &str); 2] = [
        (&["--net-host"], "network"),
        (&["--label", "nerdctl/namespace=default"], "nerdctl"),
    ];
    for (number, (options, expected)) in cases.into_iter().enumerate() {
        let old = id(0xb0 + number);
        containerd.container(&old, options, &["/bin/sleep", "1000"]);
        let response = yard.order(&old, Action::Replace).await;
        let refused = yard.until(&response, Phase::Refused).await;
        let why = refused.refusal.unwrap().to_string();
        assert!(why.contains(expected), "{why}");
        assert!(!is_frozen(&containerd, &old));
    }
}

/// Drops a program and runs it when it is told to, and says whether it can speak.
const DROPS: &str = "while [ ! -e /shared/go ]; do sleep 0.05; done; cp /bin/sleep /tmp/dropped; \
                     printf x >>/tmp/dropped; /tmp/dropped 1; rm /shared/go; while :; do \
                     if (exec 3<>/dev/tcp/127.0.0.1/PORT) 2>/dev/null; then r=yes; else r=no; fi; \
                     echo $r >/shared/speaks; sleep 0.05; done";

/// What runs in a container, as a sensor tells it that knows of containerd alone.
fn watched(config: &Config) -> Option<(Cx, Arc<Mutex<Vec<Told>>>)> {
    let matrix = std::thread::spawn({
        let config = config.clone();
        move || agent::probe(&config)
    });
    let matrix = matrix.join().unwrap();
    if matrix.tier != "bpf" {
        println!("skipped: the sensor does not load: {:?}", matrix.missing);
        return None;
    }
    let (cx, heard) = (Cx::for_tests(), Arc::new(Mutex::new(Vec::new())));
    let (watching, config, told) = (cx.clone(), config.clone(), Arc::clone(&heard));
    cx.spawn("watch", async move {
        agent::watch(&watching, &config, |one| {
            told.lock().unwrap().push(one);
            Ok(())
        })
        .await
        .unwrap();
    });
    Some((cx, heard))
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_node_with_containerd_alone_a_container_is_known_watched_and_cut_off() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    let programs = ["/bin/bash", "/bin/sleep", "/bin/cp", "/bin/rm"];
    let Some(containerd) = Containerd::start("default", &programs) else {
        return;
    };
    let mut config = Config::default();
    config.engines.docker.clear();
    config.engines.podman.clear();
    config.engines.cri.clear();
    config.engines.containerd = vec![containerd.socket()];
    let Some((cx, heard)) = watched(&config) else {
        return;
    };
    let shared = yard.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let mount = format!(
        "type=bind,src={},dst=/shared,options=rbind:rw",
        shared.display()
    );
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    std::thread::spawn(move || listener.incoming().for_each(drop));
    let own = id(0xc0);
    let options = ["--net-host", "--mount", &mount];
    let line = DROPS.replace("PORT", &port);
    containerd.container(&own, &options, &["/bin/bash", "-c", &line]);

    // Known: the container, and the image that it is of.
    let node = Node::here(&config).unwrap();
    let held = agent::look_around(&cx, &config, &node).await;
    let [container] = held.containers.as_slice() else {
        panic!("one container, not {:?}", held.containers);
    };
    assert_eq!(
        (container.id.as_str(), container.state),
        (own.as_str(), ContainerState::Running)
    );
    let mut images = held.images.iter();
    let image = images.find(|image| image.runtime != HOST_RUNTIME).unwrap();
    assert_eq!(container.image_id, Some(image.id));

    // Watched: what it drops is told with its content, which its image does not hold.
    fs::write(shared.join("go"), "").unwrap();
    let is_dropped = |told: &Told| -> Option<ExecutedFile> {
        let Activity::Exec(exec) = &told.activity else {
            return None;
        };
        let is_it = told.container == own && exec.file.path.ends_with("tmp/dropped");
        is_it.then(|| exec.file.clone())
    };
    let file = wait("the dropped program", || {
        heard.lock().unwrap().iter().find_map(is_dropped)
    });
    assert!(file.digest.is_some(), "{file:?}");
    cx.stop();
    assert!(cx.finish(Duration::from_secs(20)).await);

    // Cut off, by an agent that knows no other engine.
    let says = |wanted: &str| {
        wait("whether it speaks", || {
            (read(&shared.join("speaks")).trim() == wanted).then_some(())
        });
    };
    says("yes");
    yard.configure(Some(&containerd.socket()));
    let text = read(&yard.config());
    let podman = text.lines().find(|line| line.trim().starts_with("podman:"));
    let text = text.replace(podman.unwrap(), "  podman: []");
    fs::write(yard.config(), text).unwrap();
    yard.launch();
    let cut = yard
        .order(&own, Action::Quarantine { allow: Vec::new() })
        .await;
    yard.until(&cut, Phase::Done).await;
    says("no");
    yard.release(&own).await;
    yard.until(&cut, Phase::Lifted).await;
    says("yes");
}
