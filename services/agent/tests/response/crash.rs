//! `kill -9` at any moment, files that are lost, a broker that is away: the end is the same, and
//! nothing is done twice.

use std::{fs, time::Duration};

use model::runtime::{Action, ActionKind, Phase};

use crate::{
    ground::wait,
    yard::{Yard, holds, lasting, now, read},
};

/// After so many milliseconds from the order on the agent is killed.
const AFTER_MS: [u64; 6] = [0, 5, 12, 25, 50, 120];

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_agent_is_killed_the_end_is_as_ordered() {
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let mut actions = lasting().to_vec();
    actions.push(Action::Kill);
    let mut phases = std::collections::BTreeMap::<String, u32>::new();
    for action in actions {
        let kind = action.kind();
        for (round, after) in AFTER_MS.into_iter().enumerate() {
            let name = format!("{kind}{round}").replace('_', "-");
            let id = yard.sleeper(&name);
            let response = yard.order(&id, action.clone()).await;
            tokio::time::sleep(Duration::from_millis(after)).await;
            yard.kill();
            let journal = read(&yard.own_dir().join("journal.json"));
            let journal: serde_json::Value = serde_json::from_str(&journal).unwrap_or_default();
            let state = &journal["entries"][&response.0]["state"];
            let state = state.as_str().unwrap_or("not begun").to_owned();
            *phases.entry(format!("{kind}: {state}")).or_default() += 1;
            yard.launch();
            yard.until(&response, Phase::Done).await;
            wait("what was ordered", || holds(&yard, &id, kind).then_some(()));
            if kind != ActionKind::Kill {
                // Killed while it is lifted, too.
                yard.release(&id).await;
                tokio::time::sleep(Duration::from_millis(after)).await;
                yard.kill();
                yard.launch();
                yard.until(&response, Phase::Lifted).await;
                assert!(!yard.is_frozen(&id));
                assert_eq!(yard.times(&response, Phase::Lifted), 1);
            }
            assert_eq!(
                yard.times(&response, Phase::Done),
                1,
                "{kind} after {after} ms"
            );
            yard.podman(&["rm", "--force", "--time", "0", &name]);
        }
    }
    println!("found in the journal when it was killed: {phases:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_without_its_files_and_without_a_broker_ends_as_ordered() {
    let Some(mut yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let id = yard.sleeper("web");
    let mut ids = Vec::new();
    for action in lasting() {
        let response = yard.order(&id, action).await;
        yard.until(&response, Phase::Done).await;
        ids.push(response);
    }
    // A node rebooted in spirit: nothing that the agent had is there.
    yard.kill();
    fs::remove_dir_all(yard.dir.path().join("data")).unwrap();
    for kind in [ActionKind::Pause, ActionKind::Quarantine, ActionKind::Block] {
        assert!(holds(&yard, &id, kind), "{kind} does not outlive the agent");
    }
    yard.launch();
    wait("the same again", || {
        (read(&yard.log()).matches(" is done: ").count() >= 6).then_some(())
    });
    for kind in [ActionKind::Pause, ActionKind::Quarantine, ActionKind::Block] {
        assert!(holds(&yard, &id, kind), "{kind}");
    }
    for response in &ids {
        assert_eq!(yard.times(response, Phase::Done), 1, "told twice");
    }

    // The broker is away, and so is the agent for a while: what expires is lifted all the same, and
    // what was done meanwhile is told when it can be.
    let mut short = yard.response(&id, Action::Kill);
    short.action = Action::Pause;
    short.expires_at = now() + Duration::from_secs(8);
    let short_id = short.id.clone();
    yard.change(|desired| {
        desired.responses.clear();
        desired.responses.push(short);
    })
    .await;
    yard.until(&short_id, Phase::Done).await;
    for response in &ids {
        yard.until(response, Phase::Lifted).await;
    }
    assert!(yard.is_frozen(&id));
    yard.nats.kill();
    yard.kill();
    yard.launch();
    wait("its expiry", || (!yard.is_frozen(&id)).then_some(()));
    yard.nats.restart();
    // What a broker heard before it was away may be told again, under the same id.
    yard.until(&short_id, Phase::Lifted).await;
}
