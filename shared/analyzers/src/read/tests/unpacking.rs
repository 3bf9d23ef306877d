//! All archives of a layer share one budget.

use super::*;
use crate::jar::tests::archive;

/// A Java archive of a megabyte that carries so many bytes to be unpacked, of which none can be read.
fn jar(unpacked: usize) -> Vec<u8> {
    archive(&[
        ("data", &noise(1 << 20)),
        ("META-INF/maven/a/b/pom.properties", &vec![b'#'; unpacked]),
    ])
}

/// The names of the packages, and the gaps, of four archives under this budget.
fn read_four(unpacked_bytes_max: u64) -> (Vec<String>, Vec<Gap>) {
    let limits = Limits {
        unpacked_bytes_max,
        ..Limits::default()
    };
    let bytes = jar(1000);
    let layer = tar(&[
        ("a-1.jar", 0o644, &bytes),
        ("b-1.jar", 0o644, &bytes),
        ("c-1.jar", 0o644, &bytes),
        ("d-1.jar", 0o644, &bytes),
    ]);
    let analyzers = Analyzers::all(&Config::default(), &limits);
    let read = read_layer(&layer[..], &blob_of(&layer, TAR), &analyzers, &limits, None);
    assert!(read.complete);
    let sections = read.report.sections;
    let jar = sections.into_iter().find(|one| one.analyzer.name == "jar");
    let jar = jar.unwrap();
    let names = jar.packages.iter().map(|package| package.name.clone());
    (names.collect(), jar.gaps.clone())
}

#[test]
fn archives_of_a_layer_share_one_budget_in_their_order() {
    assert_eq!(
        read_four(3000),
        (["a", "b", "c", "d"].map(str::to_owned).to_vec(), vec![])
    );
    // In whatever order they are opened, of which there are many here.
    for _ in 0..8 {
        let (names, gaps) = read_four(2999);
        assert_eq!(names, ["a", "b", "c"]);
        let said: Vec<_> = gaps
            .iter()
            .map(|gap| (gap.code, gap.hides, gap.path.as_deref()))
            .collect();
        assert_eq!(
            said,
            [(GapCode::LimitUncompressed, Hides::Packages, Some("d-1.jar"))]
        );
        assert!(gaps[0].detail.contains("2999 bytes"), "{}", gaps[0].detail);
    }
    assert_eq!(read_four(0).0, ["a"]);
}
