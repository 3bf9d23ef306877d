//! The entries that are looked at give the report that all of them give.

use proptest::prelude::*;

use super::*;

/// Paths in which the places of package managers come up often.
fn record_path() -> impl Strategy<Value = String> {
    let random = prop::collection::vec(
        prop::sample::select(vec![
            "var",
            "lib",
            "dpkg",
            "status.d",
            "status",
            "a",
            "b",
            "node_modules",
            "package.json",
            "usr",
        ]),
        1..5,
    );
    prop_oneof![
        4 => random.prop_map(|names| names.join("/")),
        1 => Just("var/lib/dpkg/status".to_owned()),
        1 => "var/lib/dpkg/status\\.d/[ab]",
        1 => "[ab]/[ab]",
        1 => "[ab]/node_modules/[ab]/package\\.json",
        1 => "[ab]\\.egg-info",
        1 => "usr/lib/[ab]",
    ]
}

fn record_line() -> impl Strategy<Value = String> {
    let target = prop_oneof![
        3 => record_path(),
        1 => record_path().prop_map(|path| format!("/{path}")),
        1 => record_path().prop_map(|path| format!("../{path}")),
        1 => record_path().prop_map(|path| format!("{path}/..")),
    ];
    prop_oneof![
        4 => record_path().prop_map(|path| format!("f {path}")),
        2 => record_path().prop_map(|path| format!("d {path}")),
        3 => (record_path(), target).prop_map(|(path, to)| format!("l {path} -> {to}")),
        1 => (record_path(), record_path()).prop_map(|(path, to)| format!("h {path} -> {to}")),
        1 => record_path().prop_map(|path| format!("w {path}")),
        1 => record_path().prop_map(|path| format!("o {path}")),
    ]
}

/// A section that speaks of some of these paths.
fn record_section(spoken: Vec<(u8, String)>) -> Section {
    let mut section = section();
    for (what, path) in spoken {
        let name = path.replace('/', "-");
        match what {
            0 => section
                .packages
                .push(package(PackageType::Deb, &name, "1", &path)),
            1 => section
                .packages
                .push(package(PackageType::Pypi, &name, "1", &path)),
            2 => section.owned.push(Owned {
                package: "var-lib-dpkg-status".to_owned(),
                arch: None,
                path,
                digest: None,
            }),
            _ => {
                let gap = Gap::new(GapCode::Malformed, Hides::Packages, name);
                section.gaps.push(gap.at(path));
            }
        }
    }
    section
}

#[test]
fn a_link_brings_in_what_lies_where_it_leads_and_nothing_else() {
    let is_looked_at = |links: &[&str]| {
        let mut section = section();
        let program = package(PackageType::Pypi, "python", "1", "usr/bin/python");
        section.packages.push(program);
        // Programs are called as directories elsewhere are, and every system has a link `bin`.
        let mut lines = vec!["l bin -> usr/bin", "f usr/bin/python", "f srv/python/a"];
        lines.extend(links);
        let layer = PreparedLayer::new(layer("a", &lines, section));
        let layers = [&layer];
        let candidates = view::candidates(&layers);
        let view = View::new(&layers, &candidates, &Limits::default());
        let visible = view::visible(&view.tree);
        visible.keys().any(|path| path.ends_with("python/a"))
    };
    assert!(!is_looked_at(&["l lib -> usr/lib"]));
    assert!(!is_looked_at(&["l opt/srv -> opt/x"]));
    assert!(is_looked_at(&["l opt/srv -> usr/bin"]));
    assert!(is_looked_at(&["l opt/srv -> x", "l opt/x -> ../bin"]));
    // That may be anywhere.
    assert!(is_looked_at(&["l opt/srv -> opt/.."]));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(8192))]

    #[test]
    fn entries_that_are_not_looked_at_change_nothing(
        layers in prop::collection::vec(
            (
                prop::collection::vec(record_line(), 0..9),
                prop::collection::vec((0_u8..4, record_path()), 0..3),
            ),
            1..5,
        ),
        entries_max in prop_oneof![1 => 3_u64..30, 4 => Just(1000)],
    ) {
        let layers = layers.into_iter().enumerate().map(|(number, (lines, spoken))| {
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            PreparedLayer::new(layer(&number.to_string(), &lines, record_section(spoken)))
        });
        let layers: Vec<_> = layers.collect();
        let layers: Vec<&PreparedLayer> = layers.iter().collect();
        let candidates = view::candidates(&layers);
        let config = ImageConfig::default();
        let limits = Limits {
            image_entries_max: entries_max,
            ..Limits::default()
        };
        let all = View::of_all(&layers, &candidates, &limits);
        let all = report(&all, &config, subject(), &limits);
        let kept: Vec<_> = layers.iter().map(|layer| kept_again(layer)).collect();
        let kept: Vec<_> = kept.iter().collect();
        let mut chosen = coalesce_prepared(&kept, &config, subject(), &limits);
        // What is said of packages when they are known depends on no entry.
        chosen.findings.licenses.clear();
        prop_assert_eq!(chosen, all);
    }
}
