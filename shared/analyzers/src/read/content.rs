//! Collecting wanted files from the stream, each once, and handing them to the analyzers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use archive::{ArchiveError, Entry, Limits, Spill, Walk};
use model::{EntryKind, Gap, GapCode, LayerEntry};
use rayon::Scope;

use super::{
    beside::{Queue, Task},
    digests::WantedDigests,
    pipe::PlainBytes,
    results::Results,
    runnable::is_runnable,
};
use crate::{
    Analyzers, File, Wanted,
    file::{Content, Held},
    filter::Asked,
    links,
};

/// Bytes by which analyzers decide.
const HEAD_BYTES: usize = 1024;

/// From this size on a file is analyzed beside the walk.
const ASIDE_BYTES: u64 = 64 * 1024;

/// Bytes of files that wait for a thread of the pool, for each that it has.
const ASIDE_BYTES_PER_THREAD: u64 = 16 << 20;

/// All layers that this process reads have one pool, and so one budget: read side by side, they take
/// no more than one.
static ASIDE: Budget = Budget(AtomicU64::new(0));

/// Bytes of the largest file that is kept for a hard link.
const KEPT_FILE_BYTES_MAX: u64 = 64 * 1024;

/// About what a file that is kept takes beside its path and its bytes.
const KEPT_FIXED_BYTES: usize = 200;

/// Takes files from the walk.
pub(super) struct Collector<'a, 'scope> {
    analyzers: &'scope Analyzers,
    /// For those that wait.
    queue: &'scope Queue,
    limits: &'a Limits,
    results: &'scope Results,
    scope: &'a Scope<'scope>,
    /// Files that wait for others, by analyzer and key, with the number of the first.
    waiting: BTreeMap<(usize, String), (usize, Vec<File>)>,
    waiting_bytes: u64,
    /// The last part of the one temporary file for all that wait: there may be more of them than a
    /// process may have open files.
    waiting_spill: Option<Arc<Spill>>,
    spilled_bytes: u64,
    /// Files that a hard link may give the name of a wanted one, by path.
    kept: HashMap<String, Kept>,
    kept_bytes: u64,
    head: Vec<u8>,
    /// Who is asked for the file that passes.
    asked: Asked,
    pub(super) summed: Vec<Summed>,
    pub(super) transient_gaps: Vec<Gap>,
}

/// An analyzer that is given a file's digests once they are known.
pub(super) struct Summed {
    /// The number of the file's entry.
    pub(super) number: usize,
    pub(super) analyzer: usize,
}

/// A file that is kept for a hard link.
struct Kept {
    /// Who would want it under another name.
    analyzers: Vec<usize>,
    content: Arc<Held>,
}

/// Bytes of files that are being analyzed beside a walk.
struct Budget(AtomicU64);

/// A share of it, given back when dropped.
struct Share<'a>(&'a Budget, u64);

/// What is done with the file that passes.
struct Intake {
    wants: Vec<(usize, Wanted)>,
    /// Who would want it under another name, where it is to be kept for that.
    recognized: Vec<usize>,
    digests: WantedDigests,
    sink: Sink,
}

/// Where its bytes go.
enum Sink {
    Nowhere,
    Memory(Vec<u8>),
    Spill(Spill),
    /// They are too many.
    TooLarge,
    /// The disk would not take them.
    Failed(ArchiveError),
}

// === impl Collector ===

impl<'a, 'scope> Collector<'a, 'scope> {
    pub(super) fn new(
        (analyzers, queue): (&'scope Analyzers, &'scope Queue),
        limits: &'a Limits,
        results: &'scope Results,
        scope: &'a Scope<'scope>,
    ) -> Self {
        Self {
            analyzers,
            queue,
            limits,
            results,
            scope,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            waiting_spill: None,
            spilled_bytes: 0,
            kept: HashMap::new(),
            kept_bytes: 0,
            head: Vec::with_capacity(HEAD_BYTES),
            asked: Asked::default(),
            summed: Vec::new(),
            transient_gaps: Vec::new(),
        }
    }

    /// Takes what is wanted of the walk's current entry, which has this number, and notes what of it
    /// is to be summed up.
    pub(super) fn take(
        &mut self,
        number: usize,
        entry: &LayerEntry,
        walk: &mut Walk<PlainBytes>,
    ) -> Result<(), ArchiveError> {
        if entry.kind == EntryKind::Hardlink && !self.analyzers.skips(&entry.path) {
            self.take_link(number, entry);
        }
        self.forget(&entry.path);
        if !Entry::from(entry).is_file() {
            self.take_directory(number, entry);
            return Ok(());
        }
        let mut intake: Option<Intake> = None;
        self.head.clear();
        while let Some(chunk) = walk.chunk()? {
            let (length, before) = (chunk.len(), self.head.len());
            let is_first = intake.is_none();
            if let Some(intake) = &mut intake {
                intake.push(chunk);
            } else {
                let missing = HEAD_BYTES.saturating_sub(before).min(length);
                let (head, rest) = chunk.split_at_checked(missing).unwrap_or((chunk, &[]));
                self.head.extend_from_slice(head);
                if self.head.len() >= HEAD_BYTES {
                    intake.insert(self.open(entry)).push(rest);
                }
            }
            let Some(digests) = intake.as_ref().map(|intake| intake.digests) else {
                continue;
            };
            if digests.any() {
                let is_hole = walk.is_hole();
                let plain = walk.reader_mut();
                if is_first {
                    plain.begin(number, digests, self.head.get(..before).unwrap_or_default());
                }
                if is_hole {
                    plain.hole(length);
                } else {
                    plain.part(length);
                }
            }
        }
        let intake = if let Some(intake) = intake {
            intake
        } else {
            let intake = self.open(entry);
            if intake.digests.any() {
                let plain = walk.reader_mut();
                plain.begin(number, intake.digests, &self.head);
            }
            intake
        };
        if intake.digests.any() {
            walk.reader_mut().end();
        }
        self.close(number, entry, intake);
        Ok(())
    }

    /// Analyzes what waited for the layer's end.
    pub(super) fn finish(&mut self) {
        for ((analyzer, _), (number, files)) in std::mem::take(&mut self.waiting) {
            self.analyze(number, vec![analyzer], files);
        }
    }

    /// Asks everybody, now that the head is known.
    fn open(&mut self, entry: &LayerEntry) -> Intake {
        let view = Entry::from(entry);
        self.asked.clear();
        if !self.analyzers.skips(&entry.path) {
            self.analyzers.filter().ask(&entry.path, &mut self.asked);
        }
        let all = self.analyzers.as_slice();
        let asked = self.asked.iter();
        let asked = asked.filter_map(|at| Some((at, all.get(at)?)));
        let answers = asked.map(|(at, one)| (at, one.wants(&view, &self.head)));
        let wants: Vec<_> = answers
            .filter(|(_, wanted)| *wanted != Wanted::No)
            .collect();
        let mut sink = self.sink(entry.size, &wants);
        let mut recognized = Vec::new();
        if matches!(sink, Sink::Nowhere | Sink::Memory(_)) {
            recognized = self.recognize(entry, &wants);
        }
        if matches!(sink, Sink::Nowhere) && !recognized.is_empty() {
            sink = memory(entry.size);
        }
        let digests = WantedDigests {
            of_entry: is_runnable(&view, &self.head),
            sums: wants.iter().any(|(_, wanted)| *wanted == Wanted::Sums),
        };
        let mut intake = Intake {
            wants,
            recognized,
            digests,
            sink,
        };
        intake.push(&self.head);
        intake
    }

    /// Who would want the file under another name, if there is room to keep it for that; not who
    /// wants it under this one.
    fn recognize(&self, entry: &LayerEntry, wants: &[(usize, Wanted)]) -> Vec<usize> {
        let needed = kept_bytes(&entry.path, entry.size);
        let left = (self.limits.held_bytes_max / 4).saturating_sub(self.kept_bytes);
        if entry.size > KEPT_FILE_BYTES_MAX || needed > left {
            return Vec::new();
        }
        let is_wanted = |at: &usize| wants.iter().any(|(wanting, _)| wanting == at);
        let all = self.analyzers.as_slice().iter().enumerate();
        all.filter(|(at, one)| !is_wanted(at) && one.recognizes(&self.head))
            .map(|(at, _)| at)
            .collect()
    }

    /// Shows a directory to those that notice it.
    fn take_directory(&self, number: usize, entry: &LayerEntry) {
        if entry.kind != EntryKind::Directory || self.analyzers.skips(&entry.path) {
            return;
        }
        for (at, one) in self.analyzers.as_slice().iter().enumerate() {
            if one.notices(&Entry::from(entry)) {
                let file = File::new(Arc::new(entry.clone()), Content::None);
                self.analyze(number, vec![at], vec![file]);
            }
        }
    }

    /// Analyzes the file that a hard link names, where somebody wants it under the link's name.
    fn take_link(&self, number: usize, link: &LayerEntry) {
        let target = link.link.as_deref().and_then(links::target);
        let Some(kept) = target.and_then(|target| self.kept.get(&target)) else {
            return;
        };
        let entry = LayerEntry {
            kind: EntryKind::File,
            size: kept.content.0.len() as u64,
            link: None,
            ..link.clone()
        };
        let head = kept.content.0.get(..HEAD_BYTES).unwrap_or(&kept.content.0);
        let file = File::new(
            Arc::new(entry.clone()),
            Content::Held(Arc::clone(&kept.content)),
        );
        for at in &kept.analyzers {
            let analyzer = self.analyzers.as_slice().get(*at);
            let wanted = analyzer.map(|one| one.wants(&Entry::from(&entry), head));
            if wanted == Some(Wanted::Alone) {
                self.analyze(number, vec![*at], vec![file.clone()]);
            }
        }
    }

    fn keep(&mut self, path: &str, analyzers: Vec<usize>, content: Arc<Held>) {
        let needed = kept_bytes(path, content.0.len() as u64);
        self.kept_bytes = self.kept_bytes.saturating_add(needed);
        self.kept
            .insert(path.to_owned(), Kept { analyzers, content });
    }

    /// What stood at this path is kept no longer: it has another meaning now.
    fn forget(&mut self, path: &str) {
        if let Some(old) = self.kept.remove(path) {
            let bytes = kept_bytes(path, old.content.0.len() as u64);
            self.kept_bytes = self.kept_bytes.saturating_sub(bytes);
        }
    }

    /// Decides by size alone, never by what is going on at the moment: the same layer gives the
    /// same report.
    fn sink(&mut self, size: u64, wants: &[(usize, Wanted)]) -> Sink {
        let together = is_together(wants);
        if !together && !wants.iter().any(|(_, wanted)| *wanted == Wanted::Alone) {
            return Sink::Nowhere;
        }
        let waiting = self
            .waiting_bytes
            .saturating_add(if together { size } else { 0 });
        let fits =
            size <= self.limits.file_memory_bytes_max && waiting <= self.limits.held_bytes_max / 2;
        if fits {
            self.waiting_bytes = waiting;
            return memory(size);
        }
        let spilled = self.spilled_bytes.saturating_add(size);
        if size > self.limits.file_bytes_max || spilled > self.limits.spill_bytes_max {
            return Sink::TooLarge;
        }
        self.spilled_bytes = spilled;
        let spill = match &self.waiting_spill {
            Some(last) if together => Ok(last.next()),
            _ => Spill::create(),
        };
        spill.map_or_else(
            |error| Sink::Failed(ArchiveError::Spill(error)),
            Sink::Spill,
        )
    }

    /// Hands the file on.
    fn close(&mut self, number: usize, entry: &LayerEntry, intake: Intake) {
        let Intake {
            mut wants,
            recognized,
            digests: _,
            sink,
        } = intake;
        let summed = wants.extract_if(.., |(_, wanted)| *wanted == Wanted::Sums);
        let summed = summed.map(|(analyzer, _)| Summed { number, analyzer });
        self.summed.extend(summed);
        if wants.is_empty() && recognized.is_empty() {
            return;
        }
        let content = match sink {
            Sink::Nowhere => Content::None,
            Sink::Memory(bytes) => {
                let held = Arc::new(Held(bytes));
                if !recognized.is_empty() {
                    self.keep(&entry.path, recognized, Arc::clone(&held));
                }
                Content::Held(held)
            }
            Sink::Spill(spill) => {
                let spill = Arc::new(spill);
                if is_together(&wants) {
                    self.waiting_spill = Some(Arc::clone(&spill));
                }
                Content::Spilled(spill)
            }
            Sink::TooLarge => {
                for (analyzer, _) in wants.extract_if(.., |wanted| needs_content(wanted)) {
                    self.too_large(number, analyzer, entry);
                }
                Content::None
            }
            Sink::Failed(error) => {
                self.transient_gaps.push(error.gap().at(&entry.path));
                wants.retain(|wanted| !needs_content(wanted));
                Content::None
            }
        };
        let file = File::new(Arc::new(entry.clone()), content);
        let mut now = Vec::new();
        for (analyzer, wanted) in wants {
            match wanted {
                Wanted::Together(key) => {
                    let waiting = self.waiting.entry((analyzer, key));
                    let (_, files) = waiting.or_insert_with(|| (number, Vec::new()));
                    files.push(file.clone());
                }
                _ => now.push(analyzer),
            }
        }
        self.analyze(number, now, vec![file]);
    }

    /// Analyzes here, or beside the walk where it takes long and there is room for it, or where the
    /// analyzer waits.
    fn analyze(&self, number: usize, by: Vec<usize>, files: Vec<File>) {
        let all = self.analyzers.as_slice();
        let waits = |at: &usize| all.get(*at).is_some_and(|one| one.waits());
        let (waiting, by): (Vec<_>, Vec<_>) = by.into_iter().partition(waits);
        for analyzer in waiting {
            let sizes = files.iter().map(|file| file.entry.size);
            let task = Task {
                number,
                analyzer,
                files: files.clone(),
                bytes: sizes.fold(0, u64::saturating_add),
            };
            self.queue.push(task, self.analyzers, self.results);
        }
        if by.is_empty() {
            return;
        }
        let (all, results): (&'scope Analyzers, &'scope Results) = (self.analyzers, self.results);
        let analyze = move |files: &[File]| {
            for at in by {
                if let Some(one) = all.as_slice().get(at) {
                    results.analyze(number, at, one.as_ref(), files);
                }
            }
        };
        let sum = |of: fn(&File) -> u64| {
            let each = files.iter().map(of);
            each.fold(0, u64::saturating_add)
        };
        // What was spilled takes no memory while it waits.
        let (bytes, held) = (sum(|file| file.entry.size), sum(File::held_bytes));
        let aside = (bytes >= ASIDE_BYTES).then(|| ASIDE.take(held, aside_bytes_max(self.limits)));
        let Some(share) = aside.flatten() else {
            return analyze(&files);
        };
        self.scope.spawn(move |_| {
            analyze(&files);
            drop(files);
            drop(share);
        });
    }

    fn too_large(&self, number: usize, analyzer: usize, entry: &LayerEntry) {
        let Some(one) = self.analyzers.as_slice().get(analyzer) else {
            return;
        };
        let detail = format!("the file has {} bytes, more than is kept", entry.size);
        let gap = Gap::new(GapCode::LimitFile, one.hides(), detail).at(&entry.path);
        self.results.note(number, analyzer, gap);
    }
}

/// Room for a whole file, so that it is never moved to a larger one. The size is what a header says,
/// and is within the limits: a page of it takes memory when something is written to it.
fn memory(size: u64) -> Sink {
    Sink::Memory(Vec::with_capacity(
        usize::try_from(size).unwrap_or_default(),
    ))
}

/// What keeping a file takes.
fn kept_bytes(path: &str, size: u64) -> u64 {
    let fixed = path.len().saturating_add(KEPT_FIXED_BYTES);
    size.saturating_add(fixed as u64)
}

/// Whether the entry is not enough.
fn needs_content((_, wanted): &(usize, Wanted)) -> bool {
    matches!(wanted, Wanted::Alone | Wanted::Together(_))
}

/// Whether somebody wants it together with others.
fn is_together(wants: &[(usize, Wanted)]) -> bool {
    let mut wants = wants.iter();
    wants.any(|(_, wanted)| matches!(wanted, Wanted::Together(_)))
}

// === impl Budget ===

impl Budget {
    /// `None` where more than `bytes_max` would be taken.
    fn take(&self, bytes: u64, bytes_max: u64) -> Option<Share<'_>> {
        let more = |taken: u64| {
            let sum = taken.checked_add(bytes)?;
            (sum <= bytes_max).then_some(sum)
        };
        let taken = self
            .0
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, more);
        taken.ok().map(|_| Share(self, bytes))
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.0.0.fetch_sub(self.1, Ordering::AcqRel);
    }
}

/// What waits for the pool may take so many bytes.
fn aside_bytes_max(limits: &Limits) -> u64 {
    let threads = rayon::current_num_threads() as u64;
    let most = ASIDE_BYTES_PER_THREAD.saturating_mul(threads);
    most.min(limits.held_bytes_max / 2)
}

// === impl Intake ===

impl Intake {
    fn push(&mut self, bytes: &[u8]) {
        match &mut self.sink {
            Sink::Memory(memory) => memory.extend_from_slice(bytes),
            Sink::Spill(spill) => {
                if let Err(error) = spill.append(bytes) {
                    self.sink = Sink::Failed(ArchiveError::Spill(error));
                }
            }
            Sink::Nowhere | Sink::TooLarge | Sink::Failed(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_side_by_side_share_one_budget() {
        let budget = Budget(AtomicU64::new(0));
        let first = budget.take(60, 100);
        assert!(first.is_some() && budget.take(41, 100).is_none());
        let second = budget.take(40, 100);
        assert!(second.is_some() && budget.take(1, 100).is_none());
        drop(first);
        assert!(budget.take(61, 100).is_none());
        drop(second);
        assert!(budget.take(u64::MAX, 100).is_none());
        assert!(budget.take(100, 100).is_some());
    }
}
