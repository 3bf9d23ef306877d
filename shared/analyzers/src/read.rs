//! The one pass over a layer: three threads, no copy on disk.
//!
//! ```text
//! thread A                     thread B (the caller's)            thread C
//! blob -> inflate  ─ bytes ──► tar walk,          ── the same ──► sha256 of layer and files,
//!      │                       analyzers             bytes, and   and what packages record
//!      │                                             which are        │
//!      │                                             whose            │
//!      ├──────────────── the blob's bytes, of gzip ─────────────────► sha256
//!      ◄─────────────────────────── empty buffers ────────────────────┘
//! ```
//!
//! A buffer moves from thread to thread, so that only what an analyzer asked for is copied. Digests
//! are half of all there is to do where files are compared with what packages recorded of them; so
//! they have a thread, which makes those of the layer and of a file in it at once. The blob's is made
//! where least is done: inflating gzip takes longer than anything else, inflating zstd does not, and
//! there thread A makes it.
//!
//! Analyzers that wait for another process are asked by a thread more, from a bounded queue.
//!
//! A layer of some kilobytes is worth no thread: starting them takes longer than reading it. It is
//! inflated first, and if that fits into the buffers there are, the caller's thread does all of it,
//! one after the other. What comes out is the same.

mod beside;
mod content;
mod digests;
mod pipe;
mod results;
mod runnable;
mod small;
#[cfg(test)]
mod tests;

use std::{
    io::{self, BufRead as _, Read},
    sync::Arc,
    thread::{self, ScopedJoinHandle},
    time::{Duration, Instant},
};

use archive::{ArchiveError, Limits, Walk, Walked as Next};
use model::{Digest, Entries, Gap, GapCode, Hides, LayerEntry, LayerReport, Section};

use self::{
    beside::Queue,
    content::{Collector, Summed},
    digests::{Digests, FileDigests},
    pipe::{Buffers, Fed, PlainBytes, feed},
    results::{Results, cap},
    small::{SMALL_BLOB_BYTES, Small},
};
pub(crate) use self::{results::rank, runnable::is_runnable};
use crate::{Analyzers, File, file::Content};

/// A layer as a manifest names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LayerBlob {
    /// The blob's digest.
    pub digest: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// The media type.
    pub media_type: String,
}

/// What came of reading a layer.
#[derive(Debug)]
pub struct LayerRead {
    /// What was found, all that there is up to the place where reading stopped.
    pub report: LayerReport,
    /// Whether the sections follow from the blob's content and [`Limits`] alone: its digest was
    /// verified over every byte, and nothing was cut short by time, disk or network. Only then
    /// may they be kept.
    pub complete: bool,
    /// What the blob's reader ended with, where it broke: who knows the source knows whether it
    /// helps to try again.
    pub source_error: Option<io::Error>,
}

/// Reads a layer once and makes the `entries` section and one section per analyzer.
///
/// It never fails: what could not be read is a gap. Even behind a damaged place or the end of the
/// archive everything is read, so that both digests are over all bytes; a bomb is not inflated
/// further, and only its compressed bytes are read to their end.
pub fn read_layer(
    blob: impl Read + Send,
    expected: &LayerBlob,
    analyzers: &Analyzers,
    limits: &Limits,
    deadline: Option<Instant>,
) -> LayerRead {
    read_layer_from(
        blob,
        expected,
        analyzers,
        (limits, deadline),
        SMALL_BLOB_BYTES,
    )
}

/// As [`read_layer`]; blobs up to this size are read without threads.
fn read_layer_from(
    blob: impl Read + Send,
    expected: &LayerBlob,
    analyzers: &Analyzers,
    (limits, deadline): (&Limits, Option<Instant>),
    small_bytes_max: u64,
) -> LayerRead {
    let own_deadline = Instant::now().checked_add(Duration::from_millis(limits.time_ms));
    let deadline = [deadline, own_deadline].into_iter().flatten().min();
    if expected.size > limits.compressed_bytes_max {
        let error = ArchiveError::CompressedBytes(limits.compressed_bytes_max);
        return unread(expected, analyzers, limits, &error);
    }
    // More bytes than the manifest says are never read: they could not be this blob.
    let blob_limits = Limits {
        compressed_bytes_max: expected.size,
        ..limits.clone()
    };
    let reading = Reading {
        expected,
        analyzers,
        limits,
        blob_limits: &blob_limits,
        deadline,
    };
    if expected.size > small_bytes_max {
        return reading.beside(blob);
    }
    let small = Small::read(blob, expected.size, deadline);
    let here = small.whole().and_then(|bytes| reading.here(bytes));
    here.unwrap_or_else(|| reading.beside(small))
}

/// One layer that is being read.
struct Reading<'a> {
    expected: &'a LayerBlob,
    analyzers: &'a Analyzers,
    limits: &'a Limits,
    /// The limits of the blob's bytes.
    blob_limits: &'a Limits,
    deadline: Option<Instant>,
}

// === impl Reading ===

impl Reading<'_> {
    /// Reads it with a thread for each part of the work.
    fn beside(&self, blob: impl Read + Send) -> LayerRead {
        let results = Results::new(self.limits);
        thread::scope(|scope| {
            let (feeder, plain, digester) = pipe::pipe(self.deadline, Buffers::MANY);
            let media_type = &self.expected.media_type;
            let feeding = scope.spawn(move || feed(blob, media_type, self.blob_limits, feeder));
            let digesting = scope.spawn(move || digester.run());
            let queue = Queue::new(self.limits.held_bytes_max / 4, self.deadline);
            let walked = thread::scope(|threads| {
                if self.analyzers.as_slice().iter().any(|one| one.waits()) {
                    threads.spawn(|| queue.serve(self.analyzers, &results));
                }
                // However the walk ends, the queue has no more to wait for.
                let _closing = queue.closing();
                walk_all(plain, (self.analyzers, &queue), self.limits, &results)
            });
            let digests = joined(digesting);
            self.end(joined(feeding), walked, digests, results)
        })
    }

    /// Reads it on this thread; `None` where it inflates to more than the buffers hold.
    fn here(&self, blob: &[u8]) -> Option<LayerRead> {
        let (feeder, plain, digester) = pipe::pipe(self.deadline, Buffers::FEW);
        let fed = feed(blob, &self.expected.media_type, self.blob_limits, feeder);
        if fed.is_cut {
            return None;
        }
        let results = Results::new(self.limits);
        let queue = Queue::unserved(self.deadline);
        let walked = walk_all(plain, (self.analyzers, &queue), self.limits, &results);
        Some(self.end(fed, walked, digester.run(), results))
    }

    fn end(&self, fed: Fed, mut walked: Walked, digests: Digests, results: Results) -> LayerRead {
        walked.sum_up(&digests.files, self.analyzers, &results);
        walked.transient_gaps.extend(results.transient_gaps());
        Ending {
            expected: self.expected,
            limits: self.limits,
            fed,
            walked,
            digests,
            sections: results.into_sections(self.analyzers),
        }
        .into_read()
    }
}

/// What a thread has in the end; where it panicked, so does this one.
fn joined<T>(thread: ScopedJoinHandle<'_, T>) -> T {
    let ended = thread.join();
    ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// A layer that was not even begun.
fn unread(
    expected: &LayerBlob,
    analyzers: &Analyzers,
    limits: &Limits,
    error: &ArchiveError,
) -> LayerRead {
    let sections = Results::new(limits).into_sections(analyzers);
    let report = LayerReport {
        blob: expected.digest,
        entries: Arc::new(Entries::default()),
        sections: sections.into_iter().map(Arc::new).collect(),
        transient_gaps: vec![error.gap()],
    };
    LayerRead {
        report,
        complete: false,
        source_error: None,
    }
}

/// What the walk has in the end.
#[derive(Default)]
struct Walked {
    entries: Vec<LayerEntry>,
    gaps: Vec<Gap>,
    transient_gaps: Vec<Gap>,
    error: Option<ArchiveError>,
    /// Who waits for digests.
    summed: Vec<Summed>,
    timed_out: bool,
    /// Bytes of the layer.
    bytes: u64,
}

fn walk_all(
    plain: PlainBytes,
    (analyzers, queue): (&Analyzers, &Queue),
    limits: &Limits,
    results: &Results,
) -> Walked {
    let mut walk = Walk::new(plain, limits);
    // Big files are analyzed beside the walk, by the pool that all layers share.
    let mut walked = rayon::in_place_scope(|scope| {
        let mut walked = Walked::default();
        let mut collector = Collector::new((analyzers, queue), limits, results, scope);
        walked.error = walked.walk(&mut walk, &mut collector).err();
        collector.finish();
        walked.transient_gaps.append(&mut collector.transient_gaps);
        walked.summed = collector.summed;
        walked
    });
    let plain = walk.reader_mut();
    while plain.fill_buf().is_ok_and(|rest| !rest.is_empty()) {
        let length = plain.fill_buf().map_or(0, <[u8]>::len);
        plain.consume(length);
    }
    walked.timed_out = plain.timed_out();
    walked.bytes = plain.passed();
    walked
}

// === impl Walked ===

impl Walked {
    fn walk(
        &mut self,
        walk: &mut Walk<PlainBytes>,
        collector: &mut Collector<'_, '_>,
    ) -> Result<(), ArchiveError> {
        while let Some(next) = walk.next_entry()? {
            match next {
                Next::Ignored(gap) => self.gaps.push(gap),
                Next::Unread(entry, gap) => {
                    self.gaps.push(gap);
                    self.entries.push(entry);
                }
                Next::Entry(entry) => {
                    let taken = collector.take(self.entries.len(), &entry, walk);
                    self.entries.push(entry);
                    taken?;
                }
            }
        }
        Ok(())
    }

    /// Gives the entries their digests, and the analyzers those that they wait for.
    fn sum_up(&mut self, files: &[FileDigests], analyzers: &Analyzers, results: &Results) {
        for file in files {
            if let Some(entry) = self.entries.get_mut(file.number) {
                entry.digest = file.of_entry;
            }
        }
        for Summed { number, analyzer } in std::mem::take(&mut self.summed) {
            let at = files.binary_search_by_key(&number, |file| file.number);
            let sums = at.ok().and_then(|at| files.get(at)?.sums);
            let entry = self.entries.get(number);
            let one = analyzers.as_slice().get(analyzer);
            // Of what did not pass as a whole there are none.
            if let (Some(sums), Some(entry), Some(one)) = (sums, entry, one) {
                let file = File::new(Arc::new(entry.clone()), Content::Summed(sums));
                results.analyze(number, analyzer, one.as_ref(), &[file]);
            }
        }
    }
}

/// All threads' results, to be made one.
struct Ending<'a> {
    expected: &'a LayerBlob,
    limits: &'a Limits,
    fed: Fed,
    walked: Walked,
    digests: Digests,
    sections: Vec<Section>,
}

// === impl Ending ===

impl Ending<'_> {
    fn into_read(self) -> LayerRead {
        let Self {
            expected,
            limits,
            fed,
            walked,
            digests,
            sections,
        } = self;
        let timed_out = walked.timed_out || digests.timed_out;
        let mut gaps = walked.gaps;
        let mut transient = walked.transient_gaps;
        // Whoever hashed the blob's bytes has its digest.
        let of_blob = if fed.is_plain {
            Some(digests.layer)
        } else {
            fed.blob.or(digests.blob)
        };
        let is_whole = fed.is_whole && !timed_out;
        let mut is_stopped = false;
        if timed_out {
            transient.push(ArchiveError::Time(limits.time_ms).gap());
            is_stopped = true;
        } else if let Some(error) = &fed.error {
            let is_too_long = matches!(error, ArchiveError::CompressedBytes(_));
            match error {
                _ if is_too_long => transient.push(size_gap(expected, None)),
                _ if error.is_transient() => transient.push(error.gap()),
                _ => gaps.push(error.gap()),
            }
            is_stopped = true;
        }
        if let Some(error) = walked.error {
            // Where the stream stopped, the archive stops as well.
            let is_echo = is_stopped && error.gap_code() == GapCode::Truncated;
            if !is_echo {
                gaps.push(error.gap());
            }
        }
        transient.extend(fed.media_type.as_ref().map(ArchiveError::gap));
        let is_verified = is_whole && of_blob == Some(expected.digest);
        if let Some(found) = of_blob.filter(|_| is_whole && !is_verified) {
            let detail = format!("the bytes have the digest {found}");
            transient.push(Gap::new(GapCode::DigestMismatch, Hides::Entries, detail));
        }
        if is_whole && fed.compressed_bytes != expected.size {
            transient.push(size_gap(expected, Some(fed.compressed_bytes)));
        }
        let complete = is_verified && transient.iter().all(is_lasting);
        let entries = Entries {
            diff_id: (is_whole && !is_stopped).then_some(digests.layer),
            compressed_bytes: fed.compressed_bytes,
            uncompressed_bytes: walked.bytes,
            entries: walked.entries,
            gaps: cap(gaps, limits.gaps_max),
        };
        let report = LayerReport {
            blob: expected.digest,
            entries: Arc::new(entries),
            sections: sections.into_iter().map(Arc::new).collect(),
            transient_gaps: cap(transient, limits.gaps_max),
        };
        let source_error = match fed.error {
            Some(ArchiveError::Source(error)) => Some(error),
            _ => None,
        };
        LayerRead {
            report,
            complete,
            source_error,
        }
    }
}

/// Whether a gap would be there again.
const fn is_lasting(gap: &Gap) -> bool {
    !matches!(
        gap.code,
        GapCode::LimitTime | GapCode::LayerUnavailable | GapCode::EngineFailed
    )
}

fn size_gap(expected: &LayerBlob, found: Option<u64>) -> Gap {
    let detail = match found {
        Some(found) => format!(
            "the blob has {found} bytes, the manifest says {}",
            expected.size
        ),
        None => format!(
            "the blob has more than the {} bytes of the manifest",
            expected.size
        ),
    };
    Gap::new(GapCode::SizeMismatch, Hides::Entries, detail)
}
