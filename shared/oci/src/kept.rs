//! Manifests and configs that somebody read already, for another process to make images of.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use futures::{FutureExt as _, future::BoxFuture};
use model::Digest;

use crate::{
    Limits, OciError,
    resolve::{self, Documents, Fetched},
    source::{Descriptor, Image, Wanted},
};

/// A document that is larger is not kept: it is read again by who needs it.
const DOCUMENT_BYTES_MAX: usize = 64 << 10;

/// Manifests and configs, each under the digest that its bytes have.
#[derive(Clone, Default)]
pub struct Kept {
    documents: HashMap<Digest, Vec<u8>>,
    limits: Limits,
}

/// Reads documents, and keeps a copy of each.
pub(crate) struct Keeping<'a> {
    from: &'a dyn Documents,
    kept: Mutex<Kept>,
}

// === impl Kept ===

impl Kept {
    /// Documents that came from anywhere: what each is called follows from its bytes.
    pub fn of(documents: impl IntoIterator<Item = Vec<u8>>) -> Self {
        let named = documents
            .into_iter()
            .map(|bytes| (Digest::of(&bytes), bytes));
        Self {
            documents: named.collect(),
            limits: Limits::default(),
        }
    }

    /// The bytes of a document.
    pub fn get(&self, digest: &Digest) -> Option<&[u8]> {
        self.documents.get(digest).map(Vec::as_slice)
    }

    /// The image whose manifest has this digest, as its source would give it. An error says that
    /// its manifest or config is not here, or what is wrong with them.
    pub async fn image(&self, repository: &str, digest: Digest) -> Result<Image, OciError> {
        let wanted = Wanted::by_digest(repository, digest);
        let root = self.manifest(repository, digest).await?;
        let resolved = resolve::follow(self, &wanted, wanted.name(), root).await?;
        let image = resolved.images.into_iter().next();
        let image = image.filter(|image| image.digest == digest);
        let image = image.ok_or_else(|| missing(digest))?;
        // A config that is not here would be one that cannot be read.
        if self.get(&image.image_id).is_none() {
            return Err(missing(image.image_id));
        }
        Ok(image)
    }

    fn keep(&mut self, digest: Digest, bytes: &[u8]) {
        if bytes.len() <= DOCUMENT_BYTES_MAX {
            self.documents.insert(digest, bytes.to_vec());
        }
    }
}

impl Documents for Kept {
    fn manifest<'a>(
        &'a self,
        _repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>> {
        let fetched = self.get(&digest).map(|bytes| Fetched {
            bytes: bytes.to_vec(),
            digest,
            content_type: None,
        });
        std::future::ready(fetched.ok_or_else(|| missing(digest))).boxed()
    }

    fn config<'a>(
        &'a self,
        _repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>> {
        let found = self.get(&config.digest).map(<[u8]>::to_vec);
        std::future::ready(found.ok_or_else(|| missing(config.digest))).boxed()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.documents.keys()).finish()
    }
}

// === impl Keeping ===

impl<'a> Keeping<'a> {
    /// Reads from `from`; `root` was read already.
    pub(crate) fn new(from: &'a dyn Documents, root: &Fetched) -> Self {
        let mut kept = Kept::default();
        kept.keep(root.digest, &root.bytes);
        Self {
            from,
            kept: Mutex::new(kept),
        }
    }

    /// What was read.
    pub(crate) fn kept(self) -> Kept {
        self.kept
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn keep(&self, digest: Digest, bytes: &[u8]) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keep(digest, bytes);
    }
}

impl Documents for Keeping<'_> {
    fn manifest<'a>(
        &'a self,
        repository: &'a str,
        digest: Digest,
    ) -> BoxFuture<'a, Result<Fetched, OciError>> {
        Box::pin(async move {
            let fetched = self.from.manifest(repository, digest).await?;
            self.keep(fetched.digest, &fetched.bytes);
            Ok(fetched)
        })
    }

    fn config<'a>(
        &'a self,
        repository: &'a str,
        config: &'a Descriptor,
    ) -> BoxFuture<'a, Result<Vec<u8>, OciError>> {
        Box::pin(async move {
            let bytes = self.from.config(repository, config).await?;
            self.keep(config.digest, &bytes);
            Ok(bytes)
        })
    }

    fn limits(&self) -> &Limits {
        self.from.limits()
    }
}

fn missing(digest: Digest) -> OciError {
    OciError::NotFound {
        what: format!("document `{digest}`"),
        place: "what was handed over".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONFIG: &str = r#"{"os": "linux", "architecture": "amd64",
        "config": {"User": "app"}, "rootfs": {"type": "layers", "diff_ids": []}}"#;

    fn manifest(config: Digest) -> Vec<u8> {
        let text = serde_json::json!({
            "schemaVersion": 2,
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": config,
                "size": CONFIG.len(),
            },
            "layers": [],
        });
        text.to_string().into_bytes()
    }

    #[tokio::test]
    async fn an_image_is_made_of_what_was_handed_over() {
        let config = Digest::of(CONFIG.as_bytes());
        let manifest = manifest(config);
        let digest = Digest::of(&manifest);
        let kept = Kept::of([manifest, CONFIG.as_bytes().to_vec()]);
        let image = kept.image("app", digest).await.unwrap();
        assert_eq!((image.digest, image.image_id), (digest, config));
        assert_eq!(image.config.runtime.user.as_deref(), Some("app"));
        assert!(image.gaps.is_empty(), "{:?}", image.gaps);
    }

    #[tokio::test]
    async fn other_bytes_than_those_of_the_digest_are_no_image() {
        let manifest = manifest(Digest::of(CONFIG.as_bytes()));
        let digest = Digest::of(&manifest);
        let other_config = CONFIG.replace("app", "root").into_bytes();
        let mut other_manifest = manifest.clone();
        other_manifest.push(b' ');
        for documents in [
            vec![manifest.clone()],
            vec![manifest, other_config],
            vec![other_manifest, CONFIG.as_bytes().to_vec()],
            vec![],
        ] {
            let refused = Kept::of(documents).image("app", digest).await;
            assert!(refused.is_err_and(|error| error.is_not_found()));
        }
    }
}
