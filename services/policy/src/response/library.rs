//! The response policies in force.

use std::{collections::BTreeMap, sync::Arc};

use bus::Bus;
use chassis::Cx;
use model::Slug;
use tokio::sync::watch;

use super::document::{BUILTIN_RESPONSES, Gate, ResponsePolicy};
use crate::{
    document::DEFAULT,
    documents::{self, Document, DocumentSet},
};

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
}

impl Document for ResponsePolicy {
    const KIND: &'static str = "response policy";
    const PREFIX: &'static str = "responses.";
    const BUILTIN: &'static str = BUILTIN_RESPONSES;

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
}

impl DocumentSet for ResponseSet {
    type Document = ResponsePolicy;

    fn put(&mut self, policy: ResponsePolicy) {
        self.0.insert(policy.name.clone(), Arc::new(policy));
    }

    fn remove(&mut self, name: &Slug, _revision: u64) {
        self.0.remove(name);
        if name.as_str() == DEFAULT {
            self.put(ResponsePolicy::builtin());
        }
    }
}

/// Reads every response policy, then follows what changes.
pub(crate) async fn follow(
    cx: &Cx,
    bus: &Bus,
) -> anyhow::Result<watch::Receiver<Arc<ResponseSet>>> {
    documents::follow(cx, bus, "policy.responses").await
}
