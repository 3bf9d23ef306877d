//! A broker that is away, an agent and a worker that are killed: what was seen of programs that ran
//! is not lost.

use std::time::{Duration, Instant};

use super::{Yard, is};
use crate::fabric::{PATIENCE, setting};

const RULE: &str = "drift/added-executable";
const NAME: &str = "surviving";

// === impl Yard ===

impl Yard {
    /// Runs a program that no image holds.
    fn drop_and_run(&self, program: &str) {
        let line = format!(
            "cp /bin/ls /tmp/{program}; printf {program} >>/tmp/{program}; /tmp/{program} /"
        );
        self.engine.exec(NAME, &line);
    }

    async fn until_run(&self, container: &str, program: &str) {
        let about = format!("tmp/{program},");
        self.until_detected(container, RULE, &about).await;
    }

    /// Waits until the agent has put on its disk what it saw of a program.
    async fn until_spooled(&self, program: &str) {
        let (started, path) = (Instant::now(), format!("tmp/{program}"));
        while !self.agent.has_spooled(&path) {
            assert!(
                started.elapsed() < PATIENCE,
                "{program} is not put into the spool"
            );
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_program_that_ran_is_lost_whoever_dies() {
    let Some(mut yard) = Yard::start(2).await else {
        return;
    };
    yard.fabric.expect_log(" WARN ");
    yard.agent.may_warn = true;
    let id = yard.container(NAME, &[]).await;
    yard.drop_and_run("first");
    yard.until_run(&id, "first").await;

    // The broker is away.
    let away =
        setting("TIDEWAITER_RUNTIME_AWAY_S").map_or(5, |text| text.parse().expect("seconds"));
    yard.fabric.nats().kill();
    let (started, away) = (Instant::now(), Duration::from_secs(away));
    let mut ran = vec!["first".to_owned()];
    // An incident holds a limited number of detections.
    let pause = Duration::from_millis(900).max(away / 50);
    while started.elapsed() < away {
        let program = format!("away{}", ran.len());
        yard.drop_and_run(&program);
        ran.push(program);
        tokio::time::sleep(pause).await;
    }
    // The agent is killed meanwhile; what it had put on its disk is there for the next one.
    yard.drop_and_run("spooled");
    ran.push("spooled".to_owned());
    yard.until_spooled("spooled").await;
    yard.agent.kill();
    yard.agent.launch().await;
    yard.drop_and_run("restarted");
    ran.push("restarted".to_owned());
    yard.fabric.nats().restart();
    for program in &ran {
        yard.until_run(&id, program).await;
    }

    // One of two workers is killed, and then the other: the shard moves at least once.
    for worker in [1, 2] {
        let program = format!("worker{worker}");
        yard.fabric.kill(worker);
        yard.drop_and_run(&program);
        yard.until_run(&id, &program).await;
        yard.fabric.restart(worker).await;
        ran.push(program);
    }

    // Read again by whoever took over, and told again: each is there once.
    let detected = yard.detected(&id).await;
    for program in &ran {
        let about = format!("tmp/{program},");
        let times = detected.iter().filter(|one| is(one, RULE, &about)).count();
        assert_eq!(times, 1, "{program}: {detected:#?}");
    }
    assert_eq!(detected.len(), ran.len(), "{detected:#?}");
}
