//! Paused, cut off, tried dry; documents that are not believed.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    time::Duration,
};

use model::{
    SigningKey,
    runtime::{Action, Mode, Phase, Refusal, SignedDesired},
};

use crate::{
    ground::wait,
    yard::{Yard, now},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_container_in_quarantine_speaks_with_nobody_but_those_of_the_list() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let (allowed, other) = (listen(), listen());
    let id = yard.container(
        "web",
        &["--network", "host", "--cap-add", "NET_RAW"],
        &["/bin/sleep", "1000"],
    );
    let speak = |port: u16| {
        let line = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{port} && echo x >&3 && read -t 2 -u 3 answer && \
             echo $answer"
        );
        yard.exec("web", &line)
    };
    assert!(speak(allowed).0 && speak(other).0);
    // A connection that is there before is cut, too.
    let open = format!(
        "exec 3<>/dev/tcp/127.0.0.1/{other}; touch=; : >/tmp/ready; while [ ! -e /tmp/go ]; do \
         sleep 0.05; done; echo x >&3; read -t 2 -u 3 answer"
    );
    let (is_open, done) = std::thread::scope(|scope| {
        let talk = scope.spawn(|| yard.exec("web", &open).0);
        wait("a connection", || {
            yard.exec("web", "[ -e /tmp/ready ]").0.then_some(())
        });
        let allow = vec![format!("127.0.0.1:{allowed}").parse().unwrap()];
        let runtime = tokio::runtime::Handle::current();
        let done = tokio::task::block_in_place(|| {
            runtime.block_on(async {
                let id = yard.order(&id, Action::Quarantine { allow }).await;
                let told = yard.until(&id, Phase::Done).await.detail.unwrap();
                assert!(
                    told.contains("packet sockets: it has `CAP_NET_RAW`"),
                    "{told}"
                );
                id
            })
        });
        assert!(yard.exec("web", ": >/tmp/go").0);
        (talk.join().unwrap(), done)
    });
    assert!(!is_open, "an open connection still speaks");
    assert!(speak(allowed).0, "the list is let pass");
    let (spoke, text) = speak(other);
    assert!(!spoke && text.contains("not permitted"), "{text}");
    yard.kill();
    assert!(!speak(other).0, "the agent is dead, the quarantine is not");
    yard.launch();
    yard.release(&id).await;
    let lifted = yard.until(&done, Phase::Lifted).await;
    println!("{:?}", lifted.detail);
    // The kernel takes its time to let go of what was attached.
    wait("it speaks again", || speak(other).0.then_some(()));
}

/// Answers each line with `y`.
fn listen() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut bytes = [0; 16];
                while stream.read(&mut bytes).is_ok_and(|read| read > 0) {
                    if stream.write_all(b"y\n").is_err() {
                        return;
                    }
                }
            });
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn a_paused_container_stands_still_until_it_is_over() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let id = yard.sleeper("web");
    let mut dry = yard.response(&id, Action::Pause);
    dry.mode = Mode::DryRun;
    let dry_id = dry.id.clone();
    yard.change(|desired| desired.responses.push(dry)).await;
    let told = yard.until(&dry_id, Phase::WouldHave).await;
    assert_eq!(told.detail.unwrap(), "would have frozen 1 processes");
    assert!(!yard.is_frozen(&id));

    let first = yard.order(&id, Action::Pause).await;
    let done = yard.until(&first, Phase::Done).await;
    assert_eq!(
        (done.before.as_deref(), done.after.as_deref()),
        (Some("running"), Some("frozen"))
    );
    assert!(yard.is_frozen(&id));
    // Two that want the same: it stands still until both are over.
    let mut second = yard.response(&id, Action::Pause);
    second.expires_at = now() + Duration::from_secs(3);
    let second_id = second.id.clone();
    yard.change(|desired| {
        desired.responses.retain(|one| one.id != first);
        desired.responses.push(second);
    })
    .await;
    yard.until(&first, Phase::Lifted).await;
    assert!(yard.is_frozen(&id), "the other one lasts");
    yard.until(&second_id, Phase::Lifted).await;
    assert!(!yard.is_frozen(&id), "it expired");
    assert_eq!(yard.times(&second_id, Phase::Done), 1);

    let kill = yard.order(&id, Action::Kill).await;
    yard.until(&kill, Phase::Done).await;
    assert_eq!(
        yard.podman(&["inspect", "--format", "{{.State.Running}}", "web"]),
        "false"
    );
    let late = yard.order(&id, Action::Pause).await;
    let refused = yard.until(&late, Phase::Refused).await;
    assert_eq!(refused.refusal, Some(Refusal::NoContainer));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_trusted_signed_is_refused_and_told() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let id = yard.sleeper("web");
    let paused = yard.order(&id, Action::Pause).await;
    yard.until(&paused, Phase::Done).await;
    let older = yard.desired.lock().unwrap().clone();
    yard.release(&id).await;
    yard.until(&paused, Phase::Lifted).await;

    // Replayed: signed well, and older than what was taken; after a restart, too.
    let replayed = SignedDesired::sign(&older, &yard.key).unwrap();
    yard.write(&replayed).await;
    let is = |wanted: fn(&Refusal) -> bool| {
        move |one: &model::runtime::ResponseReported| {
            one.phase == Phase::Refused
                && one.response.is_none()
                && one.refusal.as_ref().is_some_and(wanted)
        }
    };
    yard.until_heard(
        "replayed",
        is(|one| matches!(one, Refusal::Replayed { .. })),
    )
    .await;
    yard.kill();
    yard.launch();
    let next = {
        let mut next = older.clone();
        next.generation += 10;
        next
    };
    let mut forged = SignedDesired::sign(&next, &yard.key).unwrap();
    forged.document = forged.document.replace("\"enforced\"", "\"dry_run\"");
    yard.write(&forged).await;
    yard.until_heard("forged", is(|one| matches!(one, Refusal::Forged { .. })))
        .await;
    let foreign = SignedDesired::sign(&next, &SigningKey::generate().unwrap()).unwrap();
    yard.write(&foreign).await;
    yard.until_heard(
        "untrusted",
        is(|one| matches!(one, Refusal::Untrusted { .. })),
    )
    .await;
    let mut expired = next.clone();
    expired.expires_at = now() - Duration::from_secs(1);
    yard.write(&SignedDesired::sign(&expired, &yard.key).unwrap())
        .await;
    yard.until_heard("expired", is(|one| matches!(one, Refusal::Expired { .. })))
        .await;
    assert!(!yard.is_frozen(&id), "none of them froze it");

    // A container that was started again is another one.
    let mut stale = yard.response(&id, Action::Pause);
    stale.container_started_at = Some(now() - Duration::from_hours(1));
    let stale_id = stale.id.clone();
    yard.change(|desired| {
        desired.generation += 20;
        desired.responses.push(stale);
    })
    .await;
    let refused = yard.until(&stale_id, Phase::Refused).await;
    assert!(
        matches!(refused.refusal, Some(Refusal::Restarted { .. })),
        "{refused:?}"
    );
    assert!(!yard.is_frozen(&id));
}
