//! What every analyzer has to keep to: testdata, a row in the crate's doc, a version that follows
//! its output.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
    slice,
    sync::{Arc, LazyLock},
};

use archive::{Entry, Limits};
use model::{Digest, EntryKind, LayerEntry, Section};
use proptest::prelude::*;

use crate::{
    Analyzers, Config, Found, LayerBlob, Wanted,
    file::{Content, Held},
    filter::Asked,
    read_layer,
};

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

fn read(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    File::open(path)
        .unwrap()
        .take(1 << 20)
        .read_to_end(&mut bytes)
        .unwrap();
    bytes
}

/// Paths below a directory, sorted.
fn files(directory: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut todo = vec![directory.to_owned()];
    while let Some(directory) = todo.pop() {
        for entry in directory.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                todo.push(path);
            } else {
                all.push(path);
            }
        }
    }
    all.sort();
    all
}

/// A case's files as a layer. `.modes` gives the modes that a checkout cannot keep.
fn layer(case: &Path) -> Vec<u8> {
    let modes = case.join(".modes");
    let modes = if modes.exists() {
        String::from_utf8(read(&modes)).unwrap()
    } else {
        String::new()
    };
    let modes: BTreeMap<&str, u32> = modes
        .lines()
        .map(|line| line.split_once(' ').unwrap())
        .map(|(mode, path)| (path, u32::from_str_radix(mode, 8).unwrap()))
        .collect();
    let mut builder = tar::Builder::new(Vec::new());
    for file in files(case) {
        let path = file.strip_prefix(case).unwrap();
        if path == Path::new(".modes") {
            continue;
        }
        let content = read(&file);
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(modes.get(path.to_str().unwrap()).copied().unwrap_or(0o644));
        header.set_uid(0);
        header.set_gid(0);
        builder
            .append_data(&mut header, path, &content[..])
            .unwrap();
    }
    builder.into_inner().unwrap()
}

fn section(name: &str, case: &Path) -> Section {
    let limits = Limits::default();
    let all = Analyzers::of_directory(&Config::default(), &limits);
    let ids: Vec<_> = all.ids().into_iter().filter(|id| id.name == name).collect();
    let blob = layer(case);
    let expected = LayerBlob {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        media_type: "application/vnd.oci.image.layer.v1.tar".to_owned(),
    };
    let read = read_layer(&blob[..], &expected, &all.subset(&ids), &limits, None);
    assert!(read.complete, "{name} {}", case.display());
    assert_eq!(read.report.sections.len(), 1, "{name} is in the list once");
    Section::clone(&read.report.sections[0])
}

#[test]
fn every_analyzer_has_testdata_and_a_version_that_follows_its_output() {
    let versions = String::from_utf8(read(&testdata().join("versions"))).unwrap();
    let mut missing = String::new();
    for id in Analyzers::of_directory(&Config::default(), &Limits::default()).ids() {
        let mut output = String::new();
        for case in ["good", "broken"] {
            let directory = testdata().join(&id.name).join(case);
            assert!(
                directory.is_dir(),
                "`{}` has no testdata/{0}/{case}/",
                id.name
            );
            let mut section = section(&id.name, &directory);
            // What it says of limits is in the digest, and limits are not what is shown here.
            section.analyzer.config = Digest::of(b"");
            output.push_str(&serde_json::to_string(&section).unwrap());
            insta::with_settings!({
                snapshot_path => testdata().join(&id.name),
                prepend_module_to_snapshot => false,
                omit_expression => true,
            }, {
                insta::assert_yaml_snapshot!(case, section);
            });
        }
        let line = format!(
            "{} {} {}",
            id.name,
            id.version,
            Digest::of(output.as_bytes()).short()
        );
        if !versions.lines().any(|known| known == line) {
            writeln!(missing, "{line}").unwrap();
        }
    }
    assert!(
        missing.is_empty(),
        "the output of these analyzers changed. Raise their `version`, then add (never edit) in \
         testdata/versions:\n{missing}"
    );
}

#[test]
fn a_version_has_one_output() {
    let versions = String::from_utf8(read(&testdata().join("versions"))).unwrap();
    let mut seen = BTreeMap::new();
    for line in versions.lines() {
        let (key, hash) = line.rsplit_once(' ').unwrap();
        assert_eq!(
            seen.insert(key, hash),
            None,
            "`{key}` is there twice: raise the version"
        );
    }
}

#[test]
fn every_analyzer_has_a_row_in_the_crates_doc() {
    let doc = include_str!("lib.rs");
    for id in Analyzers::of_directory(&Config::default(), &Limits::default()).ids() {
        assert!(
            doc.contains(&format!("//! | `{}` |", id.name)),
            "`{}` has no row",
            id.name
        );
    }
}

#[test]
fn ids_are_distinct_and_follow_the_limits() {
    let limits = Limits::default();
    let other = Limits {
        entries_max: 7,
        ..Limits::default()
    };
    let (ids, others) = (
        Analyzers::of_directory(&Config::default(), &limits).ids(),
        Analyzers::of_directory(&Config::default(), &other).ids(),
    );
    let names: BTreeSet<_> = ids.iter().map(|id| &id.name).collect();
    assert_eq!(names.len(), ids.len());
    for (id, other) in ids.iter().zip(&others) {
        assert!(id.version > 0 && id.name == other.name && id.config != other.config);
    }
}

/// What an analyzer wants by itself, it must be asked for.
#[test]
fn every_wanted_file_has_a_piece_of_its_analyzer() {
    let limits = Limits::default();
    let all = Analyzers::all(&Config::default(), &limits);
    let mut asked = Asked::default();
    let mut wanted = 0;
    for (path, bytes) in samples() {
        let entry = LayerEntry {
            path: path.clone(),
            kind: EntryKind::File,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: bytes.len() as u64,
            link: None,
            capabilities: None,
            digest: None,
        };
        all.filter().ask(&entry.path, &mut asked);
        let asked: BTreeSet<usize> = asked.iter().collect();
        for (at, analyzer) in all.as_slice().iter().enumerate() {
            let head = &bytes[..bytes.len().min(1024)];
            if analyzer.wants(&Entry::from(&entry), head) != Wanted::No {
                let name = &analyzer.id().name;
                assert!(
                    asked.contains(&at),
                    "{name} is not asked for {}",
                    entry.path
                );
                wanted += 1;
            }
        }
    }
    assert!(wanted > 100, "{wanted}");
}

/// Files of the test data, each with the path that it has in its case.
fn samples() -> &'static [(String, Vec<u8>)] {
    static SAMPLES: LazyLock<Vec<(String, Vec<u8>)>> = LazyLock::new(|| {
        let in_case = |file: &PathBuf| {
            let path: PathBuf = file
                .strip_prefix(testdata())
                .unwrap()
                .iter()
                .skip(2)
                .collect();
            (path.to_str().unwrap().to_owned(), read(file))
        };
        let all = files(&testdata());
        let in_cases = all.iter().map(in_case);
        in_cases.filter(|(path, _)| !path.is_empty()).collect()
    });
    &SAMPLES
}

proptest! {
    /// `PROPTEST_CASES=1000000` makes it as thorough as there is time.
    #[test]
    fn damaged_files_are_read_without_panic(
        sample in any::<prop::sample::Index>(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        static ANALYZERS: LazyLock<Analyzers> =
            LazyLock::new(|| Analyzers::all(&Config::default(), &Limits::default()));
        let (path, bytes) = sample.get(samples());
        let mut bytes = bytes.clone();
        for (at, byte) in edits.iter().filter(|_| !bytes.is_empty()).copied().collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len() + 1));
        }
        let entry = LayerEntry {
            path: path.clone(),
            kind: EntryKind::File,
            mode: 0o755,
            uid: 0,
            gid: 0,
            size: bytes.len() as u64,
            link: None,
            capabilities: None,
            digest: None,
        };
        let head = bytes[..bytes.len().min(1024)].to_vec();
        let content = Content::Held(Arc::new(Held(bytes)));
        let file = crate::File::new(Arc::new(entry.clone()), content);
        for analyzer in ANALYZERS.as_slice() {
            if analyzer.wants(&Entry::from(&entry), &head) != Wanted::No {
                let mut found = Found::new(1 << 24);
                // It says what is wrong, as a gap or as an error; both are fine.
                let said = analyzer.analyze(slice::from_ref(&file), &mut found);
                prop_assert!(said.is_ok() || !said.unwrap_err().to_string().is_empty());
            }
        }
    }
}
