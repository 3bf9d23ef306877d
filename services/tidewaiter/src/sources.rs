//! The configured sources, as the scanner asks for them.

use std::sync::Arc;

use model::Slug;
use oci::Source;
use scanner::SourceOf;

/// Every configured source.
pub(crate) struct Sources(pub(crate) Arc<gateway::Sources>);

impl SourceOf for Sources {
    fn source(&self, name: &Slug) -> Option<Arc<dyn Source>> {
        self.0.source(name)
    }

    fn count(&self) -> usize {
        self.0.count()
    }
}
