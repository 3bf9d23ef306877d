//! What it costs and how long it takes; measured when it is asked for, since that takes minutes:
//! `TIDEWAITER_MEASURE=1 cargo test --release -p agent --test response measure -- --nocapture`.

use std::time::{Duration, Instant};

use model::runtime::{Action, Phase};

use crate::yard::{Yard, holds};

const INCIDENTS: usize = 200;
const PAIRS: usize = 5;
const LOOP: u32 = 10_000;

fn is_wanted() -> bool {
    let is_set = std::env::vars_os().any(|(name, _)| name == "TIDEWAITER_MEASURE");
    if !is_set {
        println!("skipped: it takes minutes; TIDEWAITER_MEASURE=1 runs it");
    }
    is_set
}

fn at(sorted: &[Duration], per_cent: usize) -> Duration {
    sorted[(sorted.len() - 1) * per_cent / 100]
}

#[tokio::test(flavor = "multi_thread")]
async fn measure_how_long_it_takes_from_an_order_to_its_effect() {
    if !is_wanted() {
        return;
    }
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let id = yard.sleeper("web");
    let warm = yard.order(&id, Action::Pause).await;
    yard.until(&warm, Phase::Done).await;
    for action in [Action::Pause, Action::Quarantine { allow: Vec::new() }] {
        let kind = action.kind();
        let mut taken = Vec::new();
        for _ in 0..INCIDENTS {
            yard.release(&id).await;
            while holds(&yard, &id, kind) {
                tokio::time::sleep(Duration::from_micros(500)).await;
            }
            // What is decided before is not measured here: the order is what the policy writes.
            let begun = Instant::now();
            yard.order(&id, action.clone()).await;
            while !holds(&yard, &id, kind) {
                tokio::time::sleep(Duration::from_micros(200)).await;
            }
            taken.push(begun.elapsed());
        }
        taken.sort();
        let (half, most) = (at(&taken, 50), at(&taken, 99));
        println!(
            "{kind}: p50 {half:?}, p99 {most:?}, longest {:?}, {INCIDENTS} times",
            at(&taken, 100)
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn measure_what_block_costs_inside_and_outside() {
    if !is_wanted() {
        return;
    }
    let Some(yard) = Yard::start().await else {
        return;
    };
    yard.launch();
    let id = yard.sleeper("web");
    let line = format!(
        "s=${{EPOCHREALTIME/./}}; for ((i=0;i<{LOOP};i++)); do /bin/true; done; \
         echo $((${{EPOCHREALTIME/./}}-s))"
    );
    let inside = || yard.exec("web", &line).1.trim().parse::<u64>().unwrap() / 1_000;
    let outside = || {
        let output = std::process::Command::new("bash")
            .args(["-c", &line])
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.trim().parse::<u64>().unwrap() / 1_000
    };
    for pair in 0..PAIRS {
        let without = (inside(), outside());
        let block = yard.order(&id, Action::Block).await;
        yard.until(&block, Phase::Done).await;
        let with = (inside(), outside());
        yard.release(&id).await;
        yard.until(&block, Phase::Lifted).await;
        println!(
            "pair {pair}: {LOOP} programs inside {} ms without, {} ms with; outside {} ms without, \
             {} ms with",
            without.0, with.0, without.1, with.1
        );
    }
}
