//! Blocked: what the image holds runs, and nothing else does.

use std::{fs, process::Command, time::Duration};

use model::{
    SigningKey, Slug,
    runtime::{Action, Phase, ReleaseToken},
};

use crate::{
    ground::wait,
    yard::{Yard, guards, now},
};

/// A program in memory: a copy of one of the image with something behind it.
const IN_MEMORY: &str = r#"perl -e '$n="x"; $f=syscall(319,$n,0); open(M,">&$f"); binmode M; open(I,"</bin/true"); binmode I; { local $/; print M scalar <I>; } print M "more"; close M; exec {"/proc/self/fd/$f"} "x" or exit 7'"#;
/// A library that is no library of the image, before those that are.
const PRELOADED: &str = "[[ $(LD_PRELOAD=/tmp/x.so cat /proc/self/maps) == */tmp/x.so* ]]";
/// The same, asked for while a program runs.
const OPENED: &str = "perl -e 'DynaLoader::boot_DynaLoader(\"DynaLoader\"); exit !DynaLoader::dl_load_file(\"/tmp/x.so\", 0)'";
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";
/// The longest that anybody waits for the answer whether a file runs.
const WAIT_MAX_US: u64 = 50_000;

#[tokio::test(flavor = "multi_thread")]
async fn a_blocked_container_runs_what_its_image_holds_and_nothing_else() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let id = yard.container(
        "web",
        &["--tmpfs", "/scratch:exec"],
        &["/bin/sleep", "1000"],
    );
    let other = yard.sleeper("other");
    let files = "cp /bin/true /tmp/dropped; printf more >>/tmp/dropped; \
                 printf '#!/bin/sh\\ntrue\\n' >/tmp/script; chmod +x /tmp/script; \
                 cp /tmp/dropped /scratch/dropped; cp /bin/true /tmp/copy; \
                 cp /lib/x86_64-linux-gnu/libc.so.6 /tmp/x.so; printf more >>/tmp/x.so; \
                 cp /bin/ls /tmp/ls; printf more >>/tmp/ls; cat /tmp/ls >/bin/ls";
    for name in ["web", "other"] {
        let (done, text) = yard.exec(
            name,
            &files.replace("/scratch", if name == "web" { "/scratch" } else { "/tmp" }),
        );
        assert!(done, "{text}");
    }
    let foreign = [
        "/tmp/dropped",
        "/bin/ls /",
        "/tmp/script",
        "sh /tmp/script",
        "cd /tmp; bash ./script",
        "/scratch/dropped",
        &format!("{LOADER} /tmp/dropped"),
        IN_MEMORY,
        PRELOADED,
        OPENED,
    ];
    for line in foreign {
        let (done, text) = yard.exec("web", line);
        assert!(done, "before: {line}: {text}");
    }
    let block = yard.order(&id, Action::Block).await;
    let done = yard.until(&block, Phase::Done).await;
    assert_eq!(
        done.detail.unwrap(),
        "no program, library or script runs in it whose file its image does not hold"
    );
    for line in foreign {
        let (done, text) = yard.exec("web", line);
        assert!(!done, "{line} ran: {text}");
    }
    // It is told while the block is in force, each file once.
    let told = yard
        .until_heard("what did not run", |one| !one.denied.is_empty())
        .await;
    assert_eq!(
        (told.response.as_ref(), told.phase),
        (Some(&block), Phase::Done)
    );
    assert!(told.denied[0].path.ends_with("dropped"), "{told:?}");
    assert!(told.denied[0].digest.is_some() && told.denied[0].count > 0);
    println!("{:?}: {:?}", told.detail, told.denied);
    assert_eq!(
        held(yard.agent()),
        0,
        "the kernel's part is kept by bpffs alone"
    );
    for line in [
        "/bin/true",
        "cat /bin/true >/dev/null",
        "/tmp/copy",
        "sh -c true",
        "perl -e 1",
        "LD_PRELOAD=/lib/x86_64-linux-gnu/libc.so.6 /bin/true",
        // Not stopped, as the documentation of the guard says.
        "sh </tmp/script",
        "cat /tmp/script | sh",
    ] {
        let (done, text) = yard.exec("web", line);
        assert!(done, "{line} did not run: {text}");
    }
    let (done, text) = yard.exec("other", "/tmp/dropped && /tmp/script");
    assert!(done, "another container is not blocked: {text}");
    assert!(other != id);
    yard.release(&id).await;
    let lifted = yard.until(&block, Phase::Lifted).await.detail.unwrap();
    println!("{lifted}");
    assert!(
        lifted.contains("1 were killed") && !lifted.contains("; 0 files"),
        "{lifted}"
    );
    for line in foreign {
        let (done, text) = yard.exec("web", line);
        assert!(done, "after: {line}: {text}");
    }
}

/// What a process holds of BPF.
fn held(pid: u32) -> usize {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).unwrap().flatten();
    let targets = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    targets
        .filter(|target| target.to_string_lossy().starts_with("anon_inode:bpf"))
        .count()
}

/// Runs the image's own program again and again; the longest time that one took, microseconds.
fn longest(yard: &Yard, rounds: u32) -> u64 {
    let line = format!(
        "m=0; for ((i=0;i<{rounds};i++)); do s=${{EPOCHREALTIME/./}}; /bin/true || exit 3; \
         e=${{EPOCHREALTIME/./}}; ((e-s>m)) && m=$((e-s)); done; echo $m"
    );
    let (done, text) = yard.exec("web", &line);
    assert!(done, "{text}");
    text.trim().parse().unwrap()
}

fn signal(name: &str, pid: u32) {
    let sent = Command::new("kill").args([name, &pid.to_string()]).status();
    assert!(sent.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_waits_for_an_agent_or_a_guard_that_stalls_or_dies() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let id = yard.sleeper("web");
    let block = yard.order(&id, Action::Block).await;
    yard.until(&block, Phase::Done).await;
    println!("at work: longest {} us", longest(&yard, 300));

    let agent = yard.agent();
    signal("-STOP", agent);
    println!("agent stopped: longest {} us", longest(&yard, 300));
    let (done, text) = yard.exec("web", "cp /bin/true /tmp/d; printf x >>/tmp/d; /tmp/d");
    assert!(
        !done,
        "a stalled agent does not lift what is in force: {text}"
    );
    signal("-CONT", agent);

    // The guard stands still in the middle of it: its end is what lets the others go on.
    let guard = *guards(&yard.own_dir()).first().unwrap();
    let line = "m=0; t=$((${EPOCHREALTIME/./}+3000000)); while ((${EPOCHREALTIME/./}<t)); do \
                s=${EPOCHREALTIME/./}; /bin/true || exit 3; e=${EPOCHREALTIME/./}; \
                ((e-s>m)) && m=$((e-s)); done; echo $m";
    let waited = std::thread::scope(|scope| {
        let stopper = scope.spawn(|| {
            std::thread::sleep(Duration::from_secs(1));
            signal("-STOP", guard);
        });
        let (done, text) = yard.exec("web", line);
        stopper.join().unwrap();
        assert!(done, "{text}");
        text.trim().parse::<u64>().unwrap()
    });
    println!("guard stopped: longest {waited} us");
    assert!(waited < WAIT_MAX_US, "{waited} us");
    let again = wait("another guard", || {
        guards(&yard.own_dir())
            .into_iter()
            .find(|pid| *pid != guard)
    });
    wait("the block again", || {
        (!yard.exec("web", "/tmp/d").0).then_some(())
    });
    signal("-KILL", again);
    println!("guard killed: longest {} us", longest(&yard, 300));
    wait("the block after that", || {
        (!yard.exec("web", "/tmp/d").0).then_some(())
    });

    // The agent is dead: the block stays, and the kernel's part of it even without a guard.
    yard.kill();
    println!("agent dead: longest {} us", longest(&yard, 300));
    assert!(!yard.exec("web", "/tmp/d").0);
    for pid in guards(&yard.own_dir()) {
        signal("-KILL", pid);
    }
    assert!(!yard.exec("web", "/tmp/d").0, "killed by the kernel");
    println!("both dead: longest {} us", longest(&yard, 300));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_lifts_everything_without_a_broker_and_without_an_agent() {
    let Some(mut yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let ids = ["a", "b", "c"].map(|name| yard.sleeper(name));
    let paused = yard.order(&ids[0], Action::Pause).await;
    let cut = yard
        .order(&ids[1], Action::Quarantine { allow: Vec::new() })
        .await;
    let blocked = yard.order(&ids[2], Action::Block).await;
    for id in [&paused, &cut, &blocked] {
        yard.until(id, Phase::Done).await;
    }
    yard.exec("c", "cp /bin/true /tmp/d; printf x >>/tmp/d");
    assert!(!yard.exec("c", "/tmp/d").0);
    yard.kill();
    yard.nats.kill();
    let issued_at = now();
    let token = ReleaseToken {
        tenant: Slug::default_tenant(),
        node: None,
        issued_at,
        expires_at: issued_at + Duration::from_mins(5),
        by: "test".to_owned(),
    };
    let forged = token.sign(&SigningKey::generate().unwrap()).unwrap();
    let refused = yard.release_by_hand(&forged);
    assert!(!refused.status.success() && yard.is_frozen(&ids[0]));
    let signed = token.sign(&yard.key).unwrap();
    let released = yard.release_by_hand(&signed);
    let text = String::from_utf8_lossy(&released.stderr).into_owned();
    assert!(released.status.success(), "{text}");
    assert!(!yard.is_frozen(&ids[0]));
    assert!(yard.exec("c", "/tmp/d").0, "nothing is blocked any more");
    let pins = yard.dir.path().join("bpf/tidewaiter/default-node-1");
    assert!(!pins.join("cut").join(&ids[1]).exists());

    // An agent that comes back does not put it back, and tells that it is lifted.
    yard.nats.restart();
    yard.launch();
    for id in [&paused, &cut, &blocked] {
        yard.until(id, Phase::Lifted).await;
    }
    assert!(!yard.is_frozen(&ids[0]));
    let again = yard.order(&ids[0], Action::Pause).await;
    yard.until(&again, Phase::Done).await;
    assert!(yard.is_frozen(&ids[0]), "what is decided later counts");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_signed_token_lifts_everything_though_the_agent_runs() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let ids = ["a", "c"].map(|name| yard.sleeper(name));
    let paused = yard.order(&ids[0], Action::Pause).await;
    let blocked = yard.order(&ids[1], Action::Block).await;
    for id in [&paused, &blocked] {
        yard.until(id, Phase::Done).await;
    }
    yard.exec("c", "cp /bin/true /tmp/d; printf x >>/tmp/d");
    assert!(!yard.exec("c", "/tmp/d").0);
    let issued_at = now();
    let token = ReleaseToken {
        tenant: Slug::default_tenant(),
        node: None,
        issued_at,
        expires_at: issued_at + Duration::from_mins(5),
        by: "test".to_owned(),
    };
    let released = yard.release_by_hand(&token.sign(&yard.key).unwrap());
    let text = String::from_utf8_lossy(&released.stderr).into_owned();
    assert!(released.status.success(), "{text}");
    for id in [&paused, &blocked] {
        yard.until(id, Phase::Lifted).await;
    }
    assert!(!yard.is_frozen(&ids[0]));
    assert!(yard.exec("c", "/tmp/d").0, "nothing is blocked any more");
}
