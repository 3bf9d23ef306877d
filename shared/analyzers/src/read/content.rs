//! Collecting wanted files from the stream, each once, and handing them to the analyzers.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use archive::{ArchiveError, Entry, Limits, Spill, Walk};
use model::{EntryKind, Gap, GapCode, Hasher, LayerEntry};
use rayon::Scope;

use super::{pipe::PlainBytes, results::Results, runnable::is_runnable};
use crate::{
    Analyzer, Analyzers, File, Wanted,
    file::{Content, Held},
    filter::Asked,
    links,
};

/// Bytes by which analyzers decide.
const HEAD_BYTES: usize = 1024;

/// From this size on a file is analyzed beside the walk.
const ASIDE_BYTES: u64 = 64 * 1024;

/// Bytes of the largest file that is kept for a hard link.
const KEPT_FILE_BYTES_MAX: u64 = 64 * 1024;

/// About what a file that is kept takes beside its path and its bytes.
const KEPT_FIXED_BYTES: usize = 200;

/// Takes files from the walk.
pub(super) struct Collector<'a, 'scope> {
    analyzers: &'scope Analyzers,
    limits: &'a Limits,
    results: &'scope Results,
    scope: &'a Scope<'scope>,
    /// Bytes of files that are being analyzed beside the walk.
    aside: Arc<AtomicU64>,
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
    pub(super) transient_gaps: Vec<Gap>,
}

/// A file that is kept for a hard link.
struct Kept {
    /// Who would want it under another name.
    analyzers: Vec<usize>,
    content: Arc<Held>,
}

/// What is done with the file that passes.
struct Intake {
    wants: Vec<(usize, Wanted)>,
    /// Who would want it under another name, where it is to be kept for that.
    recognized: Vec<usize>,
    hasher: Option<Hasher>,
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
        analyzers: &'scope Analyzers,
        limits: &'a Limits,
        results: &'scope Results,
        scope: &'a Scope<'scope>,
    ) -> Self {
        Self {
            analyzers,
            limits,
            results,
            scope,
            aside: Arc::default(),
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
            waiting_spill: None,
            spilled_bytes: 0,
            kept: HashMap::new(),
            kept_bytes: 0,
            head: Vec::with_capacity(HEAD_BYTES),
            asked: Asked::default(),
            transient_gaps: Vec::new(),
        }
    }

    /// Takes what is wanted of the walk's current entry, which has this number, and its digest.
    pub(super) fn take(
        &mut self,
        number: usize,
        entry: &mut LayerEntry,
        walk: &mut Walk<PlainBytes>,
    ) -> Result<(), ArchiveError> {
        if entry.kind == EntryKind::Hardlink && !self.analyzers.skips(&entry.path) {
            self.take_link(number, entry);
        }
        self.forget(&entry.path);
        if !Entry::from(&*entry).is_file() {
            self.take_directory(number, entry);
            return Ok(());
        }
        let mut intake: Option<Intake> = None;
        self.head.clear();
        while let Some(chunk) = walk.chunk()? {
            if let Some(intake) = &mut intake {
                intake.push(chunk);
                continue;
            }
            let missing = HEAD_BYTES.saturating_sub(self.head.len()).min(chunk.len());
            let (head, rest) = chunk.split_at_checked(missing).unwrap_or((chunk, &[]));
            self.head.extend_from_slice(head);
            if self.head.len() >= HEAD_BYTES {
                intake.insert(self.open(entry)).push(rest);
            }
        }
        let intake = match intake {
            Some(intake) => intake,
            None => self.open(entry),
        };
        self.close(number, entry, intake);
        Ok(())
    }

    /// Analyzes what waited for the layer's end.
    pub(super) fn finish(&mut self) {
        for ((analyzer, _), (number, files)) in std::mem::take(&mut self.waiting) {
            self.analyze(number, analyzer, files);
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
            sink = Sink::Memory(Vec::new());
        }
        let mut intake = Intake {
            hasher: is_runnable(&view, &self.head).then(Hasher::default),
            sink,
            recognized,
            wants,
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
                self.analyze(number, at, vec![file]);
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
                self.analyze(number, *at, vec![file.clone()]);
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
            // The size is what a header says: memory is only taken for bytes that come.
            return Sink::Memory(Vec::new());
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
    fn close(&mut self, number: usize, entry: &mut LayerEntry, intake: Intake) {
        let Intake {
            mut wants,
            recognized,
            hasher,
            sink,
        } = intake;
        entry.digest = hasher.map(Hasher::finish);
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
        for (analyzer, wanted) in wants {
            let file = file.clone();
            match wanted {
                Wanted::Together(key) => {
                    let waiting = self.waiting.entry((analyzer, key));
                    waiting.or_insert_with(|| (number, Vec::new())).1.push(file);
                }
                _ => self.analyze(number, analyzer, vec![file]),
            }
        }
    }

    /// Analyzes here, or beside the walk where it takes long and there is room for it.
    fn analyze(&self, number: usize, analyzer: usize, files: Vec<File>) {
        let Some(one) = self.analyzers.as_slice().get(analyzer) else {
            return;
        };
        let one: &'scope dyn Analyzer = one.as_ref();
        let results = self.results;
        let bytes = files
            .iter()
            .fold(0_u64, |sum, file| sum.saturating_add(file.entry.size));
        let room =
            (self.limits.held_bytes_max / 2).saturating_sub(self.aside.load(Ordering::Acquire));
        if bytes < ASIDE_BYTES || bytes > room {
            return results.analyze(number, analyzer, one, &files);
        }
        let aside = Arc::clone(&self.aside);
        aside.fetch_add(bytes, Ordering::AcqRel);
        self.scope.spawn(move |_| {
            results.analyze(number, analyzer, one, &files);
            drop(files);
            aside.fetch_sub(bytes, Ordering::AcqRel);
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

// === impl Intake ===

impl Intake {
    fn push(&mut self, bytes: &[u8]) {
        if let Some(hasher) = &mut self.hasher {
            hasher.update(bytes);
        }
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
