//! What an image holds: which content is at which path.

mod stored;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use futures::future::BoxFuture;
use model::{
    Digest, EntryKind, Slug,
    runtime::{LayerFile, LayerFiles},
};

pub(crate) use self::stored::StoredFacts;

/// Bytes that an entry takes beside its path.
const ENTRY_BYTES: usize = 96;

/// Knows images.
pub(crate) trait Facts: Send + Sync + 'static {
    /// The files of an image that a runtime knows by this digest, of an index, a manifest or a
    /// config; `machine` decides between the platforms of an index. `None`: nobody has scanned it.
    fn image<'a>(
        &'a self,
        tenant: &'a Slug,
        id: &'a Digest,
        machine: &'a str,
    ) -> BoxFuture<'a, anyhow::Result<Option<Arc<ImageFiles>>>>;
}

/// The files of an image that can run, after whiteouts.
#[derive(Debug, Default)]
pub(crate) struct ImageFiles {
    /// The image, as the fabric knows it.
    pub(crate) image: Option<Digest>,
    files: HashMap<Box<str>, Digest>,
    digests: HashSet<Digest>,
    /// Whether a layer could not be read whole.
    partial: bool,
}

// === impl ImageFiles ===

impl ImageFiles {
    /// Lays layers over each other, base first; `None` is a layer without anything of it.
    pub(crate) fn of(image: Digest, layers: &[Option<Arc<LayerFiles>>]) -> Self {
        let mut files: HashMap<Box<str>, Digest> = HashMap::new();
        let mut partial = false;
        for layer in layers.iter().flatten() {
            partial |= layer.partial;
            remove_hidden(&mut files, &layer.entries);
            for entry in &layer.entries {
                match (entry.kind, entry.digest) {
                    (EntryKind::File, Some(digest)) => {
                        files.insert(entry.path.as_str().into(), digest);
                    }
                    (EntryKind::Hardlink, _) => {
                        let to = entry
                            .link
                            .as_deref()
                            .map(|link| link.trim_start_matches('/'));
                        let linked = to.and_then(|to| files.get(to).copied());
                        if let Some(digest) = entry.digest.or(linked) {
                            files.insert(entry.path.as_str().into(), digest);
                        }
                    }
                    // The kernel names what a link leads to.
                    _ => {}
                }
            }
        }
        let digests = files.values().copied().collect();
        Self {
            image: Some(image),
            files,
            digests,
            partial,
        }
    }

    /// The content that the image has at a path.
    pub(crate) fn digest(&self, path: &str) -> Option<Digest> {
        self.files.get(path).copied()
    }

    /// Whether the image has this content anywhere.
    pub(crate) fn holds(&self, digest: &Digest) -> bool {
        self.digests.contains(digest)
    }

    /// Whether files of it are not known.
    pub(crate) fn is_partial(&self) -> bool {
        self.partial
    }

    /// Bytes of memory, about.
    pub(crate) fn weight(&self) -> usize {
        let paths: usize = self.files.keys().map(|path| path.len()).sum();
        paths.saturating_add(self.files.len().saturating_mul(ENTRY_BYTES))
    }

    #[cfg(test)]
    pub(crate) fn for_tests(files: &[(&str, &str)]) -> Self {
        let entry = |(path, content): &(&str, &str)| LayerFile {
            path: (*path).to_owned(),
            digest: Some(Digest::of(content.as_bytes())),
            kind: EntryKind::File,
            link: None,
        };
        let layer = LayerFiles {
            entries: files.iter().map(entry).collect(),
            partial: false,
        };
        Self::of(Digest::of(b"image"), &[Some(Arc::new(layer))])
    }
}

/// Takes away what a layer hides of those below it: a whiteout its path and all below, an opaque
/// directory all below, and anything that is no directory what was one before.
fn remove_hidden(files: &mut HashMap<Box<str>, Digest>, entries: &[LayerFile]) {
    let (mut gone, mut emptied) = (HashSet::new(), HashSet::new());
    for entry in entries {
        match entry.kind {
            EntryKind::Opaque => {
                emptied.insert(entry.path.as_str());
            }
            EntryKind::Directory => {}
            // A new file replaces what was there; a link hides a directory of that name.
            _ => {
                gone.insert(entry.path.as_str());
            }
        }
    }
    if files.is_empty() {
        return;
    }
    let everything = emptied.contains("");
    files.retain(|path, _| {
        if everything || gone.contains(&**path) {
            return false;
        }
        let mut above = parents(path);
        !above.any(|dir| gone.contains(dir) || emptied.contains(dir))
    });
}

/// The directories above a path, the nearest first.
fn parents(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(path.rsplit_once('/').map(|(dir, _)| dir), |dir| {
        dir.rsplit_once('/').map(|(above, _)| above)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(entries: &[(&str, EntryKind, &str)]) -> Arc<LayerFiles> {
        let entries = entries.iter().map(|(path, kind, content)| LayerFile {
            path: (*path).to_owned(),
            digest: (*kind == EntryKind::File).then(|| Digest::of(content.as_bytes())),
            kind: *kind,
            link: (*kind != EntryKind::File).then(|| (*content).to_owned()),
        });
        let entries = entries.collect();
        Arc::new(LayerFiles {
            entries,
            partial: false,
        })
    }

    fn paths(layers: &[Option<Arc<LayerFiles>>]) -> String {
        let image = ImageFiles::of(Digest::of(b"i"), layers);
        let mut paths: Vec<String> = image
            .files
            .iter()
            .map(|(path, digest)| format!("{path}={}", digest.short().get(..2).unwrap()))
            .collect();
        paths.sort();
        assert!(!image.is_partial());
        paths.join(" ")
    }

    #[test]
    fn layers_hide_what_lies_below_them_and_nothing_of_their_own() {
        use EntryKind::{File, Hardlink, Opaque, Symlink, Whiteout};
        let base = layer(&[
            ("bin/a", File, "a"),
            ("bin/b", File, "b"),
            ("opt/x/c", File, "c"),
            ("opt/y/d", File, "d"),
            ("usr/e", File, "e"),
        ]);
        let all = paths(&[Some(base.clone()), None]);
        insta::assert_snapshot!(all, @"bin/a=ca bin/b=3e opt/x/c=2e opt/y/d=18 usr/e=3f");
        let over = layer(&[
            ("bin/a", Whiteout, ""),
            ("bin/b", File, "a"),
            ("opt/x", Opaque, ""),
            ("opt/x/new", File, "b"),
            ("opt/y", Whiteout, ""),
            ("opt/y/again", File, "b"),
            ("usr", Symlink, "bin"),
            ("bin/hard", Hardlink, "bin/b"),
        ]);
        let merged = paths(&[Some(base.clone()), Some(over)]);
        insta::assert_snapshot!(merged, @"bin/b=ca bin/hard=ca opt/x/new=3e opt/y/again=3e");
        let nothing = layer(&[("", Opaque, ""), ("z", File, "a")]);
        insta::assert_snapshot!(paths(&[Some(base), Some(nothing)]), @"z=ca");
    }
}
