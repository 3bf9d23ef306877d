//! Watching verdicts come, over the REST API as everybody has it.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use model::Digest;
use serde_json::Value;

use crate::{server::Server, workload::Stored};

/// Rows of a page.
const LIMIT: usize = 500;
/// Between two looks; longer where a look takes long, so that looking is not what is measured.
const POLL: Duration = Duration::from_millis(50);

/// Which images have a verdict, and since when.
pub(crate) struct Watch {
    server: Server,
    /// The advisory revision that a verdict must hold for.
    revision: u64,
    /// A policy revision that a verdict must have passed, after a policy was edited.
    policy_after: Option<u64>,
    places: HashMap<String, usize>,
    seen: Vec<Option<Instant>>,
    /// Everything up to here is judged: so many images, and where their page ends.
    done: usize,
    cursor: Option<String>,
    highest_policy: u64,
}

// === impl Watch ===

impl Watch {
    /// Watches images, which are in the order of their tags.
    pub(crate) fn of(server: Server, revision: u64, images: &[Stored]) -> Self {
        let digest = |image: &Stored| image.digest.to_string();
        Self {
            server,
            revision,
            policy_after: None,
            places: images.iter().map(digest).zip(0..).collect(),
            seen: vec![None; images.len()],
            done: 0,
            cursor: None,
            highest_policy: 0,
        }
    }

    /// Begins again, for verdicts of a policy that is newer than every one seen so far.
    pub(crate) fn again(&mut self) {
        self.policy_after = Some(self.highest_policy);
        self.seen.fill(None);
        (self.done, self.cursor) = (0, None);
    }

    /// How many have no verdict yet.
    pub(crate) fn missing(&self) -> usize {
        self.seen.iter().filter(|seen| seen.is_none()).count()
    }

    /// When each image was seen with its verdict.
    pub(crate) fn seen(&self) -> &[Option<Instant>] {
        &self.seen
    }

    /// Looks until all have a verdict, or no new one came for `patience`.
    pub(crate) async fn until_all(&mut self, patience: Duration) -> anyhow::Result<()> {
        let (mut missing, mut progress) = (self.missing(), Instant::now());
        loop {
            let began = Instant::now();
            self.look().await?;
            let now = self.missing();
            if now == 0 {
                return Ok(());
            }
            if now < missing {
                (missing, progress) = (now, Instant::now());
            }
            if progress.elapsed() > patience {
                return Ok(());
            }
            tokio::time::sleep(POLL.max(began.elapsed() * 3)).await;
        }
    }

    /// Reads the list from the first image that has no verdict on, up to a page without any: images
    /// are judged about in their order, and reading what is not there yet costs the server time
    /// that is measured.
    pub(crate) async fn look(&mut self) -> anyhow::Result<()> {
        let (mut cursor, mut is_first) = (self.cursor.clone(), true);
        loop {
            let mut path = format!("/v1/images?limit={LIMIT}");
            if let Some(cursor) = &cursor {
                path.extend(["&cursor=", cursor]);
            }
            let page = self.server.get(&path).await.context("reading the list")?;
            let now = Instant::now();
            let rows = page["items"].as_array().context("a page has no items")?;
            let (mut last, mut any) = (None, false);
            for row in rows {
                let judged = self.is_judged(row);
                any |= judged;
                let digest = row["image"].as_str().unwrap_or_default();
                let Some(place) = self.places.get(digest) else {
                    continue;
                };
                last = last.max(Some(*place));
                if judged {
                    self.seen[*place].get_or_insert(now);
                }
            }
            let next = page["next"].as_str().map(str::to_owned);
            let Some(next) = next.filter(|_| any || self.policy_after.is_some()) else {
                return Ok(());
            };
            // Rows that are still to come before this page's end would be left out otherwise.
            let end = last.map_or(self.done, |last| last + 1);
            if is_first
                && self.seen[self.done..end.max(self.done)]
                    .iter()
                    .all(Option::is_some)
            {
                (self.done, self.cursor) = (end.max(self.done), Some(next.clone()));
            } else {
                is_first = false;
            }
            cursor = Some(next);
        }
    }

    fn is_judged(&mut self, row: &Value) -> bool {
        let Some(policies) = row["policies"].as_array() else {
            return false;
        };
        let revision = |policy: &Value, name: &str| policy[name].as_u64().unwrap_or_default();
        for policy in policies {
            self.highest_policy = self.highest_policy.max(revision(policy, "policy_revision"));
        }
        row["state"] == "judged"
            && !policies.is_empty()
            && policies.iter().all(|policy| {
                revision(policy, "advisory_revision") >= self.revision
                    && self
                        .policy_after
                        .is_none_or(|old| revision(policy, "policy_revision") > old)
            })
    }
}

/// Waits for one image's verdict.
pub(crate) async fn verdict(
    server: &Server,
    digest: Digest,
    patience: Duration,
) -> anyhow::Result<Instant> {
    server.wait_for_verdict(digest, patience).await?;
    Ok(Instant::now())
}
