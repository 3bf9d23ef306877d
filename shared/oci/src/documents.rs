//! Manifests and configs that were read before.

use std::fmt;

use futures::future::BoxFuture;
use model::Digest;

/// Keeps manifests, indexes and configs by their digests, so that they are fetched once. What a tag
/// leads to is never kept.
///
/// A registry gives what it finds here without asking again, and verifies it; it puts what it
/// fetched and verified. Keeping is best effort: who cannot keep something says nothing.
pub trait DocumentStore: Send + Sync + fmt::Debug {
    /// The document, if it is here.
    fn get<'a>(&'a self, name: &'a DocumentName<'a>) -> BoxFuture<'a, Option<Document>>;

    /// Keeps a document.
    fn put<'a>(&'a self, name: &'a DocumentName<'a>, document: Document) -> BoxFuture<'a, ()>;
}

/// Names a document. The repository is part of it: who may read it in one may not in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DocumentName<'a> {
    /// The registry's host.
    pub host: &'a str,
    /// The repository.
    pub repository: &'a str,
    /// Whether it is a manifest or index, and not a config.
    pub is_manifest: bool,
    /// The digest of its bytes.
    pub digest: Digest,
}

/// A document as a registry gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// Its text: these documents are JSON.
    pub text: String,
    /// What the registry called it.
    pub content_type: Option<String>,
}
