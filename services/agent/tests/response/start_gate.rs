//! The start gate: a denied image runs nothing.

use std::fs;

use model::{
    Decision, Digest,
    runtime::{ActionKind, DeniedImage, Mode, Phase, StartGate},
};

use crate::{
    ground::wait,
    yard::{IMAGE, Yard, guards, read},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_image_does_not_run_its_first_program() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let shared = yard.dir.path().join("shared");
    fs::create_dir(&shared).unwrap();
    let volume = format!("{}:/shared", shared.display());
    // An image of its own: another command, another digest.
    let tar = yard.dir.path().join("root.tar");
    let denied = "localhost/denied:1";
    yard.podman(&["import", "-q", "-c", "CMD=x", tar.to_str().unwrap(), denied]);
    let id = yard.podman(&["image", "inspect", "--format", "{{.Id}}", denied]);
    let gate = |mode| StartGate {
        mode,
        denied: vec![DeniedImage {
            digest: Digest::from_hex(&id).unwrap(),
            decision: Decision::Deny,
            reason: "it holds malware".to_owned(),
        }],
        refuses_unknown: false,
        allowed: Vec::new(),
    };
    let limits = [
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=2048:2048",
    ];
    let run = |name: &str, image: &str| {
        let mut arguments = vec!["run", "--detach", "--network", "none", "--name", name];
        arguments.extend(limits);
        let line = format!("echo ran >/shared/{name}; sleep 1000");
        arguments.extend(["--volume", &volume, image, "/bin/sh", "-c", &line]);
        let output = yard.try_podman(&arguments);
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let ran = |name: &str| shared.join(name).exists();

    yard.gate(Some(gate(Mode::Enforced))).await;
    wait("the gate", || {
        (!guards(&yard.own_dir()).is_empty()).then_some(())
    });
    // A container of an image that may start: the gate is there when it does.
    run("good", IMAGE);
    wait("the good one", || ran("good").then_some(()));
    let container = run("bad", denied);
    let refused = yard
        .until_heard("a refused start", |one| {
            one.action == Some(ActionKind::StartGate) && one.phase == Phase::Done
        })
        .await;
    assert_eq!(refused.container, container);
    assert!(
        refused
            .detail
            .unwrap()
            .contains("judged `deny`: it holds malware")
    );
    assert_eq!(refused.image, Some(Digest::from_hex(&id).unwrap()));
    assert!(read(&yard.log()).contains("it did not start: its image is judged `deny`"));
    wait("its end", || {
        let state = yard.podman(&["inspect", "--format", "{{.State.Running}}", "bad"]);
        (state == "false").then_some(())
    });
    assert!(!ran("bad"), "its first program ran");

    // Only told: it runs.
    yard.gate(Some(gate(Mode::DryRun))).await;
    run("tried", denied);
    yard.until_heard("what would have been", |one| {
        one.action == Some(ActionKind::StartGate) && one.phase == Phase::WouldHave
    })
    .await;
    wait("the one that is only told of", || {
        ran("tried").then_some(())
    });

    // Nobody is there to say what may start: in doubt it does.
    yard.gate(Some(gate(Mode::Enforced))).await;
    yard.kill();
    run("alone", IMAGE);
    wait("the one that nobody judged", || ran("alone").then_some(()));
}
