//! What policies of images and policies of responses have in common: documents in a bucket by their
//! name. Putting one there, reading, deleting, and following what is there.
//!
//! What is put is read and tested first, so a bad document never gets in. One that got in another
//! way leaves the last good one in force and is logged once.

use std::sync::Arc;

use anyhow::Context as _;
use axum::{
    http::header,
    response::{IntoResponse as _, Response},
};
use bus::{Bus, Change, PutError, Store, StoreError};
use chassis::{
    Cx,
    http::{ApiError, Grant},
};
use futures::StreamExt as _;
use jiff::Timestamp;
use model::{PolicyRecord, Slug, event::CONFIG};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::document::{DEFAULT, DOCUMENT_BYTES_MAX, PolicyError};

/// The media type of documents.
pub(crate) const YAML: &str = "application/yaml";

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

/// A kind of documents.
pub(crate) trait Document: DeserializeOwned + Send + Sync + 'static {
    /// What people call one.
    const KIND: &'static str;
    /// Where those in force stand.
    const PREFIX: &'static str;
    /// The one that comes with the program.
    const BUILTIN: &'static str;

    fn name(&self) -> &Slug;

    /// Why its parts do not go together.
    fn misfit(&self) -> Option<String>;

    /// The KV revision; 0 for the built-in one.
    fn revision(&self) -> u64;

    fn at_revision(self, revision: u64) -> Self;

    /// Whether it does what it says that it does.
    fn check(_yaml: &str) -> Result<(), PutPolicyError> {
        Ok(())
    }
}

/// The documents in force. The built-in one is among them until another one takes its name.
pub(crate) trait DocumentSet: Clone + Default + Send + Sync + 'static {
    type Document: Document;

    fn put(&mut self, document: Self::Document);

    /// Takes one out; the built-in one takes the place of [`DEFAULT`]. `revision` is that of the
    /// deletion.
    fn remove(&mut self, name: &Slug, revision: u64);

    /// Notes that one cannot be read; the last one that could stays in force.
    fn unreadable(&mut self, _name: &Slug, _revision: u64) {}
}

/// Reads a document.
pub(crate) fn parse<D: Document>(yaml: &str) -> Result<D, PolicyError> {
    if yaml.len() > DOCUMENT_BYTES_MAX {
        return Err(PolicyError::TooLarge(yaml.len()));
    }
    let document: D = serde_saphyr::from_str(yaml)
        .map_err(|error| PolicyError::Text(error.without_snippet().to_string()))?;
    match document.misfit() {
        Some(why) => Err(PolicyError::Parts {
            policy: document.name().clone(),
            why,
        }),
        None => Ok(document),
    }
}

/// Where a document stands in the bucket.
pub(crate) fn key<D: Document>(name: &Slug) -> String {
    format!("{}{name}", D::PREFIX)
}

/// Puts a document in force under the name that it gives itself, and gives its revision. What is in
/// force already keeps its revision.
pub(crate) async fn put<D: Document>(
    store: &Store,
    yaml: &str,
    now: Timestamp,
) -> Result<D, PutPolicyError> {
    let document: D = parse(yaml)?;
    D::check(yaml)?;
    let key = key::<D>(document.name());
    let known = store.get::<PolicyRecord>(CONFIG, &key).await?;
    if let Some(known) = known.filter(|known| known.body.yaml == yaml) {
        return Ok(document.at_revision(known.revision));
    }
    let record = PolicyRecord {
        yaml: yaml.to_owned(),
        changed_at: now,
    };
    match store.put(CONFIG, &key, &record, None).await {
        Ok(revision) => Ok(document.at_revision(revision)),
        Err(PutError::Store(error)) => Err(error.into()),
        Err(conflict @ PutError::Conflict) => Err(StoreError::Unavailable {
            what: key,
            cause: conflict.to_string(),
        }
        .into()),
    }
}

/// Takes a document out of force. Not there: nothing to do.
pub(crate) async fn delete<D: Document>(store: &Store, name: &Slug) -> Result<(), StoreError> {
    store.delete(CONFIG, &key::<D>(name)).await
}

/// Reads every document, then follows what changes.
pub(crate) async fn follow<S: DocumentSet>(
    cx: &Cx,
    bus: &Bus,
    task: &'static str,
) -> anyhow::Result<watch::Receiver<Arc<S>>> {
    let kind = S::Document::KIND;
    let last = bus.last_sequence(CONFIG).await;
    let last = last.with_context(|| format!("asking for each {kind} in force"))?;
    let mut changes = bus.follow(cx, CONFIG, 1);
    let mut set = S::default();
    let mut sequence = 0;
    while sequence < last {
        let change = changes.next().await;
        let change = change.with_context(|| format!("stopped while reading each {kind}"))?;
        sequence = change.sequence;
        take(&mut set, &change).await;
    }
    let (sender, receiver) = watch::channel(Arc::new(set.clone()));
    cx.spawn(task, async move {
        while let Some(change) = changes.next().await {
            if take(&mut set, &change).await {
                sender.send_replace(Arc::new(set.clone()));
            }
        }
    });
    Ok(receiver)
}

/// Applies a change of the bucket. Whether the documents in force changed.
async fn take<S: DocumentSet>(set: &mut S, change: &Change) -> bool {
    let name = change.key.strip_prefix(S::Document::PREFIX);
    let Some(name) = name.and_then(|name| name.parse().ok()) else {
        return false;
    };
    let record = change.decode::<PolicyRecord>().await;
    let record = record.map_err(|error| error.to_string()).transpose();
    apply(set, &name, change.sequence, record)
}

/// Applies a change of one document; `None` is a deletion. Whether those in force changed.
fn apply<S: DocumentSet>(
    set: &mut S,
    name: &Slug,
    revision: u64,
    record: Option<Result<PolicyRecord, String>>,
) -> bool {
    let kind = S::Document::KIND;
    let Some(record) = record else {
        set.remove(name, revision);
        return true;
    };
    let document = record.and_then(|record| {
        let document: S::Document = parse(&record.yaml).map_err(|error| error.to_string())?;
        let fits = document.name() == name;
        fits.then_some(document)
            .ok_or_else(|| "it gives itself another name".to_owned())
    });
    match document {
        Ok(document) => {
            tracing::info!(
                policy.name = %name,
                policy.revision = revision,
                "{kind} `{name}` is in force at revision {revision}"
            );
            set.put(document.at_revision(revision));
            true
        }
        Err(why) => {
            tracing::error!(
                policy.name = %name,
                policy.revision = revision,
                error = why,
                "{kind} `{name}` at revision {revision} cannot be read, the last one stays: {why}"
            );
            set.unreadable(name, revision);
            false
        }
    }
}

// === over HTTP ===

/// Answers with a document as its author wrote it.
pub(crate) async fn read<D: Document>(store: &Store, name: &str) -> Result<Response, ApiError> {
    let name = slug(name)?;
    let stored = store.get::<PolicyRecord>(CONFIG, &key::<D>(&name)).await;
    let yaml = match stored.map_err(internal)? {
        Some(stored) => stored.body.yaml,
        None if name.as_str() == DEFAULT => D::BUILTIN.to_owned(),
        None => {
            let what = format!("there is no {} `{name}`", D::KIND);
            return Err(ApiError::not_found(what));
        }
    };
    Ok(([(header::CONTENT_TYPE, YAML)], yaml).into_response())
}

/// Puts the document of a request in force.
pub(crate) async fn replace<D: Document>(
    (store, now): (&Store, Timestamp),
    name: &str,
    grant: &Grant,
    yaml: &str,
) -> Result<D, ApiError> {
    let name = slug(name)?;
    let given: D = document(yaml)?;
    if *given.name() != name {
        let what = format!(
            "the document's name is `{}`, and the address says `{name}`",
            given.name()
        );
        return Err(ApiError::bad_request(what));
    }
    let put = put::<D>(store, yaml, now).await;
    let document = put.map_err(|error| match error {
        PutPolicyError::Store(error) => internal(error),
        error => ApiError::bad_request(error.to_string()),
    })?;
    tracing::info!(
        policy.name = %name,
        policy.revision = document.revision(),
        token.name = grant.name,
        "{} `{name}` was put by `{}`",
        D::KIND,
        grant.name,
    );
    Ok(document)
}

/// Takes a document out of force for who asks.
pub(crate) async fn remove<D: Document>(
    store: &Store,
    name: &str,
    grant: &Grant,
) -> Result<(), ApiError> {
    let name = slug(name)?;
    delete::<D>(store, &name).await.map_err(internal)?;
    tracing::info!(
        policy.name = %name,
        token.name = grant.name,
        "{} `{name}` was deleted by `{}`",
        D::KIND,
        grant.name,
    );
    Ok(())
}

/// The document of a request.
pub(crate) fn document<D: Document>(yaml: &str) -> Result<D, ApiError> {
    parse(yaml).map_err(|error| ApiError::bad_request(error.to_string()))
}

/// A name of a request.
pub(crate) fn slug(name: &str) -> Result<Slug, ApiError> {
    name.parse()
        .map_err(|error: model::SlugError| ApiError::bad_request(error.to_string()))
}

/// 500 for what the store did not do.
pub(crate) fn internal(error: StoreError) -> ApiError {
    anyhow::Error::from(error).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{document::Policy, set::PolicySet};

    fn record(yaml: &str) -> PolicyRecord {
        PolicyRecord {
            yaml: yaml.to_owned(),
            changed_at: Timestamp::UNIX_EPOCH,
        }
    }

    fn name(name: &str) -> Slug {
        name.parse().unwrap()
    }

    async fn put_policy(store: &Store, yaml: &str) -> Result<Policy, PutPolicyError> {
        put(store, yaml, Timestamp::UNIX_EPOCH).await
    }

    #[tokio::test]
    async fn a_policy_is_put_once_under_its_own_name() {
        let store = Store::memory();
        let yaml = "name: web\nrepositories: ['r.example/**']\n";
        let first = put_policy(&store, yaml).await.unwrap();
        let again = put_policy(&store, yaml).await.unwrap();
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
        delete::<Policy>(&store, &name("web")).await.unwrap();
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
        let refused = async |yaml: &str| put_policy(&store, yaml).await.unwrap_err().to_string();
        insta::assert_snapshot!(refused("name: [").await, @"expected string scalar at line 1, column 7");
        let wrong = "
            name: default
            tests: [{ name: nothing is refused, given: { no_advisories: true }, expect: allow }]
            ";
        insta::assert_snapshot!(refused(wrong).await, @"the policy's own tests do not pass: `nothing is refused`: expected allow, got incomplete by missing-advisories");
        assert!(
            store
                .list::<PolicyRecord>(CONFIG, Policy::PREFIX)
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
