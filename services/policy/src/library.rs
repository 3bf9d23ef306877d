//! The policies in the bucket: putting one there, and following what is there.
//!
//! What is put is read and tested first, so a bad document never gets in. One that got in another
//! way leaves the last good one in force and is logged once.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use bus::{Bus, Change, PutError, Store, StoreError};
use chassis::{Cx, files};
use futures::StreamExt as _;
use jiff::Timestamp;
use model::{PolicyRecord, Slug, event::CONFIG};
use tokio::sync::watch;

use crate::{
    cases::{CaseResult, run_tests},
    document::{DOCUMENT_BYTES_MAX, Policy, PolicyError},
    set::PolicySet,
};

const PREFIX: &str = "policies.";

/// Why a document was not put in force.
#[derive(Debug, thiserror::Error)]
pub enum PutPolicyError {
    /// It is no policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// It does not say what its own cases expect.
    #[error("the policy's own tests do not pass: {}", .0.join("; "))]
    Cases(Vec<String>),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Puts a policy in force under the name that it gives itself, and gives its revision. What is in
/// force already keeps its revision.
pub async fn put_policy(
    store: &Store,
    yaml: &str,
    now: Timestamp,
) -> Result<Policy, PutPolicyError> {
    let policy = Policy::parse(yaml)?;
    let failures: Vec<_> = run_tests(yaml)?
        .iter()
        .filter_map(CaseResult::failure)
        .collect();
    if !failures.is_empty() {
        return Err(PutPolicyError::Cases(failures));
    }
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

/// Takes a policy out of force. Not there: nothing to do.
pub async fn delete_policy(store: &Store, name: &Slug) -> Result<(), StoreError> {
    store.delete(CONFIG, &key(name)).await
}

/// Puts the policies of files in force.
pub(crate) async fn put_files(cx: &Cx, store: &Store, paths: &[PathBuf]) -> anyhow::Result<()> {
    for path in paths {
        let reading = || format!("reading policy file `{}`", path.display());
        let max = DOCUMENT_BYTES_MAX as u64;
        let from = path.clone();
        let yaml = cx
            .blocking(move || files::read_text_bounded(&from, max))
            .await?;
        let yaml = yaml.with_context(reading)?;
        let policy = put_policy(store, &yaml, cx.now())
            .await
            .with_context(reading)?;
        tracing::info!(
            policy.name = %policy.name,
            policy.revision = policy.revision,
            "policy `{}` of `{}` is in force",
            policy.name,
            path.display(),
        );
    }
    Ok(())
}

/// Reads every policy, then follows what changes.
pub(crate) async fn follow(cx: &Cx, bus: &Bus) -> anyhow::Result<watch::Receiver<Arc<PolicySet>>> {
    let last = bus
        .last_sequence(CONFIG)
        .await
        .context("asking for the policies in force")?;
    let mut changes = bus.follow(cx, CONFIG, 1);
    let mut set = PolicySet::default();
    let mut sequence = 0;
    while sequence < last {
        let change = changes
            .next()
            .await
            .context("stopped while reading the policies in force")?;
        sequence = change.sequence;
        take(&mut set, &change).await;
    }
    let (sender, receiver) = watch::channel(Arc::new(set.clone()));
    cx.spawn("policies", async move {
        while let Some(change) = changes.next().await {
            if take(&mut set, &change).await {
                sender.send_replace(Arc::new(set.clone()));
            }
        }
    });
    Ok(receiver)
}

async fn take(set: &mut PolicySet, change: &Change) -> bool {
    let Some(name) = change
        .key
        .strip_prefix(PREFIX)
        .and_then(|name| name.parse().ok())
    else {
        return false;
    };
    let record = change
        .decode::<PolicyRecord>()
        .await
        .map_err(|error| error.to_string());
    apply(set, &name, change.sequence, record.transpose())
}

/// Applies a change of the bucket; `None` is a deletion. Whether the policies in force changed.
fn apply(
    set: &mut PolicySet,
    name: &Slug,
    revision: u64,
    record: Option<Result<PolicyRecord, String>>,
) -> bool {
    let Some(record) = record else {
        set.remove(name, revision);
        return true;
    };
    let policy = record.and_then(|record| {
        let policy = Policy::parse(&record.yaml).map_err(|error| error.to_string())?;
        let fits = policy.name == *name;
        fits.then_some(policy)
            .ok_or_else(|| "it gives itself another name".to_owned())
    });
    match policy {
        Ok(policy) => {
            tracing::info!(
                policy.name = %name,
                policy.revision = revision,
                "policy `{name}` is in force at revision {revision}"
            );
            set.put(policy.at_revision(revision));
            true
        }
        Err(why) => {
            tracing::error!(
                policy.name = %name,
                policy.revision = revision,
                error = why,
                "policy `{name}` at revision {revision} cannot be read, the last one stays: {why}"
            );
            set.unreadable(name, revision);
            false
        }
    }
}

/// Where a policy stands in the bucket.
pub(crate) fn key(name: &Slug) -> String {
    format!("{PREFIX}{name}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(yaml: &str) -> PolicyRecord {
        PolicyRecord {
            yaml: yaml.to_owned(),
            changed_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn name(name: &str) -> Slug {
        name.parse().unwrap()
    }

    #[tokio::test]
    async fn a_policy_is_put_once_under_its_own_name() {
        let store = Store::memory();
        let yaml = "name: web\nrepositories: ['r.example/**']\n";
        let first = put_policy(&store, yaml, Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        let again = put_policy(&store, yaml, Timestamp::UNIX_EPOCH)
            .await
            .unwrap();
        assert_eq!(
            (first.name.as_str(), first.revision),
            ("web", again.revision)
        );
        let record = store
            .get::<PolicyRecord>(CONFIG, "policies.web")
            .await
            .unwrap()
            .unwrap();
        assert_eq!(
            (record.revision, record.body.yaml.as_str()),
            (first.revision, yaml)
        );
        delete_policy(&store, &name("web")).await.unwrap();
        assert!(
            store
                .get::<PolicyRecord>(CONFIG, "policies.web")
                .await
                .unwrap()
                .is_none()
        );
    }

    #[tokio::test]
    async fn a_bad_policy_does_not_get_in() {
        let store = Store::memory();
        let refused = async |yaml: &str| {
            put_policy(&store, yaml, Timestamp::UNIX_EPOCH)
                .await
                .unwrap_err()
                .to_string()
        };
        insta::assert_snapshot!(refused("name: [").await, @"expected string scalar at line 1, column 7");
        let wrong = "
            name: default
            tests: [{ name: nothing is refused, given: { no_advisories: true }, expect: allow }]
            ";
        insta::assert_snapshot!(refused(wrong).await, @"the policy's own tests do not pass: `nothing is refused`: expected allow, got incomplete by missing-advisories");
        assert!(
            store
                .list::<PolicyRecord>(CONFIG, PREFIX)
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[test]
    fn the_last_good_one_stays_in_force() {
        let mut set = PolicySet::default();
        let web = name("web");
        assert!(apply(
            &mut set,
            &web,
            3,
            Some(Ok(record("name: web\nrepositories: [a]")))
        ));
        assert!(!apply(&mut set, &web, 4, Some(Ok(record("name: [")))));
        assert!(!apply(
            &mut set,
            &web,
            5,
            Some(Ok(record("name: other\nrepositories: [a]")))
        ));
        assert_eq!(set.get(&web).unwrap().revision, 3);
        assert!(apply(&mut set, &web, 6, None));
        assert!(!set.knows(&web));
    }

    #[test]
    fn verdicts_of_a_policy_that_was_never_readable_are_not_forgotten() {
        let mut set = PolicySet::default();
        assert!(!apply(
            &mut set,
            &name("web"),
            3,
            Some(Err("not MessagePack".to_owned()))
        ));
        assert!(set.knows(&name("web")) && set.get(&name("web")).is_none());
        assert!(!apply(
            &mut set,
            &name("default"),
            4,
            Some(Ok(record("rules: 1")))
        ));
        assert_eq!(set.get(&name("default")).unwrap().revision, 4);
    }
}
