//! The response policies in the bucket: putting one there, and following what is there.

use std::{collections::BTreeMap, sync::Arc};

use anyhow::Context as _;
use bus::{Bus, Change, PutError, Store, StoreError};
use chassis::Cx;
use futures::StreamExt as _;
use jiff::Timestamp;
use model::{PolicyRecord, Slug, event::CONFIG};
use tokio::sync::watch;

use super::document::{Gate, ResponsePolicy};
use crate::{document::DEFAULT, library::PutPolicyError};

const PREFIX: &str = "responses.";

/// The response policies in force, by name. The built-in one is among them until another one takes
/// its name.
#[derive(Clone, Debug)]
pub(crate) struct ResponseSet(BTreeMap<Slug, Arc<ResponsePolicy>>);

// === impl ResponseSet ===

impl Default for ResponseSet {
    fn default() -> Self {
        Self::of([ResponsePolicy::builtin()])
    }
}

impl ResponseSet {
    /// These and no others.
    pub(crate) fn of(policies: impl IntoIterator<Item = ResponsePolicy>) -> Self {
        let named = policies
            .into_iter()
            .map(|one| (one.name.clone(), Arc::new(one)));
        Self(named.collect())
    }

    /// All of them, in the order of names.
    pub(crate) fn all(&self) -> impl Iterator<Item = &Arc<ResponsePolicy>> {
        self.0.values()
    }

    /// Whether a rule asks where an image comes from.
    pub(crate) fn asks_sources(&self) -> bool {
        let rules = self.all().flat_map(|policy| &policy.rules);
        rules.into_iter().any(|rule| rule.when.asks_sources())
    }

    /// The start gates that policies ask for.
    pub(crate) fn gates(&self) -> impl Iterator<Item = &Gate> {
        self.all().filter_map(|policy| policy.start_gate.as_ref())
    }

    fn put(&mut self, policy: ResponsePolicy) {
        self.0.insert(policy.name.clone(), Arc::new(policy));
    }

    fn remove(&mut self, name: &Slug) {
        self.0.remove(name);
        if name.as_str() == DEFAULT {
            self.put(ResponsePolicy::builtin());
        }
    }
}

/// Where a response policy stands in the bucket.
pub(crate) fn key(name: &Slug) -> String {
    format!("{PREFIX}{name}")
}

/// Puts a response policy in force under the name that it gives itself. What is in force already
/// keeps its revision.
pub(crate) async fn put(
    store: &Store,
    yaml: &str,
    now: Timestamp,
) -> Result<ResponsePolicy, PutPolicyError> {
    let policy = ResponsePolicy::parse(yaml)?;
    let key = key(&policy.name);
    let known = store.get::<PolicyRecord>(CONFIG, &key).await?;
    if let Some(known) = known.filter(|known| known.body.yaml == yaml) {
        return Ok(policy.at_revision(known.revision));
    }
    let record = PolicyRecord {
        yaml: yaml.to_owned(),
        changed_at: now,
    };
    match store.put(CONFIG, &key, &record, None).await {
        Ok(revision) => Ok(policy.at_revision(revision)),
        Err(PutError::Store(error)) => Err(error.into()),
        Err(conflict @ PutError::Conflict) => Err(StoreError::Unavailable {
            what: key,
            cause: conflict.to_string(),
        }
        .into()),
    }
}

/// Reads every response policy, then follows what changes.
pub(crate) async fn follow(
    cx: &Cx,
    bus: &Bus,
) -> anyhow::Result<watch::Receiver<Arc<ResponseSet>>> {
    let last = bus.last_sequence(CONFIG).await;
    let last = last.context("asking for the response policies in force")?;
    let mut changes = bus.follow(cx, CONFIG, 1);
    let mut set = ResponseSet::default();
    let mut sequence = 0;
    while sequence < last {
        let change = changes.next().await;
        let change = change.context("stopped while reading the response policies in force")?;
        sequence = change.sequence;
        take(&mut set, &change).await;
    }
    let (sender, receiver) = watch::channel(Arc::new(set.clone()));
    cx.spawn("policy.responses", async move {
        while let Some(change) = changes.next().await {
            if take(&mut set, &change).await {
                sender.send_replace(Arc::new(set.clone()));
            }
        }
    });
    Ok(receiver)
}

/// Applies a change of the bucket. Whether the policies in force changed.
async fn take(set: &mut ResponseSet, change: &Change) -> bool {
    let name = change
        .key
        .strip_prefix(PREFIX)
        .and_then(|name| name.parse::<Slug>().ok());
    let Some(name) = name else {
        return false;
    };
    let revision = change.sequence;
    let record = change.decode::<PolicyRecord>().await;
    let read = record
        .map_err(|error| error.to_string())
        .and_then(|record| {
            let policy = record.map(|record| ResponsePolicy::parse(&record.yaml));
            policy.transpose().map_err(|error| error.to_string())
        });
    match read {
        Ok(Some(policy)) if policy.name == name => {
            tracing::info!("response policy `{name}` is in force at revision {revision}");
            set.put(policy.at_revision(revision));
            true
        }
        Ok(None) => {
            set.remove(&name);
            true
        }
        other => {
            let why = other
                .err()
                .unwrap_or_else(|| "it gives itself another name".to_owned());
            tracing::error!(
                "response policy `{name}` at revision {revision} cannot be read, the last one \
                 stays: {why}"
            );
            false
        }
    }
}
