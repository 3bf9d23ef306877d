//! Layers that were used of late, decoded and ready, in the memory of this process.

use std::{
    collections::{BTreeMap, HashMap},
    fmt, mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use analyzers::PreparedLayer;
use model::{Digest, FoundPackage, Gap, Section};

use crate::metrics;

/// Bounded in bytes; what was used longest ago goes first.
pub(super) struct Memory {
    bytes_max: u64,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    layers: HashMap<Digest, Held>,
    /// When each was used last -> its name.
    used: BTreeMap<u64, Digest>,
    /// Counts uses.
    now: u64,
    bytes: u64,
}

struct Held {
    layer: Arc<PreparedLayer>,
    bytes: u64,
    used: u64,
}

// === impl Memory ===

impl Memory {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max,
            state: Mutex::default(),
        }
    }

    pub(super) fn get(&self, name: &Digest) -> Option<Arc<PreparedLayer>> {
        let mut state = self.state();
        let State {
            layers, used, now, ..
        } = &mut *state;
        let held = layers.get_mut(name)?;
        *now += 1;
        used.remove(&mem::replace(&mut held.used, *now));
        used.insert(*now, *name);
        Some(Arc::clone(&held.layer))
    }

    /// Keeps a layer, unless it alone would drive out most others.
    pub(super) fn put(&self, name: Digest, layer: &Arc<PreparedLayer>) {
        if self.bytes_max == 0 {
            return;
        }
        let bytes = weight(layer);
        if bytes > self.bytes_max / 4 {
            return;
        }
        let mut state = self.state();
        state.remove(&name);
        state.now += 1;
        let used = state.now;
        let layer = Arc::clone(layer);
        state.layers.insert(name, Held { layer, bytes, used });
        state.used.insert(used, name);
        state.bytes += bytes;
        while state.bytes > self.bytes_max {
            let Some((_, oldest)) = state.used.first_key_value() else {
                break;
            };
            let oldest = *oldest;
            state.remove(&oldest);
        }
        metrics::memory(state.bytes);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory")
            .field("bytes", &self.state().bytes)
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

// === impl State ===

impl State {
    fn remove(&mut self, name: &Digest) {
        if let Some(held) = self.layers.remove(name) {
            self.used.remove(&held.used);
            self.bytes -= held.bytes;
        }
    }
}

/// About how many bytes a layer takes in memory.
fn weight(layer: &PreparedLayer) -> u64 {
    let entries = layer.packed_bytes() + gaps(&layer.entries.gaps);
    let sections: usize = layer
        .sections
        .iter()
        .map(|section| of_section(section))
        .sum();
    u64::try_from(entries + sections + 512).unwrap_or(u64::MAX)
}

fn of_section(section: &Section) -> usize {
    /// What a finding or an operating system takes with its texts: there are few.
    const OTHER: usize = 1024;
    let packages: usize = section.packages.iter().map(of_package).sum();
    let others = (section.findings.len() + section.licenses.len() + section.os.len() + 1) * OTHER;
    packages + others + gaps(&section.gaps)
}

fn of_package(package: &FoundPackage) -> usize {
    let lists = package.licenses.iter().chain(&package.depends_on);
    let lists: usize = lists
        .map(|item| size_of::<String>() + item.capacity())
        .sum();
    let names = package.name.capacity() + package.version.capacity() + package.path.capacity();
    let more = text(package.arch.as_ref())
        + text(package.source_name.as_ref())
        + text(package.source_version.as_ref());
    size_of::<FoundPackage>() + names + more + lists
}

fn gaps(gaps: &[Gap]) -> usize {
    gaps.iter()
        .map(|gap| size_of::<Gap>() + text(gap.path.as_ref()) + gap.detail.capacity())
        .sum()
}

fn text(text: Option<&String>) -> usize {
    text.map_or(0, String::capacity)
}

#[cfg(test)]
mod tests {
    use model::{Entries, EntryKind, LayerEntry, LayerReport};

    use super::*;

    fn layer(number: u32, entries: usize) -> Arc<PreparedLayer> {
        let entry = |n: usize| LayerEntry {
            path: format!("usr/share/doc/package-{number}/file-{n:08}"),
            kind: EntryKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            size: 1,
            link: None,
            capabilities: None,
            digest: None,
        };
        let entries = Entries {
            entries: (0..entries).map(entry).collect(),
            ..Entries::default()
        };
        Arc::new(PreparedLayer::new(LayerReport {
            blob: name(number),
            entries: Arc::new(entries),
            sections: Vec::new(),
            transient_gaps: Vec::new(),
        }))
    }

    fn name(number: u32) -> Digest {
        Digest::of(&number.to_be_bytes())
    }

    #[test]
    fn what_was_used_longest_ago_goes_first_and_the_bound_holds() {
        let one = weight(&layer(0, 100));
        let memory = Memory::new(10 * one + 100);
        for number in 0..10 {
            memory.put(name(number), &layer(number, 100));
        }
        assert!(memory.get(&name(0)).is_some());
        memory.put(name(10), &layer(10, 100));
        assert!(memory.get(&name(0)).is_some(), "it was used");
        assert!(memory.get(&name(1)).is_none(), "it was not");
        for number in 0..1000 {
            memory.put(name(number), &layer(number, 1 + number as usize % 200));
            assert!(memory.state().bytes <= memory.bytes_max);
        }
        let state = memory.state();
        let sum: u64 = state.layers.values().map(|held| held.bytes).sum();
        assert_eq!(sum, state.bytes);
        assert_eq!(state.layers.len(), state.used.len());
    }

    #[test]
    fn a_layer_that_would_drive_out_the_others_is_not_kept() {
        let memory = Memory::new(4 * weight(&layer(0, 100)));
        memory.put(name(0), &layer(0, 100));
        memory.put(name(1), &layer(1, 1000));
        assert!(memory.get(&name(0)).is_some() && memory.get(&name(1)).is_none());
        assert!(Memory::new(0).get(&name(0)).is_none());
    }
}
