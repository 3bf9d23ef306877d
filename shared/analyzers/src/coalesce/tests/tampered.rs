//! Files that are not as their package brought them.

use model::{Confidence, Diversion, FileSums};

use super::*;

/// A layer with files that are summed up, given as `PATH CONTENT`, with what packages recorded,
/// given as `PACKAGE PATH CONTENT`, and other entries.
struct Told<'a> {
    name: &'a str,
    files: &'a [&'a str],
    records: &'a [&'a str],
    entries: &'a [&'a str],
}

const TOLD: Told<'_> = Told {
    name: "0",
    files: &[],
    records: &[],
    entries: &[],
};

fn words(line: &str) -> Vec<&str> {
    line.split(' ').collect()
}

/// Stands for the digest of a file's content.
fn md5(content: &str) -> [u8; 16] {
    *Digest::of(content.as_bytes())
        .as_bytes()
        .first_chunk()
        .unwrap()
}

impl Told<'_> {
    /// Packages `a` and `b` are installed.
    fn layer(&self, version: &str) -> LayerReport {
        let mut lines = vec!["f var/lib/dpkg/status".to_owned()];
        lines.extend(self.entries.iter().map(|entry| (*entry).to_owned()));
        let mut section = debs(&[("a", version), ("b", version)]);
        for file in self.files {
            let words = words(file);
            lines.push(format!("f {}", words[0]));
            section.sums.push(FileSums {
                path: words[0].to_owned(),
                md5: md5(words[1]),
                sha1: [0; 20],
            });
        }
        for record in self.records {
            let words = words(record);
            section.owned.push(Owned {
                package: words[0].to_owned(),
                arch: Some("amd64".to_owned()),
                path: words[1].to_owned(),
                digest: Some(match words[2].split_once(':') {
                    Some(_) => words[2].to_owned(),
                    None => format!("md5:{}", model::hex(&md5(words[2]))),
                }),
            });
        }
        let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
        layer(self.name, &lines, section)
    }
}

/// `PATH of PACKAGE since LAYER`, one line per file.
fn tampered(layers: &[LayerReport]) -> Vec<String> {
    let report = image(layers);
    let line = |found: &model::Tampered| {
        let mut numbers = layers.iter();
        let number = numbers.position(|layer| layer.blob == found.layer);
        let package = found.package_id.0.split('@').next().unwrap();
        format!("{} of {package} since {}", found.path, number.unwrap())
    };
    report.findings.tampered.iter().map(line).collect()
}

const BASE: Told<'_> = Told {
    files: &["usr/bin/a 1", "usr/bin/b 2"],
    records: &["a usr/bin/a 1", "b usr/bin/b 2"],
    ..TOLD
};

#[test]
fn a_section_is_as_its_analyzer_made_it() {
    let report = BASE.layer("1");
    let layer = PreparedLayer::new(report.clone());
    let section = layer.sections[0].to_section(&layer.entries);
    assert_eq!(section, *report.sections[0]);
}

#[test]
fn files_as_they_were_brought_are_not_listed() {
    assert_eq!(tampered(&[BASE.layer("1")]), [""; 0]);
    let unrelated = Told {
        name: "1",
        files: &["opt/bin/a 9"],
        ..TOLD
    };
    assert_eq!(tampered(&[BASE.layer("1"), unrelated.layer("1")]), [""; 0]);
}

#[test]
fn a_changed_file_is_listed_with_the_layer_that_changed_it() {
    let changed = Told {
        files: &["usr/bin/a 9", "usr/bin/b 2"],
        ..BASE
    };
    assert_eq!(
        tampered(&[changed.layer("1")]),
        ["usr/bin/a of deb:a since 0"]
    );
    let above = Told {
        name: "1",
        files: &["usr/bin/a 9"],
        ..TOLD
    };
    let layers = [BASE.layer("1"), above.layer("1")];
    assert_eq!(tampered(&layers), ["usr/bin/a of deb:a since 1"]);
    let back = Told {
        name: "2",
        files: &["usr/bin/a 1"],
        ..TOLD
    };
    let layers = [BASE.layer("1"), above.layer("1"), back.layer("1")];
    assert_eq!(tampered(&layers), [""; 0]);
}

#[test]
fn what_is_removed_is_not_changed() {
    let above = Told {
        name: "1",
        files: &["usr/bin/a 9"],
        ..TOLD
    };
    let gone = layer("2", &["w usr/bin/a"], section());
    assert_eq!(
        tampered(&[BASE.layer("1"), above.layer("1"), gone]),
        [""; 0]
    );
    let no_package = layer("2", &["f var/lib/dpkg/status"], debs(&[("b", "1")]));
    let layers = [BASE.layer("1"), above.layer("1"), no_package];
    assert_eq!(tampered(&layers), [""; 0]);
}

#[test]
fn the_latest_record_of_a_package_counts() {
    let upgrade = Told {
        name: "1",
        files: &["usr/bin/a 3"],
        records: &["a usr/bin/a 3", "a usr/lib/a.so 4"],
        ..TOLD
    };
    assert_eq!(tampered(&[BASE.layer("1"), upgrade.layer("2")]), [""; 0]);
    let without_file = Told {
        files: &[],
        ..upgrade
    };
    let layers = [BASE.layer("1"), without_file.layer("2")];
    assert_eq!(tampered(&layers), ["usr/bin/a of deb:a since 0"]);
}

#[test]
fn a_merged_usr_is_one_place() {
    let merged = Told {
        files: &["usr/bin/a 1"],
        records: &["a bin/a 1"],
        entries: &["l bin -> usr/bin"],
        ..TOLD
    };
    assert_eq!(tampered(&[merged.layer("1")]), [""; 0]);
    let changed = Told {
        files: &["usr/bin/a 9"],
        ..merged
    };
    assert_eq!(
        tampered(&[changed.layer("1")]),
        ["usr/bin/a of deb:a since 0"]
    );
    let two = Told {
        files: &["bin/a 1", "usr/bin/a 2"],
        records: &["a bin/a 1", "b usr/bin/a 2"],
        ..TOLD
    };
    assert_eq!(tampered(&[two.layer("1")]), [""; 0]);
}

#[test]
fn what_any_owner_recorded_is_as_brought() {
    let both = Told {
        files: &["usr/bin/a 2"],
        records: &["a usr/bin/a 1", "b usr/bin/a 2"],
        ..TOLD
    };
    assert_eq!(tampered(&[both.layer("1")]), [""; 0]);
}

/// The layer of `told`, in which dpkg was told that `usr/bin/a` stands elsewhere.
fn diverted(told: &Told<'_>, package: Option<&str>) -> LayerReport {
    let entries = [told.entries, &["f var/lib/dpkg/diversions"]].concat();
    let mut layer = Told {
        entries: &entries,
        ..*told
    }
    .layer("1");
    Arc::make_mut(&mut layer.sections[0]).diversions = vec![Diversion {
        path: "bin/a".to_owned(),
        to: "usr/bin/a.real".to_owned(),
        package: package.map(ToOwned::to_owned),
    }];
    layer
}

#[test]
fn a_diverted_file_is_compared_where_it_is() {
    let check = |files: &[&str], package: Option<&str>, expected: &[&str]| {
        let told = Told {
            files,
            records: &["a usr/bin/a 1", "b usr/bin/a 2"],
            ..TOLD
        };
        assert_eq!(tampered(&[diverted(&told, package)]), expected, "{files:?}");
    };
    // The file of `b` stands in the place of that of `a`.
    let (both, changed) = (["usr/bin/a 2", "usr/bin/a.real 1"], "of deb:b since 0");
    check(&both, Some("b"), &[]);
    let changed = format!("usr/bin/a {changed}");
    check(&["usr/bin/a 9", "usr/bin/a.real 1"], Some("b"), &[&changed]);
    let moved = ["usr/bin/a.real of deb:a since 0"];
    check(&["usr/bin/a 2", "usr/bin/a.real 9"], Some("b"), &moved);
    // What the administrator puts there, nobody recorded.
    check(&["usr/bin/a 9"], None, &[]);
}

#[test]
fn the_uppermost_list_of_diversions_counts() {
    let told = Told {
        files: &["usr/bin/a 9"],
        records: &["a usr/bin/a 1"],
        ..TOLD
    };
    let ended = Told {
        name: "1",
        entries: &["f var/lib/dpkg/diversions"],
        ..TOLD
    };
    let layers = [diverted(&told, None), ended.layer("1")];
    assert_eq!(tampered(&layers[..1]), [""; 0]);
    assert_eq!(tampered(&layers), ["usr/bin/a of deb:a since 0"]);
}

#[test]
fn a_link_in_the_place_of_a_file_is_a_change() {
    let linked = layer(
        "1",
        &["f usr/bin/other", "l usr/bin/a -> b"],
        Section {
            sums: vec![FileSums {
                path: "usr/bin/other".to_owned(),
                md5: [0; 16],
                sha1: [0; 20],
            }],
            ..section()
        },
    );
    let layers = [BASE.layer("1"), linked];
    assert_eq!(tampered(&layers), ["usr/bin/a of deb:a since 1"]);
}

#[test]
fn apk_records_where_its_links_lead() {
    // The digest of `b`.
    let sha1 = "sha1:e9d71f5ee7c92d6dc9e92ffdad17b8bd49418f98";
    let told = |target: &str| {
        let (record, link) = (
            format!("a usr/lib/a {sha1}"),
            format!("l usr/lib/a -> {target}"),
        );
        let told = Told {
            files: &["usr/lib/b 2", "usr/lib/c 3"],
            records: &[&record],
            entries: &[&link],
            ..TOLD
        };
        tampered(&[told.layer("1")])
    };
    assert_eq!(told("b"), [""; 0]);
    assert_eq!(told("c"), ["usr/lib/a of deb:a since 0"]);
}

#[test]
fn rpm_records_the_digest_that_entries_have() {
    let told = |recorded: &[u8]| {
        let record = format!("a usr/bin/a {}", Digest::of(recorded));
        let told = Told {
            files: &["usr/bin/a 1"],
            records: &[&record],
            ..TOLD
        };
        let mut layer = told.layer("1");
        let entries = Arc::make_mut(&mut layer.entries);
        let entry = entries.entries.iter_mut();
        let mut entry = entry.filter(|entry| entry.path == "usr/bin/a");
        entry.next().unwrap().digest = Some(Digest::of(b"content"));
        tampered(&[layer])
    };
    assert_eq!(told(b"content"), [""; 0]);
    assert_eq!(told(b"other"), ["usr/bin/a of deb:a since 0"]);
}

#[test]
fn without_digests_of_files_nothing_is_compared() {
    let off = Told {
        files: &[],
        entries: &["f usr/bin/a", "l usr/bin/b -> a"],
        ..BASE
    };
    assert_eq!(tampered(&[off.layer("1")]), [""; 0]);
}

#[test]
fn configuration_is_free_to_change() {
    let told = Told {
        files: &["etc/init.d/a 9", "usr/local/bin/a 9"],
        records: &["a etc/init.d/a 1", "a usr/local/bin/a 1"],
        ..TOLD
    };
    assert_eq!(tampered(&[told.layer("1")]), [""; 0]);
}

#[test]
fn changed_files_are_bounded() {
    let many = |count: usize| {
        let files: Vec<_> = (0..count).map(|at| format!("usr/bin/x{at:05} 9")).collect();
        let records: Vec<_> = (0..count)
            .map(|at| format!("a usr/bin/x{at:05} 1"))
            .collect();
        let files: Vec<&str> = files.iter().map(String::as_str).collect();
        let records: Vec<&str> = records.iter().map(String::as_str).collect();
        let told = Told {
            files: &files,
            records: &records,
            ..TOLD
        };
        let report = image(&[told.layer("1")]);
        (report.findings.tampered.len(), report.gaps)
    };
    assert_eq!(many(1000), (1000, Vec::new()));
    let (listed, gaps) = many(1001);
    assert_eq!(listed, 1000);
    assert_eq!(
        (gaps[0].code, gaps[0].hides),
        (GapCode::LimitResults, Hides::Nothing)
    );
}

#[test]
fn a_guess_at_a_file_that_a_package_owns_is_left_out() {
    let guessed = |content: &str| {
        let file = format!("usr/bin/a {content}");
        let told = Told {
            files: &[&file, "opt/bin/a 1"],
            records: &["a usr/bin/a 1"],
            ..TOLD
        };
        let mut layer = told.layer("1");
        let section = Arc::make_mut(&mut layer.sections[0]);
        for path in ["usr/bin/a", "opt/bin/a"] {
            section.packages.push(FoundPackage {
                confidence: Confidence::Low,
                ..FoundPackage::new(PackageType::Generic, "a", "1", path)
            });
        }
        let report = image(&[layer]);
        let packages = report.packages.into_iter();
        let guesses = packages.filter(|package| package.kind == PackageType::Generic);
        guesses.map(|package| package.path).collect::<Vec<_>>()
    };
    assert_eq!(guessed("1"), ["opt/bin/a"]);
    // The package says nothing of what is there now.
    assert_eq!(guessed("9"), ["opt/bin/a", "usr/bin/a"]);
}

#[test]
fn one_installation_is_one_guess() {
    let paths = [
        "opt/a/bin/x",
        "opt/a/lib/libx.so.1",
        "opt/a/lib64/engines/libx.so",
        "opt/b/bin/x",
        "opt/bin/libx.so",
        "x",
    ];
    let lines: Vec<_> = paths.iter().map(|path| format!("f {path}")).collect();
    let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
    let guesses = paths.iter().map(|path| FoundPackage {
        confidence: Confidence::Low,
        ..FoundPackage::new(PackageType::Generic, "x", "1", *path)
    });
    let report = image(&[layer("0", &lines, with(guesses.collect()))]);
    let found: Vec<_> = report
        .packages
        .iter()
        .map(|package| &package.path)
        .collect();
    assert_eq!(
        found,
        ["opt/a/bin/x", "opt/b/bin/x", "opt/bin/libx.so", "x"]
    );
}
