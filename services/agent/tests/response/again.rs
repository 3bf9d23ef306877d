//! A container that is started again gets another cgroup, and stays what it was.

use std::{
    fs,
    io::Read as _,
    net::TcpListener,
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use model::runtime::{Action, Phase, ResponseReported, StartGate};

use crate::{
    ground::wait,
    yard::{Yard, guards, lasting, read},
};

/// A container that speaks with the first thing it does, and says where it has come to.
const SPEAKER: &str = "echo began >>/shared/steps; (exec 3<>/dev/tcp/127.0.0.1/PORT && \
                       echo spoke >&3) 2>/dev/null; echo tried >>/shared/steps; exec sleep 1000";

/// Counts who connected and said something.
fn count() -> (u16, Arc<AtomicU32>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let count = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&count);
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut bytes = [0; 16];
            if stream.read(&mut bytes).is_ok_and(|read| read > 0) {
                counted.fetch_add(1, Ordering::SeqCst);
            }
        }
    });
    (port, count)
}

/// Whether it was put into force so many times after the first.
fn is_again(one: &ResponseReported, id: &model::runtime::ResponseId, times: u32) -> bool {
    let detail = one.detail.as_deref().unwrap_or_default();
    one.response.as_ref() == Some(id)
        && one.phase == Phase::Done
        && one.attempt == times
        && detail.starts_with("the container was started again: ")
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_cut_off_does_not_speak_when_it_is_started_again() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let (port, spoke) = count();
    let shared = yard.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/shared", shared.display());
    let line = SPEAKER.replace("PORT", &port.to_string());
    let id = yard.container(
        "web",
        &["--network", "host", "--volume", &volume],
        &["/bin/bash", "-c", &line],
    );
    let tried = |times: usize| {
        wait("its first steps", || {
            let steps = read(&shared.join("steps"));
            (steps.matches("tried").count() == times).then_some(())
        });
    };
    tried(1);
    wait("its first word", || {
        (spoke.load(Ordering::SeqCst) == 1).then_some(())
    });
    let cut = yard
        .order(&id, Action::Quarantine { allow: Vec::new() })
        .await;
    yard.until(&cut, Phase::Done).await;
    for times in 1..=3 {
        yard.podman(&["restart", "--time", "0", "web"]);
        yard.until_heard("cut off again", |one| is_again(one, &cut, times))
            .await;
        tried(1 + times as usize);
    }
    // The agent is dead: it waits for one, and does not speak.
    yard.kill();
    yard.podman(&["restart", "--time", "0", "web"]);
    wait("it stands still", || yard.is_frozen(&id).then_some(()));
    let steps = read(&shared.join("steps"));
    assert_eq!(steps.matches("began").count(), 4, "it ran: {steps}");
    yard.launch();
    yard.until_heard("cut off again", |one| is_again(one, &cut, 4))
        .await;
    tried(5);
    assert_eq!(spoke.load(Ordering::SeqCst), 1, "it spoke");

    // Stopped, it is not forgotten; removed, it is over.
    yard.podman(&["stop", "--time", "0", "web"]);
    yard.podman(&["start", "web"]);
    yard.until_heard("cut off again", |one| is_again(one, &cut, 5))
        .await;
    tried(6);
    assert_eq!(spoke.load(Ordering::SeqCst), 1, "it spoke");
    assert_eq!(yard.times(&cut, Phase::Lifted), 0);
    yard.podman(&["rm", "--force", "--time", "0", "web"]);
    let over = yard.until(&cut, Phase::Lifted).await.detail.unwrap();
    assert!(over.contains("the container is gone"), "{over}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_paused_or_blocked_stays_so_when_it_is_started_again() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let id = yard.sleeper("web");
    let (done, text) = yard.exec("web", "cp /bin/true /tmp/dropped; printf x >>/tmp/dropped");
    assert!(done, "{text}");
    let block = yard.order(&id, Action::Block).await;
    yard.until(&block, Phase::Done).await;
    yard.podman(&["restart", "--time", "0", "web"]);
    yard.until_heard("blocked again", |one| is_again(one, &block, 1))
        .await;
    assert!(!yard.exec("web", "/tmp/dropped").0);
    let (done, text) = yard.exec("web", "/bin/true");
    assert!(done, "{text}");

    let pause = yard.order(&id, Action::Pause).await;
    yard.until(&pause, Phase::Done).await;
    yard.podman(&["restart", "--time", "0", "web"]);
    yard.until_heard("paused again", |one| is_again(one, &pause, 1))
        .await;
    assert!(yard.is_frozen(&id));
    yard.release(&id).await;
    yard.until(&pause, Phase::Lifted).await;
    wait("it goes on", || (!yard.is_frozen(&id)).then_some(()));
    let (done, text) = yard.exec("web", "/tmp/dropped");
    assert!(done, "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_the_kernel_does_not_ask_it_is_put_back_a_moment_later() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    let config = format!("{}  runtimes: []\n", read(&yard.config()));
    fs::write(yard.config(), config).unwrap();
    yard.launch();
    let id = yard.sleeper("web");
    let mut ids = Vec::new();
    for action in lasting() {
        let response = yard.order(&id, action).await;
        yard.until(&response, Phase::Done).await;
        ids.push(response);
    }
    yard.podman(&["restart", "--time", "0", "web"]);
    for response in &ids {
        yard.until_heard("it again", |one| is_again(one, response, 1))
            .await;
    }
    assert!(yard.is_frozen(&id));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_that_dies_leaves_nothing_standing_still() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let gate = StartGate {
        mode: model::runtime::Mode::Enforced,
        denied: vec![model::runtime::DeniedImage {
            digest: model::Digest::of(b"none"),
            decision: model::Decision::Deny,
            reason: String::new(),
        }],
        refuses_unknown: false,
        allowed: Vec::new(),
    };
    yard.gate(Some(gate)).await;
    let guard = wait("the gate", || guards(&yard.own_dir()).first().copied());
    let signal = |name: &str, pid: u32| {
        let sent = Command::new("kill").args([name, &pid.to_string()]).status();
        assert!(sent.unwrap().success());
    };
    // Nobody answers, so it is held; and then nobody is there who knows that it is.
    yard.sleeper("before");
    signal("-STOP", yard.agent());
    let id = yard.sleeper("web");
    assert!(yard.is_frozen(&id), "it is not held");
    signal("-KILL", guard);
    signal("-CONT", yard.agent());
    wait("it goes on", || (!yard.is_frozen(&id)).then_some(()));

    // The agent, too, and no gate is left when it comes back.
    let guard = wait("another guard", || guards(&yard.own_dir()).first().copied());
    yard.sleeper("between");
    yard.kill();
    let id = yard.sleeper("again");
    assert!(yard.is_frozen(&id), "it is not held");
    signal("-KILL", guard);
    yard.gate(None).await;
    yard.launch();
    wait("it goes on", || (!yard.is_frozen(&id)).then_some(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_lifted_yet_is_tried_again_by_an_agent_that_goes_on() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let name = format!("tidewaiter-test-{}", std::process::id());
    let parent = format!("/{name}");
    let id = yard.container(
        "web",
        &["--cgroup-parent", &parent],
        &["/bin/sleep", "1000"],
    );
    let above = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"]
        .map(|root| std::path::Path::new(root).join(&name))
        .into_iter()
        .find(|dir| dir.join("cgroup.freeze").exists())
        .unwrap();
    let pause = yard.order(&id, Action::Pause).await;
    yard.until(&pause, Phase::Done).await;
    // Somebody froze what it is in: it does not go on, whoever lets it.
    fs::write(above.join("cgroup.freeze"), "1").unwrap();
    yard.release(&id).await;
    let failed = yard.until(&pause, Phase::Failed).await.detail.unwrap();
    assert!(failed.contains("it is not lifted yet"), "{failed}");
    fs::write(above.join("cgroup.freeze"), "0").unwrap();
    yard.until(&pause, Phase::Lifted).await;
    assert!(read(&yard.log()).contains("cannot be lifted yet"));
    yard.podman(&["rm", "--force", "--time", "0", "web"]);
    let trees = fs::read_dir("/sys/fs/cgroup").unwrap().flatten();
    for tree in trees {
        drop(fs::remove_dir(tree.path().join(&name)));
    }
    drop(fs::remove_dir(&above));
}
