//! The third thread: the digests of the layer and of files, of the buffers as they pass.
//!
//! The walk notes which bytes of a buffer are which file's, and hands the buffer on; so nothing is
//! copied to be summed up, and the walk waits for no digest. What is a file's is the layer's as well,
//! and both digests are made at once ([`sha256::update_all`]).

use std::{
    ops::Range,
    sync::mpsc::{Receiver, Sender},
    time::Instant,
};

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use model::{Digest, Hasher};

use crate::{
    file::Sums,
    md5::Md5,
    sha256::{self, Sha256},
};

/// Zeros that are summed up at a time.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// What the third thread is to do.
pub(super) enum Job {
    /// So many bytes of the layer, and what the walk noted of them.
    Layer(Box<[u8]>, usize, Vec<Note>),
    /// So many bytes of the blob.
    Blob(Box<[u8]>, usize),
    /// The digest of the blob's bytes before those that follow.
    BlobSoFar(Box<Hasher>),
}

/// Where files are among the bytes that pass.
pub(super) enum Note {
    /// The entry of this number begins.
    Begin(usize, WantedDigests),
    /// Its bytes at this place of the buffer.
    Part(Range<usize>),
    /// Its bytes of a buffer that has passed.
    Passed(Box<[u8]>),
    /// So many bytes of it are a hole.
    Hole(u64),
    /// It was whole.
    End,
}

/// Which digests of a file are wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct WantedDigests {
    /// sha256, for its entry.
    pub(super) of_entry: bool,
    /// Those that package managers record.
    pub(super) sums: bool,
}

/// The digests of a whole file.
pub(super) struct FileDigests {
    /// The number of its entry.
    pub(super) number: usize,
    pub(super) of_entry: Option<Digest>,
    pub(super) sums: Option<Sums>,
}

/// The digests of what passed.
pub(super) struct Digests {
    /// sha256 of the blob's bytes, where they were handed over.
    pub(super) blob: Option<Digest>,
    /// sha256 of the layer's bytes.
    pub(super) layer: Digest,
    /// Of files, in the order of their entries.
    pub(super) files: Vec<FileDigests>,
    /// Whether the deadline came first: of what passed after it there is none.
    pub(super) timed_out: bool,
}

/// The third thread's end of the pipe.
pub(super) struct Digester {
    jobs: Receiver<Job>,
    empty: Sender<Box<[u8]>>,
    deadline: Option<Instant>,
    blob: Option<Box<Hasher>>,
    layer: Sha256,
    /// The file that passes.
    open: Option<Open>,
    files: Vec<FileDigests>,
}

/// A file of which there may be more.
struct Open {
    number: usize,
    of_entry: Option<Sha256>,
    sums: Option<(Md5, Context)>,
}

/// It is too late to go on.
struct Late;

// === impl WantedDigests ===

impl WantedDigests {
    /// Whether there is anything to do.
    pub(super) const fn any(self) -> bool {
        self.of_entry || self.sums
    }
}

// === impl Digester ===

impl Digester {
    /// One that gives its buffers back to `empty`.
    pub(super) fn new(
        jobs: Receiver<Job>,
        empty: Sender<Box<[u8]>>,
        deadline: Option<Instant>,
    ) -> Self {
        Self {
            jobs,
            empty,
            deadline,
            blob: None,
            layer: Sha256::default(),
            open: None,
            files: Vec::new(),
        }
    }

    /// Works until both other threads have ended.
    pub(super) fn run(mut self) -> Digests {
        let mut timed_out = false;
        while let Ok(job) = self.jobs.recv() {
            let buffer = match job {
                Job::Layer(buffer, length, notes) => {
                    let bytes = buffer.get(..length).unwrap_or_default();
                    if self.layer(bytes, notes).is_err() {
                        timed_out = true;
                        break;
                    }
                    buffer
                }
                Job::Blob(buffer, length) => {
                    if let Some(blob) = &mut self.blob {
                        blob.update(buffer.get(..length).unwrap_or_default());
                    }
                    buffer
                }
                Job::BlobSoFar(hasher) => {
                    self.blob = Some(hasher);
                    continue;
                }
            };
            // The first thread may have ended already, and needs no more buffers.
            let _sent = self.empty.send(buffer).is_ok();
        }
        Digests {
            blob: self.blob.map(|hasher| hasher.finish()),
            layer: self.layer.finish(),
            files: self.files,
            timed_out,
        }
    }

    fn layer(&mut self, buffer: &[u8], notes: Vec<Note>) -> Result<(), Late> {
        // Bytes of the buffer that the layer's digest has.
        let mut passed = 0;
        for note in notes {
            match note {
                Note::Begin(number, wanted) => self.open = Some(Open::new(number, wanted)),
                Note::Part(range) => {
                    self.layer
                        .update(buffer.get(passed..range.start).unwrap_or_default());
                    passed = range.end;
                    self.part(buffer.get(range).unwrap_or_default());
                }
                Note::Passed(bytes) => self.update(&bytes),
                Note::Hole(length) => self.hole(length)?,
                Note::End => self.files.extend(self.open.take().map(Open::finish)),
            }
        }
        self.layer.update(buffer.get(passed..).unwrap_or_default());
        Ok(())
    }

    /// The next bytes of both the layer and the file.
    fn part(&mut self, bytes: &[u8]) {
        let Self { layer, open, .. } = self;
        match open {
            Some(open) => open.update(Some(layer), bytes),
            None => layer.update(bytes),
        }
    }

    /// The next bytes of the file alone.
    fn update(&mut self, bytes: &[u8]) {
        if let Some(open) = &mut self.open {
            open.update(None, bytes);
        }
    }

    /// A hole costs its archive nothing and may be as long as the longest layer: here it takes time.
    fn hole(&mut self, length: u64) -> Result<(), Late> {
        let mut left = length;
        while left > 0 {
            let now = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
            self.update(ZEROS.get(..now).unwrap_or_default());
            left = left.saturating_sub(now as u64);
            if self
                .deadline
                .is_some_and(|deadline| Instant::now() >= deadline)
            {
                return Err(Late);
            }
        }
        Ok(())
    }
}

// === impl Open ===

impl Open {
    fn new(number: usize, wanted: WantedDigests) -> Self {
        let sums = || (Md5::default(), Context::new(&SHA1_FOR_LEGACY_USE_ONLY));
        Self {
            number,
            of_entry: wanted.of_entry.then(Sha256::default),
            sums: wanted.sums.then(sums),
        }
    }

    fn update(&mut self, layer: Option<&mut Sha256>, bytes: &[u8]) {
        let (md5, sha1) = match &mut self.sums {
            Some((md5, sha1)) => (Some(md5), Some(sha1)),
            None => (None, None),
        };
        match (layer, &mut self.of_entry) {
            (Some(layer), Some(file)) => sha256::update_all([layer, file], md5, bytes),
            (Some(one), None) | (None, Some(one)) => sha256::update_all([one], md5, bytes),
            (None, None) => sha256::update_all([], md5, bytes),
        }
        if let Some(sha1) = sha1 {
            sha1.update(bytes);
        }
    }

    fn finish(self) -> FileDigests {
        let sums = self.sums.map(|(md5, sha1)| {
            let mut sums = Sums {
                md5: md5.finish(),
                sha1: [0; 20],
            };
            let sha1 = sha1.finish();
            for (to, from) in sums.sha1.iter_mut().zip(sha1.as_ref()) {
                *to = *from;
            }
            sums
        });
        FileDigests {
            number: self.number,
            of_entry: self.of_entry.map(Sha256::finish),
            sums,
        }
    }
}
