//! The files of layers that can run, as objects: what drift of containers is told by.
//!
//! Each layer has one object, named by its content, whatever images it is in. Several images name
//! it, so no scan ever deletes one: what no image names any more is collected by the bus. A process
//! remembers what it stored of late, so that an image whose layers are known costs no message.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use analyzers::{EntryRef, PreparedLayer};
use anyhow::Context as _;
use bus::Store;
use chassis::{Cx, Recent};
use model::{
    AnalyzerId, Digest, EntryKind, Gap, GapCode, Hides, Slug,
    event::REPORT_OBJECTS,
    runtime::{LayerFile, LayerFiles},
};

/// Bytes of memory for what was stored: some ten thousand layers.
const SEEN_BYTES_MAX: usize = 2 << 20;

/// Entries of a layer that is packed at once.
const SMALL_ENTRIES: usize = 64;

/// Stores the files of layers, each once.
pub(crate) struct FileObjects {
    cx: Cx,
    store: Store,
    entries_max: usize,
    /// For how long what was stored may be named without storing it again; `None`: for ever.
    reuse_for: Option<Duration>,
    seen: Mutex<Recent<Name, Kept>>,
}

/// What the files of a layer follow from.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Name {
    tenant: Slug,
    blob: Digest,
    /// The configuration of who read the entries: its limits decide how many there are.
    limits: Digest,
}

/// What became of a layer's files.
#[derive(Clone, Copy)]
struct Kept {
    object: Option<Digest>,
    is_cut: bool,
    stored_at: Instant,
}

// === impl FileObjects ===

impl FileObjects {
    pub(crate) fn new(cx: Cx, store: Store) -> Self {
        Self {
            cx,
            entries_max: LayerFiles::ENTRIES_MAX,
            reuse_for: store.reuse_for(),
            store,
            seen: Mutex::new(Recent::new(SEEN_BYTES_MAX)),
        }
    }

    #[cfg(test)]
    fn at_most(self, entries_max: usize) -> Self {
        Self {
            entries_max,
            ..self
        }
    }

    #[cfg(test)]
    fn reusing_for(self, reuse_for: Duration) -> Self {
        Self {
            reuse_for: Some(reuse_for),
            ..self
        }
    }

    /// The objects of an image's layers, base layer first; `None` where a layer has nothing of it.
    /// `entries` is who read them. A layer that has too many leaves a gap.
    pub(crate) async fn of(
        &self,
        tenant: &Slug,
        entries: &AnalyzerId,
        layers: &[Arc<PreparedLayer>],
        gaps: &mut Vec<Gap>,
    ) -> anyhow::Result<Vec<Option<Digest>>> {
        let mut objects = Vec::with_capacity(layers.len());
        for layer in layers {
            let name = Name {
                tenant: tenant.clone(),
                blob: layer.blob,
                limits: entries.config,
            };
            let kept = match self.seen(&name) {
                Some(kept) => kept,
                None => self.stored(name, layer).await?,
            };
            if kept.is_cut {
                let max = self.entries_max;
                let detail = format!(
                    "the layer has more than {max} files and links that drift is told by; the rest is left out of it"
                );
                let gap = Gap::new(GapCode::LimitEntries, Hides::Nothing, detail);
                gaps.push(gap.in_layer(layer.blob));
            }
            objects.push(kept.object);
        }
        Ok(objects)
    }

    fn seen(&self, name: &Name) -> Option<Kept> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let kept = seen.get(name)?;
        let is_recent = |max: Duration| kept.stored_at.elapsed() < max;
        let stays = kept.object.is_none() || self.reuse_for.is_none_or(is_recent);
        stays.then_some(kept)
    }

    async fn stored(&self, name: Name, layer: &Arc<PreparedLayer>) -> anyhow::Result<Kept> {
        let stored_at = Instant::now();
        let is_small = layer.entries.len() <= SMALL_ENTRIES;
        let (layer, tenant, max) = (Arc::clone(layer), name.tenant.clone(), self.entries_max);
        let pack = move || {
            let (files, is_cut) = files(&layer, max);
            let is_lasting = layer.transient_gaps.is_empty() && layer.entries.diff_id.is_some();
            let is_empty = files.entries.is_empty() && !files.partial;
            let bytes = (!is_empty).then(|| Store::packed_of(&tenant, &files));
            bytes.transpose().map(|bytes| (bytes, is_cut, is_lasting))
        };
        // Most new layers are small: handing them to another thread costs more than they do.
        let packed = if is_small {
            pack()
        } else {
            self.cx.compute(pack).await.context("packing files")?
        };
        let (bytes, is_cut, is_lasting) = packed.context("packing files")?;
        let object = match bytes {
            None => None,
            Some(bytes) => {
                let put = self.store.put_object_bytes(REPORT_OBJECTS, bytes).await;
                Some(put.with_context(|| format!("storing the files of layer `{}`", name.blob))?)
            }
        };
        let kept = Kept {
            object,
            is_cut,
            stored_at,
        };
        if is_lasting {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            let bytes = size_of::<(Name, Kept)>() + name.tenant.as_str().len();
            seen.put(name, kept, bytes);
        }
        Ok(kept)
    }
}

impl std::fmt::Debug for FileObjects {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("FileObjects")
            .field("entries_max", &self.entries_max)
            .finish_non_exhaustive()
    }
}

/// The files of a layer, at most so many of them, and whether it has more.
fn files(layer: &PreparedLayer, max: usize) -> (LayerFiles, bool) {
    let mut wanted = layer.entries.iter().filter(counts);
    let entries: Vec<LayerFile> = wanted.by_ref().take(max).map(file).collect();
    let is_cut = wanted.next().is_some();
    let gaps = layer.entries.gaps.iter().chain(&layer.transient_gaps);
    // A path that leaves the root is no path of the image.
    let mut hidden =
        gaps.filter(|gap| gap.hides == Hides::Entries && gap.code != GapCode::UnsafePath);
    let partial = is_cut || hidden.next().is_some() || layer.entries.diff_id.is_none();
    (LayerFiles { entries, partial }, is_cut)
}

/// Whether an entry says which content that can run a path has.
const fn counts(entry: &EntryRef<'_>) -> bool {
    match entry.kind {
        EntryKind::Whiteout | EntryKind::Opaque => true,
        EntryKind::Symlink | EntryKind::Hardlink => entry.link.is_some(),
        EntryKind::File | EntryKind::Directory | EntryKind::Special => entry.digest.is_some(),
    }
}

fn file(entry: EntryRef<'_>) -> LayerFile {
    LayerFile {
        path: entry.path.to_owned(),
        digest: entry.digest.copied(),
        kind: entry.kind,
        link: entry.link.map(ToOwned::to_owned),
    }
}

#[cfg(test)]
mod tests {
    use model::{Entries, LayerEntry, LayerReport};

    use super::*;

    fn entry(path: &str, kind: EntryKind, digest: Option<&str>, link: Option<&str>) -> LayerEntry {
        LayerEntry {
            path: path.to_owned(),
            kind,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: 1,
            link: link.map(ToOwned::to_owned),
            capabilities: None,
            digest: digest.map(|text| Digest::of(text.as_bytes())),
        }
    }

    fn layer(name: &str, entries: Vec<LayerEntry>, transient: Vec<Gap>) -> Arc<PreparedLayer> {
        Arc::new(PreparedLayer::new(LayerReport {
            blob: Digest::of(name.as_bytes()),
            entries: Arc::new(Entries {
                diff_id: Some(Digest::of(b"diff")),
                entries,
                ..Entries::default()
            }),
            sections: Vec::new(),
            transient_gaps: transient,
        }))
    }

    fn reader(limits: &str) -> AnalyzerId {
        AnalyzerId {
            name: "entries".to_owned(),
            version: 1,
            config: Digest::of(limits.as_bytes()),
        }
    }

    async fn read(store: &Store, object: &Digest) -> LayerFiles {
        let read = store.object(REPORT_OBJECTS, object).await;
        read.unwrap().expect("the object is there")
    }

    fn objects(store: &Store) -> FileObjects {
        FileObjects::new(Cx::for_tests(), store.clone())
    }

    #[tokio::test]
    async fn a_layer_is_what_can_run_and_what_hides_or_leads_to_it() {
        let store = Store::memory();
        let all = layer(
            "layer",
            vec![
                entry("etc", EntryKind::Directory, None, None),
                entry("etc/motd", EntryKind::File, None, None),
                entry("usr/bin/ls", EntryKind::File, Some("ls"), None),
                entry("bin", EntryKind::Symlink, None, Some("usr/bin")),
                entry("usr/bin/dir", EntryKind::Hardlink, None, Some("usr/bin/ls")),
                entry("usr/bin/vi", EntryKind::Whiteout, None, None),
                entry("opt", EntryKind::Opaque, None, None),
                entry("dev/null", EntryKind::Special, None, None),
            ],
            Vec::new(),
        );
        let plain = layer(
            "text",
            vec![entry("etc/motd", EntryKind::File, None, None)],
            Vec::new(),
        );
        let mut gaps = Vec::new();
        let named = objects(&store)
            .of(
                &Slug::default_tenant(),
                &reader("x"),
                &[all, plain],
                &mut gaps,
            )
            .await
            .unwrap();
        let [Some(object), None] = named.as_slice() else {
            panic!("the second layer has nothing that runs: {named:?}");
        };
        let files = read(&store, object).await;
        let paths: Vec<_> = files.entries.iter().map(|file| &*file.path).collect();
        assert_eq!(
            paths,
            ["usr/bin/ls", "bin", "usr/bin/dir", "usr/bin/vi", "opt"]
        );
        assert_eq!(files.entries[0].digest, Some(Digest::of(b"ls")));
        assert_eq!(files.entries[1].link.as_deref(), Some("usr/bin"));
        assert!(!files.partial && gaps.is_empty());
    }

    #[tokio::test]
    async fn images_on_one_base_name_one_object_that_is_stored_once() {
        let (store, tenant) = (Store::memory(), Slug::default_tenant());
        let base = || {
            let entries = vec![entry("bin/sh", EntryKind::File, Some("sh"), None)];
            layer("base", entries, Vec::new())
        };
        let top = |name: &str| {
            let entries = vec![entry(name, EntryKind::File, Some(name), None)];
            layer(name, entries, Vec::new())
        };
        let (objects, id, mut gaps) = (objects(&store), reader("x"), Vec::new());
        let one = objects
            .of(&tenant, &id, &[base(), top("one")], &mut gaps)
            .await
            .unwrap();
        // What is known costs no message: it would be there again otherwise.
        let shared = one[0].unwrap();
        store.delete_object(REPORT_OBJECTS, &shared).await.unwrap();
        let two = objects
            .of(&tenant, &id, &[base(), top("two")], &mut gaps)
            .await
            .unwrap();
        assert_eq!(two[0], Some(shared));
        assert_ne!(one[1], two[1]);
        let gone = store.object::<LayerFiles>(REPORT_OBJECTS, &shared).await;
        assert_eq!(gone.unwrap(), None);

        // Another process stores the same object, another tenant one of its own.
        let again = self::objects(&store);
        let same = again.of(&tenant, &id, &[base()], &mut gaps).await.unwrap();
        assert_eq!(same, [Some(shared)]);
        assert_eq!(read(&store, &shared).await.entries.len(), 1);
        let other = "other".parse().unwrap();
        let other = again.of(&other, &id, &[base()], &mut gaps).await.unwrap();
        assert_ne!(other, same);
    }

    #[tokio::test]
    async fn what_was_stored_long_ago_is_stored_again_before_it_is_named() {
        let (store, tenant, id) = (Store::memory(), Slug::default_tenant(), reader("x"));
        let base = || {
            let entries = vec![entry("bin/sh", EntryKind::File, Some("sh"), None)];
            layer("base", entries, Vec::new())
        };
        for (reuse_for, is_there) in [(Duration::ZERO, true), (Duration::MAX, false)] {
            let objects = objects(&store).reusing_for(reuse_for);
            let mut gaps = Vec::new();
            let named = objects.of(&tenant, &id, &[base()], &mut gaps).await;
            let object = named.unwrap()[0].unwrap();
            // As the bus collects what nobody names.
            store.delete_object(REPORT_OBJECTS, &object).await.unwrap();
            let again = objects.of(&tenant, &id, &[base()], &mut gaps).await;
            assert_eq!(again.unwrap(), [Some(object)]);
            let found = store.object::<LayerFiles>(REPORT_OBJECTS, &object).await;
            assert_eq!(found.unwrap().is_some(), is_there, "{reuse_for:?}");
        }
    }

    #[tokio::test]
    async fn a_layer_with_too_many_files_says_so_each_time_and_one_at_the_limit_does_not() {
        let (store, tenant, id) = (Store::memory(), Slug::default_tenant(), reader("x"));
        let of = |count: usize| {
            let names = (0..count).map(|n| format!("bin/{n}"));
            let entries = names.map(|name| entry(&name, EntryKind::File, Some(&name), None));
            layer(&count.to_string(), entries.collect(), Vec::new())
        };
        let objects = objects(&store).at_most(3);
        for (count, is_cut) in [(3, false), (4, true), (4, true)] {
            let mut gaps = Vec::new();
            let named = objects.of(&tenant, &id, &[of(count)], &mut gaps).await;
            let files = read(&store, &named.unwrap()[0].unwrap()).await;
            assert_eq!((files.entries.len(), files.partial), (3, is_cut));
            let codes: Vec<_> = gaps.iter().map(|gap| (gap.code, gap.hides)).collect();
            let expected = is_cut.then_some((GapCode::LimitEntries, Hides::Nothing));
            assert_eq!(codes, expected.into_iter().collect::<Vec<_>>());
        }
    }

    #[tokio::test]
    async fn a_layer_that_was_not_read_whole_says_so_and_is_looked_at_again() {
        let (store, tenant, id) = (Store::memory(), Slug::default_tenant(), reader("x"));
        let gap = Gap::new(GapCode::LayerUnavailable, Hides::Entries, "403");
        let objects = objects(&store);
        let unread = layer("layer", Vec::new(), vec![gap]);
        let named = objects.of(&tenant, &id, &[unread], &mut Vec::new()).await;
        let object = named.unwrap()[0].expect("it does not read as a layer without files");
        assert!(read(&store, &object).await.partial);

        let whole = vec![entry("bin/sh", EntryKind::File, Some("sh"), None)];
        let whole = layer("layer", whole, Vec::new());
        let named = objects.of(&tenant, &id, &[whole], &mut Vec::new()).await;
        let files = read(&store, &named.unwrap()[0].unwrap()).await;
        assert_eq!((files.entries.len(), files.partial), (1, false));
    }
}
