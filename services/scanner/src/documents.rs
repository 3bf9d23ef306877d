//! Manifests and configs beside the layers' sections: what has a digest is fetched once.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use cache::SectionCache;
use chassis::Cx;
use futures::future::BoxFuture;
use model::{AnalyzerId, Hasher, SectionKey, Slug};
use oci::{Document, DocumentName, DocumentStore};

/// The name under which they stand among the sections.
const NAME: &str = "document";
const VERSION: u32 = 1;

/// Documents in the layer cache. Sources are made before the cache is open: until then it is empty
/// and keeps nothing.
#[derive(Default)]
pub struct Documents {
    kept: OnceLock<Kept>,
}

struct Kept {
    cx: Cx,
    cache: Arc<SectionCache>,
    domain: Slug,
}

// === impl Documents ===

impl Documents {
    /// Documents of this cache and domain.
    pub fn new(cx: Cx, cache: Arc<SectionCache>, domain: Slug) -> Self {
        let documents = Self::default();
        documents.keep_in(cx, cache, domain);
        documents
    }

    /// From now on they are kept here; the first cache stays.
    pub(crate) fn keep_in(&self, cx: Cx, cache: Arc<SectionCache>, domain: Slug) {
        self.kept.get_or_init(|| Kept { cx, cache, domain });
    }
}

impl DocumentStore for Documents {
    fn get<'a>(&'a self, name: &'a DocumentName<'a>) -> BoxFuture<'a, Option<Document>> {
        Box::pin(async move {
            let kept = self.kept.get()?;
            let (cache, key) = (Arc::clone(&kept.cache), kept.key(name));
            let found = kept.cx.blocking(move || cache.get(&key)).await;
            let (text, content_type) = found.ok()??;
            Some(Document { text, content_type })
        })
    }

    fn put<'a>(&'a self, name: &'a DocumentName<'a>, document: Document) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(kept) = self.kept.get() else { return };
            let (cache, key) = (Arc::clone(&kept.cache), kept.key(name));
            let Document { text, content_type } = document;
            let put = kept
                .cx
                .blocking(move || cache.put(&key, &(text, content_type)));
            if let Ok(Err(error)) = put.await {
                tracing::debug!("a document is not kept: {error}");
            }
        })
    }
}

impl fmt::Debug for Documents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Documents")
            .field("is_open", &self.kept.get().is_some())
            .finish_non_exhaustive()
    }
}

// === impl Kept ===

impl Kept {
    fn key(&self, name: &DocumentName<'_>) -> SectionKey {
        let mut hasher = Hasher::default();
        hasher.update(&[u8::from(name.is_manifest)]);
        for text in [name.host, name.repository] {
            hasher.update(&(text.len() as u64).to_be_bytes());
            hasher.update(text.as_bytes());
        }
        SectionKey {
            domain: self.domain.clone(),
            blob: name.digest,
            analyzer: AnalyzerId {
                name: NAME.to_owned(),
                version: VERSION,
                config: hasher.finish(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use model::Digest;

    use super::*;

    #[tokio::test]
    async fn a_document_is_found_under_its_whole_name_alone() {
        let (cx, dir) = (Cx::for_tests(), testkit::temp_dir());
        let name = DocumentName {
            host: "registry.example",
            repository: "team/app",
            is_manifest: true,
            digest: Digest::of(b"{}"),
        };
        let document = Document {
            text: "{}".to_owned(),
            content_type: Some("application/json".to_owned()),
        };
        let documents = Documents::default();
        documents.put(&name, document.clone()).await;
        assert_eq!(documents.get(&name).await, None, "there is no cache yet");

        let cache = Arc::new(SectionCache::open(dir.path(), 1 << 20).unwrap());
        documents.keep_in(cx, cache, Slug::default_tenant());
        documents.put(&name, document.clone()).await;
        assert_eq!(documents.get(&name).await, Some(document));
        for other in [
            DocumentName {
                host: "registry.example2",
                ..name
            },
            DocumentName {
                repository: "team",
                ..name
            },
            DocumentName {
                is_manifest: false,
                ..name
            },
            DocumentName {
                digest: Digest::of(b"[]"),
                ..name
            },
        ] {
            assert_eq!(documents.get(&other).await, None);
        }
    }
}
