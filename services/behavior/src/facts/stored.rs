//! What scanners stored about images.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bus::Store;
use futures::{FutureExt as _, future::BoxFuture};
use model::{
    Digest, Known, RecordKey, RefRecord, Scanned, Slug, What,
    event::{REFS, REPORT_OBJECTS},
    runtime::LayerFiles,
};

use super::{Facts, ImageFiles};

/// Images of an index that are looked at.
const PLATFORMS_MAX: usize = 64;
/// Layers of an image that are read.
const LAYERS_MAX: usize = 512;

/// Reads records and objects, and keeps what it made of them within a budget.
pub(crate) struct StoredFacts {
    store: Store,
    bytes_max: usize,
    kept: Mutex<Kept>,
}

/// Images by the scan they rest on, the ones used longest ago going first.
#[derive(Default)]
struct Kept {
    images: HashMap<(Slug, Digest), (u64, Use)>,
    bytes: usize,
    /// Counts uses.
    now: u64,
}

struct Use {
    files: Arc<ImageFiles>,
    last: u64,
}

// === impl StoredFacts ===

impl StoredFacts {
    pub(crate) fn new(store: Store, bytes_max: u64) -> Self {
        Self {
            store,
            bytes_max: usize::try_from(bytes_max).unwrap_or(usize::MAX),
            kept: Mutex::default(),
        }
    }

    /// The images that a digest leads to: it is one, or an index's or a config's.
    pub(crate) async fn images(&self, tenant: &Slug, id: &Digest) -> anyhow::Result<Vec<Digest>> {
        let key = format!("{tenant}.{}", id.hex());
        let mut images = match self.store.get::<RefRecord>(REFS, &key).await? {
            Some(stored) => stored.body.images,
            None => vec![*id],
        };
        images.truncate(PLATFORMS_MAX);
        Ok(images)
    }

    /// Whether an image, or one platform of an index, was scanned.
    pub(crate) async fn is_scanned(&self, tenant: &Slug, id: &Digest) -> anyhow::Result<bool> {
        for image in self.images(tenant, id).await? {
            let key = RecordKey::new(tenant, image, What::Scanned);
            if self.store.record::<Scanned>(&key).await?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// The image among those of an index that runs on such a machine.
    async fn chosen(
        &self,
        tenant: &Slug,
        images: Vec<Digest>,
        machine: &str,
    ) -> anyhow::Result<Option<Digest>> {
        if let [only] = images.as_slice() {
            return Ok(Some(*only));
        }
        for image in images {
            let key = RecordKey::new(tenant, image, What::Known);
            let known = self.store.record::<Known>(&key).await?;
            if known.is_some_and(|known| runs_on(&known.body.platform.architecture, machine)) {
                return Ok(Some(image));
            }
        }
        Ok(None)
    }

    async fn find(
        &self,
        tenant: &Slug,
        id: &Digest,
        machine: &str,
    ) -> anyhow::Result<Option<Arc<ImageFiles>>> {
        let images = self.images(tenant, id).await?;
        let Some(image) = self.chosen(tenant, images, machine).await? else {
            return Ok(None);
        };
        let key = RecordKey::new(tenant, image, What::Scanned);
        let Some(scanned) = self.store.record::<Scanned>(&key).await? else {
            return Ok(None);
        };
        if let Some(files) = self.lock().get(tenant, image, scanned.revision) {
            return Ok(Some(files));
        }
        let names = scanned.body.files;
        // A scan of before layers' files were kept, or an image whose layers are not known.
        if names.is_empty() || names.len() > LAYERS_MAX {
            return Ok(None);
        }
        let mut layers = Vec::with_capacity(names.len());
        for name in names {
            layers.push(match name {
                None => None,
                Some(name) => match self
                    .store
                    .object::<LayerFiles>(REPORT_OBJECTS, &name)
                    .await?
                {
                    Some(files) => Some(Arc::new(files)),
                    // It was replaced a moment ago: the record says more the next time.
                    None => return Ok(None),
                },
            });
        }
        let files = Arc::new(ImageFiles::of(image, &layers));
        self.lock()
            .put((tenant, image), scanned.revision, &files, self.bytes_max);
        Ok(Some(files))
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Facts for StoredFacts {
    fn image<'a>(
        &'a self,
        tenant: &'a Slug,
        id: &'a Digest,
        machine: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Option<Arc<ImageFiles>>>> {
        self.find(tenant, id, machine).boxed()
    }
}

/// Whether an architecture of images is that of a machine, as its kernel calls itself.
fn runs_on(architecture: &str, machine: &str) -> bool {
    let called = match architecture {
        "amd64" => "x86_64",
        "arm64" => "aarch64",
        "386" => "i686",
        other => other,
    };
    called == machine || architecture == machine
}

// === impl Kept ===

impl Kept {
    fn get(&mut self, tenant: &Slug, image: Digest, scan: u64) -> Option<Arc<ImageFiles>> {
        self.now = self.now.saturating_add(1);
        let (kept, used) = self.images.get_mut(&(tenant.clone(), image))?;
        if *kept != scan {
            return None;
        }
        used.last = self.now;
        Some(Arc::clone(&used.files))
    }

    fn put(
        &mut self,
        (tenant, image): (&Slug, Digest),
        scan: u64,
        files: &Arc<ImageFiles>,
        bytes_max: usize,
    ) {
        let last = self.now;
        let used = Use {
            files: Arc::clone(files),
            last,
        };
        self.bytes = self.bytes.saturating_add(files.weight());
        let replaced = self.images.insert((tenant.clone(), image), (scan, used));
        if let Some((_, replaced)) = replaced {
            self.bytes = self.bytes.saturating_sub(replaced.files.weight());
        }
        // The one that was just made may stay alone, however large it is.
        while self.bytes > bytes_max && self.images.len() > 1 {
            let oldest = self
                .images
                .iter()
                .filter(|((_, known), _)| *known != image)
                .min_by_key(|(_, (_, used))| used.last)
                .map(|(key, _)| key.clone());
            let Some((_, gone)) = oldest.and_then(|key| self.images.remove(&key)) else {
                break;
            };
            self.bytes = self.bytes.saturating_sub(gone.files.weight());
        }
    }
}

#[cfg(test)]
mod tests {
    use model::{Platform, RefKind, ScannedContents, runtime::LayerFile};

    use super::*;

    fn scanned(files: Vec<Option<Digest>>) -> Scanned {
        Scanned {
            analyzers: Vec::new(),
            packages: Digest::of(b"p"),
            findings: Digest::of(b"f"),
            package_count: 0,
            gap_count: 0,
            scanned_at: jiff::Timestamp::UNIX_EPOCH,
            duration_ms: 0,
            layers_read: 0,
            cause: String::new(),
            unfinished: false,
            contents: ScannedContents::default(),
            files,
            config: model::ScannedConfig::default(),
        }
    }

    fn layer_with_app(content: &str) -> LayerFiles {
        LayerFiles {
            entries: vec![LayerFile {
                path: "bin/app".to_owned(),
                digest: Some(Digest::of(content.as_bytes())),
                kind: model::EntryKind::File,
                link: None,
            }],
            partial: false,
        }
    }

    #[tokio::test]
    async fn the_files_of_an_index_are_those_of_the_nodes_platform() {
        let (store, tenant) = (Store::memory(), Slug::default_tenant());
        let index = Digest::of(b"index");
        let images = [("amd64", "x86"), ("arm64", "arm")];
        let mut digests = Vec::new();
        for (architecture, content) in images {
            let image = Digest::of(architecture.as_bytes());
            let known = Known {
                platform: Platform {
                    os: "linux".to_owned(),
                    architecture: architecture.to_owned(),
                    ..Platform::default()
                },
                ..Known::default()
            };
            let key = RecordKey::new(&tenant, image, What::Known);
            store.put_record(&key, &known, 0).await.unwrap();
            let layer = layer_with_app(content);
            let object = store
                .put_object_of(&tenant, REPORT_OBJECTS, &layer)
                .await
                .unwrap();
            let key = RecordKey::new(&tenant, image, What::Scanned);
            store
                .put_record(&key, &scanned(vec![None, Some(object)]), 0)
                .await
                .unwrap();
            digests.push(image);
        }
        let record = RefRecord {
            kind: RefKind::Index,
            images: digests,
        };
        let key = format!("{tenant}.{}", index.hex());
        store.put(REFS, &key, &record, Some(0)).await.unwrap();
        // A budget for one of them.
        let facts = StoredFacts::new(store, 150);
        for (machine, content) in [("x86_64", "x86"), ("aarch64", "arm"), ("x86_64", "x86")] {
            let files = facts
                .image(&tenant, &index, machine)
                .await
                .unwrap()
                .unwrap();
            assert_eq!(
                files.digest("bin/app"),
                Some(Digest::of(content.as_bytes()))
            );
            assert_eq!(facts.lock().images.len(), 1);
        }
        assert!(
            facts
                .image(&tenant, &index, "riscv64")
                .await
                .unwrap()
                .is_none()
        );
        assert!(facts.is_scanned(&tenant, &index).await.unwrap());
        let other = Digest::of(b"other");
        assert!(!facts.is_scanned(&tenant, &other).await.unwrap());
        assert!(
            facts
                .image(&tenant, &other, "x86_64")
                .await
                .unwrap()
                .is_none()
        );
    }
}
