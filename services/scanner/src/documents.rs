//! Manifests and configs beside the layers' sections: what has a digest is fetched once.
//!
//! A document that holds a secret, or a variable that looks like one, is not kept, but fetched each time: no
//! disk of ours gets to hold one.

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use analyzers::SecretsConfig;
use cache::SectionCache;
use chassis::Cx;
use futures::future::BoxFuture;
use model::{AnalyzerId, Hasher, SectionKey, Slug};
use oci::{Document, DocumentName, DocumentStore};

/// The name under which they stand among the sections.
const NAME: &str = "document";
const VERSION: u32 = 2;

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
    secrets: SecretsConfig,
}

// === impl Documents ===

impl Documents {
    /// Documents of this cache and domain. `secrets` says what makes one not to be kept.
    pub fn new(cx: Cx, cache: Arc<SectionCache>, domain: Slug, secrets: SecretsConfig) -> Self {
        let documents = Self::default();
        documents.keep_in(cx, cache, domain, secrets);
        documents
    }

    /// From now on they are kept here; the first cache stays.
    pub(crate) fn keep_in(
        &self,
        cx: Cx,
        cache: Arc<SectionCache>,
        domain: Slug,
        secrets: SecretsConfig,
    ) {
        self.kept.get_or_init(|| Kept {
            cx,
            cache,
            domain,
            secrets,
        });
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
            let secrets = kept.secrets.clone();
            let put = kept.cx.blocking(move || {
                if analyzers::holds_secret(&text, &secrets) {
                    return Ok(());
                }
                cache.put(&key, &(text, content_type))
            });
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
        let domain = Slug::default_tenant();
        documents.keep_in(cx, cache, domain, SecretsConfig::default());
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

    #[tokio::test]
    async fn a_document_with_a_secret_is_not_kept() {
        let (cx, dir) = (Cx::for_tests(), testkit::temp_dir());
        let cache = Arc::new(SectionCache::open(dir.path(), 1 << 20).unwrap());
        let (domain, secrets) = (Slug::default_tenant(), SecretsConfig::default());
        let documents = Documents::new(cx, cache, domain, secrets);
        let password = ["hV7qd", "T2mXw9", "Lr4"].concat();
        let url = format!("postgres://app:{password}@db.example.org/app");
        let check = async |text: serde_json::Value, is_kept: bool| {
            let text = text.to_string();
            let name = DocumentName {
                host: "registry.example",
                repository: "team/app",
                is_manifest: false,
                digest: Digest::of(text.as_bytes()),
            };
            let document = Document {
                text,
                content_type: None,
            };
            documents.put(&name, document.clone()).await;
            let expected = is_kept.then_some(document);
            assert_eq!(documents.get(&name).await, expected);
        };
        let env = |value: &str| serde_json::json!({"config": {"Env": [value]}});
        check(env("PATH=/usr/bin"), true).await;
        check(
            env("GPG_KEY=A035C8C19219BA821ECEA86B64E628F8D684696D"),
            true,
        )
        .await;
        // Nobody knows what it is, and somebody may.
        check(env(&format!("LICENSE={password}9Zk2Qw")), false).await;
        check(env(&format!("DATABASE={url}")), false).await;
        check(env(&format!("DB_PASSWORD={password}")), false).await;
        let label = serde_json::json!({"config": {"Labels": {"source": url}}});
        check(label, false).await;
        let step = format!("|1 DB_PASSWORD={password} /bin/sh -c make");
        let history = serde_json::json!({"history": [{"created_by": step}]});
        check(history, false).await;
        let annotations = serde_json::json!({"annotations": {"source": url}});
        check(annotations, false).await;
    }
}
