mod digests;
mod unpacking;

use std::{
    io::{self, Write as _},
    sync::atomic::{AtomicUsize, Ordering},
};

use archive::Entry;
use flate2::{Compression, write::GzEncoder};
use model::{AnalyzerId, EntryKind, FoundPackage, PackageType};
use proptest::prelude::*;

use super::*;
use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

const GZIP: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const ZSTD: &str = "application/vnd.oci.image.layer.v1.tar+zstd";
const TAR: &str = "application/vnd.oci.image.layer.v1.tar";

fn tar(files: &[(&str, u32, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, mode, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(*mode);
        header.set_uid(0);
        header.set_gid(0);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 3).unwrap()
}

/// Bytes that no compression makes fewer.
fn noise(length: usize) -> Vec<u8> {
    let blocks = (0..length.div_ceil(32) as u64).map(|number| Digest::of(&number.to_be_bytes()));
    let mut noise: Vec<u8> = blocks.flat_map(|digest| *digest.as_bytes()).collect();
    noise.truncate(length);
    noise
}

fn blob_of(bytes: &[u8], media_type: &str) -> LayerBlob {
    LayerBlob {
        digest: Digest::of(bytes),
        size: bytes.len() as u64,
        media_type: media_type.to_owned(),
    }
}

/// Reads it without threads where that goes, and with them, and compares what comes of it.
fn both_ways(
    bytes: &[u8],
    expected: &LayerBlob,
    analyzers: &Analyzers,
    limits: &Limits,
) -> LayerRead {
    let way = |small| read_layer_from(bytes, expected, analyzers, (limits, None), small);
    let (here, beside) = (way(u64::MAX), way(0));
    assert_eq!(here.report, beside.report);
    assert_eq!(here.complete, beside.complete);
    here
}

fn read(bytes: &[u8], limits: &Limits) -> LayerRead {
    let analyzers = Analyzers::all(&Config::default(), limits);
    both_ways(bytes, &blob_of(bytes, GZIP), &analyzers, limits)
}

fn codes(read: &LayerRead) -> (Vec<GapCode>, Vec<GapCode>) {
    let code = |gaps: &[Gap]| gaps.iter().map(|gap| gap.code).collect();
    (
        code(&read.report.entries.gaps),
        code(&read.report.transient_gaps),
    )
}

/// Wants files named `*.big` alone and `*.pair` together; lists their length as a package.
struct Lengths(AnalyzerId);

impl Analyzer for Lengths {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        match entry.name().rsplit('.').next() {
            Some("pair") => Wanted::Together(entry.directory().to_owned()),
            Some("big") => Wanted::Alone,
            _ => Wanted::No,
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        let mut length = 0;
        for file in files {
            length += io::copy(&mut file.reader(), &mut io::sink()).map_err(Malformed::Spilled)?;
        }
        found.add_package(FoundPackage::new(
            PackageType::Generic,
            files.iter().map(File::path).collect::<Vec<_>>().join("+"),
            length.to_string(),
            files[0].path(),
        ));
        if length == 13 {
            return Err(Malformed::Format("it has 13 bytes".to_owned()));
        }
        Ok(())
    }
}

/// Counts the open files of the process while files wait for the layer's end.
struct OpenFiles(AnalyzerId);

static OPEN_FILES: AtomicUsize = AtomicUsize::new(0);

impl Analyzer for OpenFiles {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        Wanted::Together(entry.directory().to_owned())
    }

    fn analyze(&self, _files: &[File], _found: &mut Found) -> Result<(), Malformed> {
        let open = std::fs::read_dir("/proc/self/fd").map_err(Malformed::Spilled)?;
        OPEN_FILES.fetch_max(open.count(), Ordering::Relaxed);
        Ok(())
    }
}

fn lengths(bytes: &[u8], limits: &Limits) -> LayerRead {
    let mut analyzers = Analyzers::none();
    analyzers.push(Box::new(Lengths(analyzer_id(
        "lengths",
        1,
        &Config::default(),
        limits,
    ))));
    both_ways(bytes, &blob_of(bytes, TAR), &analyzers, limits)
}

fn packages(read: &LayerRead) -> Vec<String> {
    let packages = &read.report.sections[0].packages;
    packages
        .iter()
        .map(|package| format!("{} {}", package.name, package.version))
        .collect()
}

#[test]
fn both_digests_are_over_all_bytes_even_behind_the_archive() {
    let mut layer = tar(&[("a", 0o644, b"1")]);
    layer.extend_from_slice(&noise(700_000));
    let blobs = [
        (gzip(&layer), GZIP),
        (zstd(&layer), ZSTD),
        (layer.clone(), TAR),
    ];
    for (bytes, media_type) in blobs {
        let analyzers = Analyzers::none();
        let limits = Limits::default();
        let read = read_layer(
            &bytes[..],
            &blob_of(&bytes, media_type),
            &analyzers,
            &limits,
            None,
        );
        assert!(read.complete);
        assert_eq!(codes(&read), (vec![], vec![]));
        assert_eq!(read.report.entries.diff_id, Some(Digest::of(&layer)));
        assert_eq!(read.report.entries.compressed_bytes, bytes.len() as u64);
        assert_eq!(read.report.entries.uncompressed_bytes, layer.len() as u64);
    }
}

#[test]
fn what_can_run_has_a_digest() {
    let read = read(
        &gzip(&tar(&[
            ("bin/sh", 0o755, &[7; 5000]),
            ("elf", 0o644, b"\x7fELF..."),
            ("notes", 0o644, b"text"),
            ("empty.py", 0o644, b""),
        ])),
        &Limits::default(),
    );
    let digests: Vec<_> = read
        .report
        .entries
        .entries
        .iter()
        .map(|entry| entry.digest)
        .collect();
    let expected = [
        Some(Digest::of(&[7; 5000])),
        Some(Digest::of(b"\x7fELF...")),
        None,
        Some(Digest::of(b"")),
    ];
    assert_eq!(digests, expected);
}

#[test]
fn another_digest_is_a_gap_of_this_attempt() {
    let layer = tar(&[("a", 0o644, &noise(700_000))]);
    let blobs = [
        (gzip(&layer), GZIP),
        (zstd(&layer), ZSTD),
        (layer.clone(), TAR),
    ];
    for (bytes, media_type) in blobs {
        let limits = Limits::default();
        let expected = LayerBlob {
            digest: Digest::of(b"other"),
            ..blob_of(&bytes, media_type)
        };
        let read = both_ways(&bytes, &expected, &Analyzers::none(), &limits);
        assert!(!read.complete);
        assert_eq!(codes(&read), (vec![], vec![GapCode::DigestMismatch]));
        let detail = &read.report.transient_gaps[0].detail;
        assert!(detail.contains(&Digest::of(&bytes).hex()), "{detail}");
        assert_eq!(read.report.entries.entries.len(), 1);
        assert_eq!(read.report.blob, expected.digest);
    }
}

#[test]
fn a_blob_is_never_read_beyond_its_size() {
    let bytes = gzip(&tar(&[("a", 0o644, b"1")]));
    let limits = Limits::default();
    let expected = LayerBlob {
        size: 10,
        ..blob_of(&bytes, GZIP)
    };
    let long = both_ways(&bytes, &expected, &Analyzers::none(), &limits);
    assert!(!long.complete);
    assert_eq!(codes(&long), (vec![], vec![GapCode::SizeMismatch]));
    let expected = LayerBlob {
        size: 10_000,
        ..blob_of(&bytes, GZIP)
    };
    let short = both_ways(&bytes, &expected, &Analyzers::none(), &limits);
    assert!(
        short.complete,
        "the digest names the bytes; the size is the manifest's claim"
    );
    assert_eq!(codes(&short), (vec![], vec![GapCode::SizeMismatch]));
    let small = Limits {
        compressed_bytes_max: 10,
        ..Limits::default()
    };
    let refused = read_layer(
        &bytes[..],
        &blob_of(&bytes, GZIP),
        &Analyzers::none(),
        &small,
        None,
    );
    assert!(!refused.complete);
    assert_eq!(codes(&refused), (vec![], vec![GapCode::LimitCompressed]));
}

#[test]
fn a_truncated_stream_is_a_gap_that_follows_from_content() {
    let whole = gzip(&tar(&[("a", 0o644, b"1"), ("b", 0o644, &[9; 4000])]));
    let cut = &whole[..whole.len() - 9];
    let read = read(cut, &Limits::default());
    assert!(read.complete, "the manifest names just these bytes");
    assert_eq!(codes(&read), (vec![GapCode::Truncated], vec![]));
    assert_eq!(read.report.entries.diff_id, None);
    assert!(!read.report.entries.entries.is_empty());
}

#[test]
fn a_truncated_archive_still_has_its_diff_id() {
    let layer = &tar(&[("a", 0o644, b"1"), ("b", 0o644, &[9; 4000])])[..2000];
    let read = read(&gzip(layer), &Limits::default());
    assert!(read.complete);
    assert_eq!(codes(&read), (vec![GapCode::Truncated], vec![]));
    assert_eq!(read.report.entries.diff_id, Some(Digest::of(layer)));
    assert_eq!(read.report.entries.entries.len(), 2);
}

#[test]
fn a_bomb_is_not_inflated_but_its_digest_is_verified() {
    let bytes = gzip(&tar(&[("zeros", 0o644, &vec![0; 30 << 20])]));
    let limits = Limits {
        ratio_free_bytes: 1 << 20,
        ..Limits::default()
    };
    let read = read(&bytes, &limits);
    assert!(read.complete);
    assert_eq!(codes(&read), (vec![GapCode::LimitRatio], vec![]));
    assert!(read.report.entries.uncompressed_bytes < 10 << 20);
    assert_eq!(read.report.entries.compressed_bytes, bytes.len() as u64);
}

#[test]
fn what_inflates_to_more_than_the_few_buffers_hold_is_read_with_threads() {
    let zeros = vec![0; 3_000_000];
    let layer = tar(&[("a", 0o755, &zeros), ("b", 0o644, b"1")]);
    for (bytes, media_type) in [(gzip(&layer), GZIP), (zstd(&layer), ZSTD)] {
        assert!((bytes.len() as u64) < SMALL_BLOB_BYTES);
        let (limits, expected) = (Limits::default(), blob_of(&bytes, media_type));
        let read = read_layer(&bytes[..], &expected, &Analyzers::none(), &limits, None);
        assert!(read.complete);
        assert_eq!(read.report.entries.diff_id, Some(Digest::of(&layer)));
        let digest = Some(Digest::of(&zeros));
        assert_eq!(read.report.entries.entries[0].digest, digest);
    }
}

#[test]
fn a_broken_source_and_a_deadline_are_never_complete() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::Error::other("connection reset"))
        }
    }
    let bytes = gzip(&tar(&[("a", 0o644, &[1; 3000])]));
    let (limits, expected) = (Limits::default(), blob_of(&bytes, GZIP));
    let past = Some(Instant::now());
    for small in [SMALL_BLOB_BYTES, 0] {
        let way = |source: &mut (dyn Read + Send), deadline| {
            read_layer_from(
                source,
                &expected,
                &Analyzers::none(),
                (&limits, deadline),
                small,
            )
        };
        let read = way(&mut bytes[..20].chain(Broken), None);
        assert!(!read.complete);
        assert_eq!(codes(&read), (vec![], vec![GapCode::LayerUnavailable]));
        let told = read.source_error.map(|error| error.to_string());
        assert_eq!(told.as_deref(), Some("connection reset"));
        let late = way(&mut &bytes[..], past);
        assert!(!late.complete);
        assert_eq!(codes(&late), (vec![], vec![GapCode::LimitTime]));
    }
}

#[test]
fn a_deadline_in_the_middle_stops_both_threads() {
    struct Endless(u8);
    impl Read for Endless {
        fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
            self.0 = self.0.wrapping_mul(37).wrapping_add(11);
            buffer.fill(self.0);
            Ok(buffer.len())
        }
    }
    let mut header = tar::Header::new_gnu();
    header.set_path("huge").unwrap();
    header.set_size(1 << 40);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.set_cksum();
    let limits = Limits {
        time_ms: 50,
        compressed_bytes_max: u64::MAX,
        uncompressed_bytes_max: u64::MAX,
        ..Limits::default()
    };
    let expected = LayerBlob {
        digest: Digest::of(b""),
        size: 1 << 40,
        media_type: TAR.to_owned(),
    };
    let source = io::Cursor::new(header.as_bytes().to_vec()).chain(Endless(0));
    let read = read_layer(source, &expected, &Analyzers::none(), &limits, None);
    assert_eq!(codes(&read), (vec![], vec![GapCode::LimitTime]));
    assert_eq!(read.report.entries.entries.len(), 1);
}

#[test]
fn large_files_spill_and_larger_ones_are_a_gap() {
    let layer = tar(&[
        ("small.big", 0o644, &[1; 100]),
        ("spilled.big", 0o644, &[2; 1500]),
        ("huge.big", 0o644, &[3; 9000]),
        ("p/1.pair", 0o644, &[4; 600]),
        ("p/2.pair", 0o644, &[5; 600]),
        ("bad.big", 0o644, &[6; 13]),
    ]);
    let limits = Limits {
        file_memory_bytes_max: 1000,
        held_bytes_max: 1400,
        file_bytes_max: 5000,
        ..Limits::default()
    };
    let read = lengths(&layer, &limits);
    assert!(read.complete);
    let expected = [
        "small.big 100",
        "spilled.big 1500",
        "p/1.pair+p/2.pair 1200",
        "bad.big 13",
    ];
    assert_eq!(packages(&read), expected);
    let gaps: Vec<_> = read.report.sections[0]
        .gaps
        .iter()
        .map(|gap| (gap.code, gap.hides))
        .collect();
    let expected = [
        (GapCode::LimitFile, Hides::Packages),
        (GapCode::Malformed, Hides::Packages),
    ];
    assert_eq!(gaps, expected);
    let limits = Limits {
        spill_bytes_max: 1000,
        ..limits
    };
    assert_eq!(lengths(&layer, &limits).report.sections[0].gaps.len(), 3);
}

#[test]
fn files_that_wait_share_one_temporary_file() {
    let names: Vec<_> = (0..300)
        .map(|at| format!("d{}/{at}.pair", at / 3))
        .collect();
    let contents: Vec<_> = (0..300).map(|at| vec![b'x'; at]).collect();
    let files: Vec<_> = names
        .iter()
        .zip(&contents)
        .map(|(name, content)| (&name[..], 0o644, &content[..]))
        .collect();
    let spilled = Limits {
        held_bytes_max: 0,
        ..Limits::default()
    };
    let layer = tar(&files);
    let mut analyzers = Analyzers::none();
    analyzers.push(Box::new(OpenFiles(analyzer_id(
        "open",
        1,
        &Config::default(),
        &spilled,
    ))));
    let read = read_layer(
        &layer[..],
        &blob_of(&layer, TAR),
        &analyzers,
        &spilled,
        None,
    );
    assert!(read.complete);
    // Tests beside this one have some open as well.
    let most = OPEN_FILES.load(Ordering::Relaxed);
    assert!(most < 200, "{most} files are open for 300 that wait");
    let packages_spilled = packages(&lengths(&layer, &spilled));
    assert_eq!(packages_spilled.len(), 100);
    assert_eq!(
        packages_spilled,
        packages(&lengths(&layer, &Limits::default()))
    );
}

#[test]
fn of_two_files_with_one_path_the_later_one_counts() {
    let layer = tar(&[("x.big", 0o644, &[1; 10]), ("./x.big", 0o644, &[1; 20])]);
    assert_eq!(packages(&lengths(&layer, &Limits::default())), ["x.big 20"]);
}

#[test]
fn more_results_than_allowed_are_a_gap() {
    let layer = tar(&[
        ("1.big", 0o644, b"1"),
        ("2.big", 0o644, b"2"),
        ("3.big", 0o644, b"3"),
    ]);
    let limits = Limits {
        result_bytes_max: 600,
        ..Limits::default()
    };
    let read = lengths(&layer, &limits);
    assert_eq!(packages(&read), ["1.big 1", "2.big 1"]);
    assert_eq!(read.report.sections[0].gaps[0].code, GapCode::LimitResults);
}

/// A layer in which later names are hard links to earlier ones.
fn store(files: &[(&str, &[u8])], links: &[(&str, &str)]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    let header = |size: usize| {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header
    };
    for (path, content) in files {
        let mut header = header(content.len());
        builder.append_data(&mut header, path, *content).unwrap();
    }
    for (path, target) in links {
        let mut header = header(0);
        header.set_entry_type(tar::EntryType::Link);
        builder.append_link(&mut header, path, target).unwrap();
    }
    builder.into_inner().unwrap()
}

fn found(layer: &[u8], limits: &Limits) -> Vec<String> {
    let read = read(&gzip(layer), limits);
    let sections = read.report.sections.iter();
    let packages = sections.flat_map(|section| &section.packages);
    packages
        .map(|package| format!("{} {}", package.name, package.path))
        .collect()
}

#[test]
fn a_package_that_is_a_link_to_a_store_is_read_under_its_own_name() {
    let npm = br#"{"name": "a", "version": "1"}"#;
    let python = b"Metadata-Version: 2.1\nName: b\nVersion: 2\n";
    let files: &[(&str, &[u8])] = &[("s/1", npm), ("s/2", python), ("s/3", b"{}")];
    let links = [
        ("x/node_modules/a/package.json", "s/1"),
        ("y/node_modules/a/package.json", "./s/1"),
        ("x/b-2.dist-info/METADATA", "s/2"),
        ("x/node_modules/c/package.json", "s/3"),
        ("x/node_modules/d/package.json", "s/4"),
        ("x/copy", "s/1"),
    ];
    let expected = [
        "b x/b-2.dist-info/METADATA",
        "a x/node_modules/a/package.json",
        "a y/node_modules/a/package.json",
    ];
    let layer = store(files, &links);
    assert_eq!(found(&layer, &Limits::default()), expected);
    // There is a bound on what is kept.
    let small = Limits {
        held_bytes_max: 1000,
        ..Limits::default()
    };
    assert_eq!(found(&layer, &small), [expected[1], expected[2]]);
    // What stands at the path when the link comes is what counts.
    let replaced = [files, &[("s/1", b"")]].concat();
    assert_eq!(
        found(&store(&replaced, &links), &Limits::default()),
        [expected[0]]
    );
}

#[test]
fn a_layer_keeps_as_many_packages_as_an_image_may_have() {
    let check = |packages: usize, expected: &str| {
        let one = |number: usize| {
            format!("Package: p{number}\nStatus: install ok installed\nVersion: 1\n\n")
        };
        let status: String = (0..packages).map(one).collect();
        let limits = Limits {
            image_packages_max: 20,
            ..Limits::default()
        };
        let read = read(
            &tar(&[("var/lib/dpkg/status", 0o644, status.as_bytes())]),
            &limits,
        );
        let sections = &read.report.sections;
        let found: usize = sections.iter().map(|one| one.packages.len()).sum();
        assert_eq!(found, packages.min(20));
        let gaps = sections.iter().flat_map(|one| &one.gaps);
        let said: Vec<_> = gaps.map(|gap| gap.detail.as_str()).collect();
        assert_eq!(said.join(", "), expected);
    };
    check(20, "");
    check(21, "there are more than 20 packages");
}

#[test]
fn every_text_of_a_result_counts() {
    let text = "x".repeat(1000);
    let mut found = Found::new(10_000);
    let package = || FoundPackage {
        source_name: Some(text.clone()),
        source_version: Some(text.clone()),
        ..FoundPackage::new(PackageType::Npm, "a", "1", "p")
    };
    (0..9).for_each(|_| found.add_package(package()));
    assert_eq!((found.packages.len(), found.is_over), (4, true));
    let mut found = Found::new(10_000);
    let os = || model::FoundOs {
        path: String::new(),
        id: String::new(),
        version_id: String::new(),
        codename: None,
        pretty_name: Some(text.clone()),
        id_like: vec![text.clone()],
    };
    (0..9).for_each(|_| found.add_os(os()));
    assert_eq!((found.os.len(), found.is_over), (4, true));
}

#[test]
fn the_text_of_a_license_is_no_name_of_one() {
    let manifest = |license: &str| {
        let content = format!(r#"{{"name": "a", "version": "1", "license": "{license}"}}"#);
        let layer = tar(&[("node_modules/a/package.json", 0o644, content.as_bytes())]);
        let read = read(&gzip(&layer), &Limits::default());
        let mut sections = read.report.sections.iter();
        sections.find_map(|section| section.packages.first().cloned())
    };
    assert_eq!(manifest("MIT").unwrap().licenses, ["MIT"]);
    assert_eq!(manifest(&"x".repeat(1 << 20)).unwrap().licenses, [""; 0]);
}

#[test]
fn path_tricks_are_capped() {
    let mut builder = tar::Builder::new(Vec::new());
    for _ in 0..50 {
        let mut header = tar::Header::new_ustar();
        header.as_mut_bytes()[..4].copy_from_slice(b"../x");
        header.set_size(0);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_entry_type(tar::EntryType::Regular);
        header.set_cksum();
        builder.append(&header, io::empty()).unwrap();
    }
    let limits = Limits {
        gaps_max: 5,
        ..Limits::default()
    };
    let read = read(&gzip(&builder.into_inner().unwrap()), &limits);
    let gaps = &read.report.entries.gaps;
    assert_eq!((gaps.len(), &gaps[5].detail[..]), (6, "45 more gaps"));
    assert_eq!(
        (gaps[5].code, gaps[5].hides),
        (GapCode::LimitResults, Hides::Entries)
    );
    assert!(read.report.entries.entries.is_empty());
}

fn small_layer() -> impl Strategy<Value = Vec<u8>> {
    let path = prop_oneof![
        Just("var/lib/dpkg/status"),
        Just("var/lib/dpkg/info/a.list"),
        Just("lib/apk/db/installed"),
        Just("etc/os-release"),
        Just("x/b-1.dist-info/METADATA"),
        Just("n/node_modules/c/package.json"),
        Just("usr/bin/su"),
    ];
    let content = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        "([A-Za-z]{1,9}:? ?[a-z0-9.:]{0,9}\n{1,2}){0,9}".prop_map(String::into_bytes),
        "(P:[a-z]{0,3}\n|V:[0-9]{0,3}\n|F:[a-z]{0,3}\n|R:[a-z]{0,3}\n|Z:Q1[a-zA-Z]{0,28}\n|\n){0,20}"
            .prop_map(String::into_bytes),
        "(Package: [a-z]{0,3}\n|Version: [0-9]{0,3}\n|Status: a b [a-z]{0,9}\n|\n){0,20}"
            .prop_map(String::into_bytes),
    ];
    let files = prop::collection::vec((path, content), 0..6);
    files.prop_map(|files| {
        let files: Vec<_> = files
            .iter()
            .map(|(path, content)| (*path, 0o6755, &content[..]))
            .collect();
        tar(&files)
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn whatever_comes_nothing_panics(
        layer in small_layer(),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        packed in any::<bool>(),
    ) {
        let mut bytes = if packed { gzip(&layer) } else { layer };
        for (at, with) in damage {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        let limits = Limits { uncompressed_bytes_max: 1 << 22, ..Limits::default() };
        let first = read(&bytes, &limits);
        let again = read(&bytes, &limits);
        prop_assert_eq!((&first.report, first.complete), (&again.report, again.complete));
        for entry in &first.report.entries.entries {
            prop_assert!(entry.kind != EntryKind::File || !entry.path.is_empty());
        }
    }

    #[test]
    fn arbitrary_bytes_are_a_gap_or_an_empty_layer(bytes in prop::collection::vec(any::<u8>(), 0..1500)) {
        let read = read(&bytes, &Limits::default());
        prop_assert!(read.complete);
        prop_assert!(bytes.is_empty() || !read.report.entries.gaps.is_empty());
    }

    #[test]
    fn the_number_of_threads_never_changes_a_report(
        sizes in prop::collection::vec(0_usize..200_000, 1..12),
    ) {
        let contents: Vec<_> = sizes.iter().map(|size| vec![b'x'; *size]).collect();
        let names: Vec<_> = (0..sizes.len()).map(|at| format!("{at}.big")).collect();
        let files: Vec<_> = names.iter().zip(&contents).map(|(n, c)| (&n[..], 0o644, &c[..])).collect();
        let layer = tar(&files);
        let limits = Limits::default();
        let in_pool = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| lengths(&layer, &limits))
        };
        let expected = lengths(&layer, &limits);
        let alone = in_pool(1);
        prop_assert_eq!((&alone.report, alone.complete), (&expected.report, expected.complete));
        let many = in_pool(4);
        prop_assert_eq!((&many.report, many.complete), (&expected.report, expected.complete));
    }
}
