//! The configured sources, as the scanner asks for them, and the line to nodes.

use std::sync::Arc;

use bus::{AskError, Bus};
use futures::future::BoxFuture;
use model::{
    Slug,
    runtime::{NodeAnswer, NodeQuestion, OnNode, node_subject},
};
use oci::{NodeLine, OciError, Source};
use scanner::SourceOf;

/// Every configured source.
pub(crate) struct Sources(pub(crate) Arc<gateway::Sources>);

impl SourceOf for Sources {
    fn source(&self, name: &Slug) -> Option<Arc<dyn Source>> {
        self.0.source(name)
    }

    fn on_node(&self, tenant: &Slug, at: &OnNode) -> Option<Arc<dyn Source>> {
        self.0.on_node(tenant, at.clone())
    }

    fn count(&self) -> usize {
        self.0.count()
    }
}

/// Nodes are asked over the bus.
pub(crate) struct BusLine(pub(crate) Bus);

impl NodeLine for BusLine {
    fn ask<'a>(
        &'a self,
        tenant: &'a Slug,
        node: &'a Slug,
        question: &'a NodeQuestion,
    ) -> BoxFuture<'a, Result<NodeAnswer, OciError>> {
        Box::pin(async move {
            let answer = self.0.ask(&node_subject(tenant, node), question).await;
            answer.map_err(|error| match error {
                AskError::Silence(detail) => OciError::Unavailable {
                    host: format!("node {node}"),
                    detail,
                    retry_after: None,
                },
                AskError::Unreadable(detail) => OciError::Malformed {
                    what: format!("an answer of node `{node}`"),
                    detail,
                },
                AskError::Failed(detail) => OciError::Internal(detail),
            })
        })
    }
}
