//! The policies of images in the bucket.

use std::{path::PathBuf, sync::Arc};

use anyhow::Context as _;
use bus::{Bus, Store, StoreError};
use chassis::{Cx, files};
use jiff::Timestamp;
use model::Slug;
use tokio::sync::watch;

use crate::{
    cases::{CaseResult, run_tests},
    document::{BUILTIN, DOCUMENT_BYTES_MAX, Policy},
    documents::{self, Document, DocumentSet, PutPolicyError},
    set::PolicySet,
};

impl Document for Policy {
    const KIND: &'static str = "policy";
    const PREFIX: &'static str = "policies.";
    const BUILTIN: &'static str = BUILTIN;

    fn name(&self) -> &Slug {
        &self.name
    }

    fn misfit(&self) -> Option<String> {
        Self::misfit(self)
    }

    fn revision(&self) -> u64 {
        self.revision
    }

    fn at_revision(self, revision: u64) -> Self {
        Self::at_revision(self, revision)
    }

    fn check(yaml: &str) -> Result<(), PutPolicyError> {
        let results = run_tests(yaml)?;
        let failures: Vec<_> = results.iter().filter_map(CaseResult::failure).collect();
        if failures.is_empty() {
            Ok(())
        } else {
            Err(PutPolicyError::Cases(failures))
        }
    }
}

impl DocumentSet for PolicySet {
    type Document = Policy;

    fn put(&mut self, document: Policy) {
        Self::put(self, document);
    }

    fn remove(&mut self, name: &Slug, revision: u64) {
        Self::remove(self, name, revision);
    }

    fn unreadable(&mut self, name: &Slug, revision: u64) {
        Self::unreadable(self, name, revision);
    }
}

/// Puts a policy in force under the name that it gives itself, and gives its revision. What is in
/// force already keeps its revision.
pub async fn put_policy(
    store: &Store,
    yaml: &str,
    now: Timestamp,
) -> Result<Policy, PutPolicyError> {
    documents::put(store, yaml, now).await
}

/// Takes a policy out of force. Not there: nothing to do.
pub async fn delete_policy(store: &Store, name: &Slug) -> Result<(), StoreError> {
    documents::delete::<Policy>(store, name).await
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
    documents::follow(cx, bus, "policies").await
}
