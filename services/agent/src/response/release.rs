//! The emergency release: everything that the node enforces is lifted, without NATS and without the
//! agent.
//!
//! What the token said is put down first, where the agent looks before each of its rounds, so that
//! an agent that runs, or runs again, lifts the same and does not put it back.

use std::{
    collections::BTreeSet,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use chassis::{Clock, files::read_text_bounded};
use jiff::Timestamp;
use model::{
    Slug,
    runtime::{Mode, ReleaseToken, Response},
};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::{
    enforce::Enforcer,
    guard::orders::Orders,
    journal::{self, Journal},
    keeper::Keeper,
    needs,
};
use crate::{cgroup::Layout, config::Config, node::Node};

const FILE: &str = "released.json";
const FILE_BYTES_MAX: u64 = 16 << 10;
/// Ends a guard that an agent has not let go of by then.
const GUARD_MAX: Duration = Duration::from_secs(5);
const GUARD_TRIES: u32 = 5;

/// What a token said, for the agent.
#[derive(Serialize, Deserialize)]
struct PutDown {
    until: Timestamp,
    by: String,
}

/// What was lifted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Lifted {
    /// Who signed the token.
    pub by: String,
    /// Responses that are in force no more, as far as the agent's files name them.
    pub responses: Vec<String>,
    /// Responses that were decided after the token was signed: they stay.
    pub kept: Vec<String>,
}

/// Lifts what a token lifts.
pub fn release(config: &Config, token: &str, clock: &dyn Clock) -> anyhow::Result<Lifted> {
    let node = Node::here(config)?;
    ensure!(
        !config.response.keys.is_empty(),
        "`response.keys` names no key: nothing is enforced here, and no token is believed"
    );
    let owner = (&config.tenant, &node.name);
    let token_read = ReleaseToken::open(token, owner, &config.response.keys, clock.now())?;
    let dir = config.response_dir();
    let journal = Journal::open(&dir)?;
    let put_down = PutDown {
        until: token_read.issued_at.max(until(&dir).unwrap_or_default()),
        by: token_read.by.clone(),
    };
    journal::keep(&dir, FILE, &serde_json::to_vec(&put_down)?)?;
    let (lifted, kept): (Vec<_>, Vec<_>) = journal
        .kept
        .entries
        .values()
        .map(|entry| &entry.response)
        .partition(|response| token_read.lifts(response.issued_at));
    let is_in_force =
        |response: &&Response| response.mode == Mode::Enforced && response.is_active(clock.now());
    let needs = needs::of(kept.iter().copied().filter(is_in_force));
    let done = Lifted {
        by: token_read.by,
        responses: names(&lifted),
        kept: names(&kept),
    };
    let mut enforcer = Enforcer::new(
        &Layout::here(),
        &config.response.bpffs,
        &pins_name(&config.tenant, &node.name),
    );
    // What a guard holds before its first program goes on, too.
    enforcer.sweep(&needs, false);
    let blocked = needs.iter().filter(|(_, need)| need.blocked);
    release_guard(&dir, blocked.map(|(id, _)| id.clone()).collect())?;
    Ok(done)
}

fn names(responses: &[&Response]) -> Vec<String> {
    let names = responses.iter().map(|response| {
        let Response {
            action,
            container,
            id,
            ..
        } = response;
        format!("{} of {container} ({id})", action.kind())
    });
    names.collect()
}

/// Under which name an agent's pins are.
pub(crate) fn pins_name(tenant: &Slug, node: &Slug) -> String {
    format!("{tenant}-{node}")
}

/// Where a guard is at work, it lets go of all but these.
fn release_guard(dir: &Path, blocked: BTreeSet<String>) -> anyhow::Result<()> {
    let (news, _heard) = mpsc::channel(1);
    let keeper = Keeper::start(dir, news);
    let orders = Orders {
        blocked,
        ..Orders::default()
    };
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        // An agent that loses its guard to us ends it: then there is another one, or none.
        for _ in 0..GUARD_TRIES {
            let told = keeper.set(orders.clone());
            let is_told = told.is_ok();
            if done.send(told).is_err() || is_told {
                return;
            }
        }
    });
    let end = Instant::now() + GUARD_MAX;
    let mut told = None;
    while !matches!(told, Some(Ok(_))) {
        let left = end.saturating_duration_since(Instant::now());
        match ended.recv_timeout(left) {
            Ok(next) => told = Some(next),
            Err(_) => break,
        }
    }
    let failed = told.context("the guard does not answer")??;
    ensure!(failed.is_empty(), "the guard keeps {failed:?}");
    Ok(())
}

/// Until when everything that was decided was lifted by hand, if it was.
pub(crate) fn until(dir: &Path) -> Option<Timestamp> {
    let text = read_text_bounded(&dir.join(FILE), FILE_BYTES_MAX).ok()?;
    let put_down: PutDown = serde_json::from_str(&text).ok()?;
    Some(put_down.until)
}
