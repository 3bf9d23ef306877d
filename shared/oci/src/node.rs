//! A node as a source: both ends of the questions that [`model::runtime::NodeQuestion`] names.
//!
//! [`NodeSource`] is who asks: a source like a registry, that reads an image part by part and
//! verifies every digest. [`Holdings`] is who answers, on the node: images of its engines, and the
//! host itself as an image of one layer. What carries questions and answers is a [`NodeLine`].
//!
//! The decision that shapes it: a question names everything, so the node keeps no reader for anybody,
//! and who was cut off goes on where it was. It costs an answer for each 256 KiB, and that an image
//! of Docker or podman, which hand out whole images alone, lies in a file without a name for as long
//! as somebody reads it.

mod holdings;
mod source;
#[cfg(test)]
mod tests;

use futures::future::BoxFuture;
use model::{
    Slug,
    runtime::{NodeAnswer, NodeQuestion},
};

use crate::OciError;

pub use self::{
    holdings::{Holdings, HoldingsConfig, HostFiles},
    source::NodeSource,
};

/// Carries questions to nodes, and their answers back.
pub trait NodeLine: Send + Sync {
    /// Asks a node once. That nobody answers is a transient error.
    fn ask<'a>(
        &'a self,
        tenant: &'a Slug,
        node: &'a Slug,
        question: &'a NodeQuestion,
    ) -> BoxFuture<'a, Result<NodeAnswer, OciError>>;
}
