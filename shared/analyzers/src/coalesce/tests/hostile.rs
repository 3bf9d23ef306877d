//! Layers that lie to each other, or are too much together.

use super::*;

/// `CODE HIDES PATH`, one line per gap.
fn gaps(report: &ImageReport) -> Vec<String> {
    let line = |gap: &Gap| {
        let path = gap.path.as_deref().unwrap_or("-");
        format!("{:?} {:?} {path}", gap.code, gap.hides)
    };
    report.gaps.iter().map(line).collect()
}

#[test]
fn links_to_records_of_packages_that_nobody_read_are_one_gap() {
    let module = "n/node_modules/a/package.json";
    let check = |lines: &[&str], expected: &[&str]| {
        let report = image(&[layer("0", lines, section())]);
        assert_eq!(gaps(&report), expected, "{lines:?}");
    };
    let gap = format!("UnsupportedMediaType Packages {module}");
    check(&["f store/a", &format!("h {module} -> store/a")], &[&gap]);
    check(&["f store/a", &format!("l {module} -> /store/a")], &[&gap]);
    check(&[&format!("h {module} -> nothing")], &[&gap]);
    let metadata = "p/x-1.dist-info/METADATA";
    let lines = [
        "f store/a".to_owned(),
        format!("h {module} -> store/a"),
        format!("l {metadata} -> /store/a"),
    ];
    let lines: Vec<_> = lines.iter().map(String::as_str).collect();
    let report = image(&[layer("0", &lines, section())]);
    assert_eq!(gaps(&report), [gap.as_str()]);
    assert!(
        report.gaps[0]
            .detail
            .starts_with("2 records of packages are links")
    );
    // A link that leads nowhere, and one to a file that was read by its own name, hide nothing.
    check(&[&format!("l {module} -> /nothing")], &[]);
    check(
        &[
            "f m/node_modules/a/package.json",
            &format!("l {module} -> /m/node_modules/a/package.json"),
        ],
        &[],
    );
    check(
        &[
            "f m/node_modules/a/package.json",
            &format!("h {module} -> m/node_modules/a/package.json"),
        ],
        &[],
    );
    check(
        &[
            "f m/node_modules/a/package.json",
            "l n/node_modules/a -> /m/node_modules/a",
        ],
        &[],
    );
}

#[test]
fn a_record_is_reported_where_it_was_read_and_not_by_another_name() {
    let module = "n/node_modules/a/package.json";
    let found = with(vec![package(PackageType::Npm, "a", "1", module)]);
    let linked = ["f a/store", &format!("h {module} -> ./a/store")];
    let report = image(&[layer("0", &linked, found)]);
    assert_eq!(gaps(&report), [""; 0]);
    assert_eq!(report.packages[0].path, module);
    let found = debs(&[("a", "1")]);
    let linked = ["f var/lib/dpkg/status", "h etc/copy -> var/lib/dpkg/status"];
    let report = image(&[layer("0", &linked, found)]);
    assert_eq!(report.packages[0].path, STATUS_PATH);
}

#[test]
fn a_whiteout_never_reaches_through_a_link() {
    let base = || layer("0", STATUS, debs(&[("a", "1")]));
    let linked = || layer("1", &["l x -> var/lib/dpkg"], section());
    for line in ["w x/status", "o x"] {
        let layers = [base(), linked(), layer("2", &[line], section())];
        assert_eq!(
            packages(&layers),
            ["a 1 at var/lib/dpkg/status since 0"],
            "{line}"
        );
        assert_eq!(gaps(&image(&layers)), [""; 0]);
    }
}

#[test]
fn what_replaces_a_file_through_a_link_is_a_gap_unless_usr_is_merged() {
    let check = |link: &str, below: &str, above: &str, expected: &[&str]| {
        let base = layer("0", &[link, &format!("f {below}")], section());
        let layers = [base, layer("1", &[&format!("f {above}")], section())];
        assert_eq!(gaps(&image(&layers)), expected, "{link}");
    };
    let gap = ["UnsafePath Entries x/status"];
    check("l x -> var/lib/app", "var/lib/app/status", "x/status", &gap);
    check(
        "l x -> /var/lib/app",
        "var/lib/app/status",
        "x/status",
        &gap,
    );
    check("l x -> var/lib/app", "var/lib/app/status", "x/other", &[]);
    check(
        "l lib -> usr/lib",
        "usr/lib/libc.so.6",
        "lib/libc.so.6",
        &[],
    );
    check("l bin -> /usr/bin", "usr/bin/sh", "bin/sh", &[]);
}

#[test]
fn layers_that_are_too_much_together_are_gaps() {
    let check = |layers: &[LayerReport], limits: &Limits| {
        let config = ImageConfig {
            diff_ids: layers
                .iter()
                .filter_map(|layer| layer.entries.diff_id)
                .collect(),
            ..ImageConfig::default()
        };
        gaps(&coalesce(layers, &config, subject(), limits))
    };
    let limits = Limits {
        image_entries_max: 10,
        ..Limits::default()
    };
    let cut = ["LimitEntries Entries -"];
    let names = ["f a", "f b", "f c", "f d"];
    let one = || layer("0", &names, section());
    assert_eq!(check(&[one(), one()], &limits), [""; 0]);
    assert_eq!(check(&[one(), one(), one()], &limits), cut);
    let deep = layer("1", &["f a/b/c/d/e/f/g/h/i/j/k"], section());
    assert_eq!(
        check(&[deep], &limits),
        cut,
        "directories that a path implies count"
    );
    let limits = Limits {
        image_name_bytes_max: 7,
        ..Limits::default()
    };
    assert_eq!(check(&[one(), one()], &limits), cut);
    let limits = Limits {
        image_steps_max: 100,
        ..Limits::default()
    };
    let links: Vec<_> = (0..30)
        .map(|at| format!("l {at} -> {}/x/y/z", at + 1))
        .collect();
    let mut links: Vec<_> = links.iter().map(String::as_str).collect();
    links.push("f 0/node_modules/a/package.json");
    assert_eq!(check(&[layer("2", &links, section())], &limits), cut);
}

#[test]
fn more_packages_than_an_image_may_have_are_a_gap_and_those_that_layers_repeat_are_not() {
    let names = ["a", "b", "c", "d", "e", "f", "g"];
    let check = |lower: usize, upper: usize, expected: &[&str], is_cut: bool| {
        let found = |count: usize| {
            let versions: Vec<_> = names.iter().take(count).map(|name| (*name, "1")).collect();
            debs(&versions)
        };
        let layers = [
            layer("0", STATUS, found(lower)),
            layer("1", STATUS, found(upper)),
        ];
        let config = ImageConfig {
            diff_ids: layers.iter().map(|one| one.blob).collect(),
            ..ImageConfig::default()
        };
        let limits = Limits {
            image_packages_max: 3,
            ..Limits::default()
        };
        let report = coalesce(&layers, &config, subject(), &limits);
        let found: Vec<_> = report
            .packages
            .iter()
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(found, expected, "{lower} {upper}");
        let cut: &[&str] = if is_cut {
            &["LimitResults Packages -"]
        } else {
            &[]
        };
        assert_eq!(gaps(&report), cut, "{lower} {upper}");
    };
    check(3, 3, &["a", "b", "c"], false);
    check(3, 4, &["a", "b", "c"], true);
    check(7, 7, &["a", "b", "c"], true);
}

#[test]
fn a_thousand_architectures_of_one_package_are_related_in_no_time() {
    let of = |number: usize| FoundPackage {
        arch: Some(number.to_string()),
        depends_on: vec!["a".to_owned()],
        ..package(PackageType::Deb, "a", "1", STATUS_PATH)
    };
    let found = with((0..100_000).map(of).collect());
    let started = std::time::Instant::now();
    let report = image(&[layer("0", STATUS, found)]);
    assert_eq!(report.packages.len(), 100_000);
    // All pairs would be ten thousand million.
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}

#[test]
fn many_gaps_of_an_image_are_counted() {
    let names: Vec<_> = (0..50)
        .map(|at| format!("h var/lib/dpkg/status.d/{at} -> x"))
        .collect();
    let mut lines: Vec<_> = names.iter().map(String::as_str).collect();
    lines.push("f x");
    let limits = Limits {
        gaps_max: 5,
        ..Limits::default()
    };
    let config = ImageConfig::default();
    let report = coalesce(
        &[layer("0", &lines, section())],
        &config,
        subject(),
        &limits,
    );
    let more = report
        .gaps
        .iter()
        .find(|gap| gap.code == GapCode::LimitResults);
    // One of them says that the config names no layer.
    let more = more.unwrap();
    assert_eq!((report.gaps.len(), &more.detail[..]), (6, "46 more gaps"));
    assert_eq!(more.hides, Hides::Packages);
}

#[test]
fn the_platform_is_what_the_index_says_where_the_config_is_silent() {
    let report = image(&[layer("0", &[], section())]);
    assert_eq!(report.target.platform, "linux/arm64".parse().unwrap());
}

#[test]
fn a_layer_that_is_named_often_costs_its_results_once() {
    let of = |number: usize| package(PackageType::Deb, &number.to_string(), "1", STATUS_PATH);
    let found = with((0..2000).map(of).collect());
    let layers = vec![layer("0", STATUS, found); 512];
    let started = std::time::Instant::now();
    let report = image(&layers);
    assert_eq!(report.packages.len(), 2000);
    assert_eq!(report.packages[0].layer, layers[0].blob);
    assert!(started.elapsed() < std::time::Duration::from_secs(20));
}
