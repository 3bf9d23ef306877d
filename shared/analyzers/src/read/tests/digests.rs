//! Digests of files: made elsewhere than the walk, of bytes that nobody copied.

use std::{
    sync::mpsc,
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};
use model::FileSums;

use super::*;
use crate::{
    md5::Md5,
    read::{
        digests::{Digester, Job, Note, WantedDigests},
        pipe::Buffers,
    },
};

/// A file, and what of it is stored; the rest are holes.
struct Sparse<'a> {
    path: &'a str,
    size: usize,
    stored: &'a [(usize, &'a [u8])],
}

impl Sparse<'_> {
    fn content(&self) -> Vec<u8> {
        let mut content = vec![0; self.size];
        for (at, bytes) in self.stored {
            content[*at..at + bytes.len()].copy_from_slice(bytes);
        }
        content
    }

    /// In the form of old GNU tar.
    fn append(&self, builder: &mut tar::Builder<Vec<u8>>) {
        let octal = |to: &mut [u8; 12], number: usize| {
            to.copy_from_slice(format!("{number:011o}\0").as_bytes());
        };
        let stored: Vec<u8> = self
            .stored
            .iter()
            .flat_map(|(_, bytes)| *bytes)
            .copied()
            .collect();
        let mut header = tar::Header::new_gnu();
        header.set_path(self.path).unwrap();
        header.set_size(stored.len() as u64);
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::GNUSparse);
        let gnu = header.as_gnu_mut().unwrap();
        octal(&mut gnu.realsize, self.size);
        for (to, (at, bytes)) in gnu.sparse.iter_mut().zip(self.stored) {
            octal(&mut to.offset, *at);
            octal(&mut to.numbytes, bytes.len());
        }
        header.set_cksum();
        builder.append(&header, &stored[..]).unwrap();
    }
}

fn sums(path: &str, content: &[u8]) -> FileSums {
    let mut md5 = Md5::default();
    md5.update(content);
    let sha1 = digest(&SHA1_FOR_LEGACY_USE_ONLY, content);
    FileSums {
        path: path.to_owned(),
        md5: md5.finish(),
        sha1: sha1.as_ref().try_into().unwrap(),
    }
}

/// What was found by who wants digests alone.
fn summed(layer: &[u8], limits: &Limits) -> LayerRead {
    let all = Analyzers::all(&Config::default(), limits);
    let ids = all.ids().into_iter().filter(|id| id.name == "checksums");
    let ids: Vec<_> = ids.collect();
    both_ways(layer, &blob_of(layer, TAR), &all.subset(&ids), limits)
}

/// Every file has the digests of its content.
#[track_caller]
fn check(layer: &[u8], files: &[(String, Vec<u8>)]) {
    let read = summed(layer, &Limits::default());
    assert_eq!(codes(&read), (vec![], vec![]));
    let expected: Vec<_> = files
        .iter()
        .map(|(path, bytes)| sums(path, bytes))
        .collect();
    assert_eq!(read.report.sections[0].sums, expected);
    let entries = read.report.entries.entries.iter();
    let digests: Vec<_> = entries.filter_map(|entry| entry.digest).collect();
    let expected: Vec<_> = files.iter().map(|(_, bytes)| Digest::of(bytes)).collect();
    assert_eq!(digests, expected);
    assert_eq!(read.report.entries.diff_id, Some(Digest::of(layer)));
}

#[test]
fn files_are_summed_up_wherever_a_buffer_ends() {
    let lengths = [
        0,
        1,
        700,
        1023,
        1024,
        1025,
        2048,
        Buffers::MANY.bytes,
        2 * Buffers::MANY.bytes + 7,
    ];
    for before in [0, 512, 1024, 1536, 2048] {
        for length in lengths {
            // The file's header ends so many bytes before the buffer does.
            let padding = noise(Buffers::MANY.bytes - 1024 - before);
            let files = [
                ("usr/bin/a".to_owned(), noise(length)),
                ("usr/bin/b".to_owned(), noise(300)),
            ];
            let layer = tar(&[
                ("padding", 0o644, &padding),
                (&files[0].0, 0o755, &files[0].1),
                (&files[1].0, 0o755, &files[1].1),
            ]);
            check(&layer, &files);
        }
    }
}

#[test]
fn the_holes_of_a_file_are_part_of_its_digests() {
    let (some, more) = (noise(300), noise(Buffers::MANY.bytes));
    let all = [
        Sparse {
            path: "usr/bin/hole",
            size: 100_000,
            stored: &[],
        },
        Sparse {
            path: "usr/bin/first",
            size: 700_000,
            stored: &[(0, &some)],
        },
        Sparse {
            path: "usr/bin/last",
            size: 700_000,
            stored: &[(699_700, &some)],
        },
        Sparse {
            path: "usr/bin/both",
            size: 3 * Buffers::MANY.bytes,
            stored: &[(100, &some), (900, &some), (2048, &more)],
        },
    ];
    let mut builder = tar::Builder::new(Vec::new());
    for sparse in &all {
        sparse.append(&mut builder);
    }
    let files: Vec<_> = all
        .iter()
        .map(|sparse| (sparse.path.to_owned(), sparse.content()))
        .collect();
    check(&builder.into_inner().unwrap(), &files);
}

#[test]
fn what_is_only_summed_up_is_never_too_large() {
    let content = noise(50_000);
    let limits = Limits {
        file_memory_bytes_max: 0,
        file_bytes_max: 0,
        held_bytes_max: 0,
        ..Limits::default()
    };
    let read = summed(&tar(&[("usr/bin/a", 0o755, &content)]), &limits);
    assert_eq!(read.report.sections[0].sums, [sums("usr/bin/a", &content)]);
    assert!(read.report.sections[0].gaps.is_empty());
}

#[test]
fn of_a_file_that_is_cut_off_there_are_no_digests() {
    let layer = tar(&[
        ("usr/bin/a", 0o755, b"1"),
        ("usr/bin/b", 0o755, &noise(5000)),
    ]);
    let read = summed(&layer[..4000], &Limits::default());
    assert_eq!(codes(&read), (vec![GapCode::Truncated], vec![]));
    let entries = &read.report.entries.entries;
    assert_eq!(entries[0].digest, Some(Digest::of(b"1")));
    assert_eq!((entries.len(), entries[1].digest), (2, None));
    assert_eq!(read.report.sections[0].sums, [sums("usr/bin/a", b"1")]);
}

#[test]
fn a_hole_without_an_end_ends_at_the_deadline() {
    let (jobs, receiver) = mpsc::channel();
    let (empty, _buffers) = mpsc::channel();
    let deadline = Instant::now() + Duration::from_millis(20);
    let digester = Digester::new(receiver, empty, Some(deadline));
    let wanted = WantedDigests {
        of_entry: true,
        sums: true,
    };
    let notes = vec![Note::Begin(0, wanted), Note::Hole(u64::MAX), Note::End];
    jobs.send(Job::Layer(Box::from([0]), 1, notes)).unwrap();
    let digests = digester.run();
    assert!(digests.timed_out && digests.files.is_empty());
    assert!(
        jobs.send(Job::Blob(Box::default(), 0)).is_err(),
        "nobody is there any more"
    );
}
