use model::{
    Confidence, Counts, Fingerprint, FixState, Match, Package, PackageId, Purl, SeenReference,
};

use super::*;

fn tenant() -> Slug {
    Slug::default_tenant()
}

fn digest(name: &str) -> Digest {
    Digest::of(name.as_bytes())
}

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(second).unwrap()
}

fn known(names: &[(&str, Option<&str>, bool)]) -> Fact {
    let seen = |(repository, tag, gone): &(&str, Option<&str>, bool)| SeenReference {
        source: "main".parse().unwrap(),
        registry: "r.example".to_owned(),
        repository: (*repository).to_owned(),
        tag: tag.map(ToOwned::to_owned),
        since: at(1),
        gone_at: gone.then(|| at(2)),
    };
    Fact::Known(Known {
        references: names.iter().map(seen).collect(),
        indexes: vec![digest("index")],
        config: Some(digest("config")),
        ..Known::default()
    })
}

fn package(name: &str, version: &str) -> Package {
    Package {
        id: PackageId(name.to_owned()),
        kind: PackageType::Deb,
        name: name.to_owned(),
        version: version.to_owned(),
        purl: Purl(format!("pkg:deb/debian/{name}@{version}")),
        path: "var/lib/dpkg/status".to_owned(),
        within: None,
        layer: digest("layer"),
        arch: None,
        distro: None,
        source_name: None,
        source_version: None,
        vendor: None,
        modularity: None,
        licenses: Vec::new(),
        depends_on: Vec::new(),
        digests: Vec::new(),
        owned_by: None,
        direct: None,
        dev: None,
        confidence: Confidence::High,
    }
}

fn scanned(packages: &[Package]) -> Fact {
    let record = Scanned {
        analyzers: Vec::new(),
        packages: digest(&format!("{packages:?}")),
        findings: digest("findings"),
        package_count: u32::try_from(packages.len()).unwrap(),
        gap_count: 0,
        scanned_at: at(3),
        duration_ms: 1,
        layers_read: 1,
        unfinished: false,
        cause: String::new(),
        contents: model::ScannedContents::default(),
        files: Vec::new(),
        config: model::ScannedConfig::default(),
    };
    Fact::Scanned(record, Some(Arc::new(PackageRows::new(packages).unwrap())))
}

fn vulnerability(id: &str, aliases: &[&str]) -> Vulnerability {
    Vulnerability {
        id: id.to_owned(),
        aliases: aliases.iter().map(|&alias| alias.to_owned()).collect(),
        package_id: PackageId("openssl".to_owned()),
        package: "openssl".to_owned(),
        kind: PackageType::Deb,
        installed_version: "3.0.1".to_owned(),
        fixed_versions: vec!["3.0.2".to_owned()],
        fix_state: FixState::Fixed,
        severity: Severity::High,
        severity_level: 4,
        cvss: Vec::new(),
        epss: None,
        kev: false,
        title: String::new(),
        url: String::new(),
        source: "Debian".to_owned(),
        published: None,
        modified: None,
        path: "var/lib/dpkg/status".to_owned(),
        layer: digest("layer"),
        matched: Match {
            method: "package".to_owned(),
            confidence: Confidence::High,
            evidence: Vec::new(),
        },
        vex: None,
        waived: None,
        fingerprint: Fingerprint(id.to_owned()),
    }
}

fn assessed(found: &[Vulnerability]) -> Fact {
    let record = Assessed {
        scan: 2,
        advisory: 7,
        assessment: digest("assessment"),
        findings: digest("findings"),
        previous: None,
        counts: Counts::of(found),
        assessed_at: at(4),
        contents: model::AssessedContents::default(),
    };
    let rows = VulnerabilityRows::new(found).unwrap();
    Fact::Assessed(record, Some(Arc::new(rows)))
}

struct World {
    view: View,
    sequence: u64,
    _dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            view: View::open(&dir.path().join("inventory")).unwrap(),
            sequence: 0,
            _dir: dir,
        }
    }

    fn take(&mut self, image: &str, what: What, fact: Fact) {
        self.sequence += 1;
        let key = RecordKey::new(&tenant(), digest(image), what);
        let write = Write {
            bucket: "tw_images_0".to_owned(),
            sequence: self.sequence,
            told: Some(Told::Image(key, Box::new(fact))),
        };
        self.view.apply(&write).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let names = self.view.names(&tenant(), None, 100).unwrap();
        names
            .into_iter()
            .map(|name| format!("{}:{}", name.repository, name.tag.unwrap_or_default()))
            .collect()
    }

    fn affected(&self, id: &str) -> Vec<Digest> {
        let names = self.view.vulnerability_names(&tenant(), id).unwrap();
        let found = names
            .iter()
            .flat_map(|name| self.view.affected(&tenant(), name, None, 100).unwrap());
        found.map(|(image, _)| image).collect()
    }
}

#[test]
fn names_come_and_go_with_the_record() {
    let mut world = World::new();
    world.take(
        "a",
        What::Known,
        known(&[("app", Some("1"), false), ("app", None, false)]),
    );
    world.take(
        "b",
        What::Known,
        known(&[("base", None, false), ("app", Some("0"), false)]),
    );
    assert_eq!(
        world.names(),
        ["r.example/app:0", "r.example/app:1", "r.example/base:"]
    );
    world.take(
        "a",
        What::Known,
        known(&[("app", Some("1"), true), ("app", None, false)]),
    );
    assert_eq!(
        world.names(),
        ["r.example/app:", "r.example/app:0", "r.example/base:"]
    );
    world.take("b", What::Known, Fact::Gone);
    assert_eq!(world.names(), ["r.example/app:"]);
    assert_eq!(world.view.image(&tenant(), digest("b")).unwrap(), None);
}

#[test]
fn digests_of_images_indexes_and_configs_lead_to_images() {
    let mut world = World::new();
    world.take("a", What::Known, known(&[("app", Some("1"), false)]));
    let lead = |name: &str| world.view.lead(&tenant(), digest(name)).unwrap();
    assert_eq!(lead("a"), Some((Kind::Image, vec![digest("a")])));
    assert_eq!(lead("index"), Some((Kind::Index, vec![digest("a")])));
    assert_eq!(lead("config"), Some((Kind::Config, vec![digest("a")])));
    assert_eq!(lead("other"), None);
    let foreign: Slug = "other".parse().unwrap();
    assert_eq!(world.view.lead(&foreign, digest("a")).unwrap(), None);
    let named = world
        .view
        .named(&tenant(), "r.example/app", Some("1"))
        .unwrap();
    assert_eq!(named, [digest("a")]);
}

#[test]
fn a_vulnerability_is_found_by_all_its_names_until_it_is_gone() {
    let mut world = World::new();
    let found = [
        vulnerability("CVE-2026-1", &["GHSA-aaaa", "DSA-1"]),
        vulnerability("CVE-2026-2", &[]),
    ];
    world.take("a", What::Assessed, assessed(&found));
    world.take("b", What::Assessed, assessed(&found[..1]));
    let mut both = vec![digest("a"), digest("b")];
    both.sort();
    assert_eq!(world.affected("CVE-2026-1"), both);
    assert_eq!(world.affected("ghsa-AAAA"), both);
    assert_eq!(world.affected("CVE-2026-2"), [digest("a")]);
    let hits = world
        .view
        .hits(&tenant(), "CVE-2026-1", digest("a"))
        .unwrap()
        .unwrap();
    insta::assert_json_snapshot!(hits, @r#"
    [
      {
        "id": "CVE-2026-1",
        "package": "openssl",
        "type": "deb",
        "installed": "3.0.1",
        "fixed": [
          "3.0.2"
        ],
        "severity": "high"
      }
    ]
    "#);
    world.take("a", What::Assessed, assessed(&[]));
    assert_eq!(world.affected("CVE-2026-1"), [digest("b")]);
    assert_eq!(world.affected("CVE-2026-2"), []);
}

#[test]
fn packages_are_found_without_regard_to_case() {
    let mut world = World::new();
    world.take(
        "a",
        What::Scanned,
        scanned(&[package("Flask", "1.0"), package("six", "1.16")]),
    );
    let has = |world: &World, name: &str| {
        world
            .view
            .has_package(&tenant(), name, digest("a"))
            .unwrap()
    };
    assert!(has(&world, "flask") && has(&world, "six") && !has(&world, "fla"));
    world.take("a", What::Scanned, scanned(&[package("six", "1.16")]));
    assert!(!has(&world, "flask") && has(&world, "six"));
}

#[test]
fn a_list_of_packages_stays_as_long_as_an_image_has_it() {
    let mut world = World::new();
    let list = [package("six", "1.16")];
    world.take("a", What::Scanned, scanned(&list));
    world.take("b", What::Scanned, scanned(&list));
    let has = |world: &World, image: &str| {
        let image = digest(image);
        world.view.has_package(&tenant(), "six", image).unwrap()
    };
    assert!(has(&world, "a") && has(&world, "b") && !has(&world, "c"));
    world.take("a", What::Scanned, Fact::Gone);
    assert!(!has(&world, "a") && has(&world, "b"));
    world.take("b", What::Scanned, scanned(&[]));
    for family in [PACKAGES, LISTS] {
        let rows = world.view.database.scan_prefix(family, b"", None, 10);
        let of_six = rows
            .unwrap()
            .into_iter()
            .filter(|(key, _)| key.windows(3).any(|part| part == b"SIX") || family == LISTS);
        assert_eq!(of_six.count(), usize::from(family == LISTS), "{family}");
    }
    world.take("a", What::Scanned, scanned(&list));
    assert!(has(&world, "a") && !has(&world, "b"));
}

#[test]
fn what_is_older_than_the_cursor_changes_nothing() {
    let mut world = World::new();
    world.take("a", What::Known, known(&[("app", Some("1"), false)]));
    world.sequence = 0;
    world.take("a", What::Known, known(&[("app", Some("2"), false)]));
    assert_eq!(world.names(), ["r.example/app:1"]);
    assert_eq!(world.view.cursor("tw_images_0").unwrap(), 1);
    assert_eq!(world.view.cursor("tw_images_1").unwrap(), 0);
}

#[test]
fn a_view_made_from_the_newest_records_is_the_same_as_one_that_saw_them_all() {
    let found = [
        vulnerability("CVE-2026-1", &["GHSA-aaaa"]),
        vulnerability("CVE-2026-2", &[]),
    ];
    let mut all = World::new();
    all.take("a", What::Known, known(&[("old", Some("1"), false)]));
    all.take("a", What::Scanned, scanned(&[package("old", "1")]));
    all.take("a", What::Assessed, assessed(&found));
    let mut newest = World::new();
    for world in [&mut all, &mut newest] {
        world.sequence = 10;
        world.take("a", What::Known, known(&[("app", Some("1"), false)]));
        world.take("a", What::Scanned, scanned(&[package("new", "2")]));
        world.take("a", What::Assessed, assessed(&found[..1]));
    }
    let image = |world: &World| world.view.image(&tenant(), digest("a")).unwrap();
    assert_eq!(image(&all), image(&newest));
    assert_eq!(all.names(), newest.names());
    for id in ["CVE-2026-1", "CVE-2026-2", "GHSA-aaaa"] {
        assert_eq!(all.affected(id), newest.affected(id), "{id}");
    }
    for name in ["old", "new"] {
        let has = |world: &World| {
            world
                .view
                .has_package(&tenant(), name, digest("a"))
                .unwrap()
        };
        assert_eq!(has(&all), has(&newest), "{name}");
    }
}

#[test]
fn a_bucket_that_was_made_anew_is_forgotten_and_no_other() {
    let mut world = World::new();
    let found = [vulnerability("CVE-2026-1", &[])];
    let one = "a";
    let other = (0..1000)
        .map(|n| format!("b{n}"))
        .find(|name| digest(name).partition() != digest(one).partition())
        .unwrap();
    for image in [one, other.as_str()] {
        world.take(image, What::Known, known(&[(image, Some("1"), false)]));
        world.take(image, What::Scanned, scanned(&[package("six", "1")]));
        world.take(image, What::Assessed, assessed(&found));
    }
    let bucket = model::event::images_bucket(digest(one).partition());
    let write = Write {
        bucket: bucket.clone(),
        sequence: 6,
        told: None,
    };
    world.view.apply(&write).unwrap();
    let begin = |last, made| world.view.begin(&bucket, last, made).unwrap();
    // The first time nothing is known of it, and a bucket that goes on is the same.
    assert_eq!((begin(6, "monday"), begin(9, "monday")), (6, 6));
    assert_eq!(world.names().len(), 2);
    // One with more changes than the view has seen may still be another.
    assert_eq!(begin(9, "tuesday"), 0);
    assert_eq!(world.view.cursor(&bucket).unwrap(), 0);
    assert_eq!(world.names(), [format!("r.example/{other}:1")]);
    assert_eq!(world.view.image(&tenant(), digest(one)).unwrap(), None);
    assert_eq!(world.affected("CVE-2026-1"), [digest(&other)]);
    let has = |image| world.view.has_package(&tenant(), "six", digest(image));
    assert!(!has(one).unwrap() && has(&other).unwrap());

    // What was followed before buckets were told apart.
    let old = model::event::images_bucket(digest(&other).partition());
    let write = Write {
        bucket: old.clone(),
        sequence: 9,
        told: None,
    };
    world.view.apply(&write).unwrap();
    assert_eq!(world.view.begin(&old, 3, "tuesday").unwrap(), 0);
    assert_eq!(world.names(), Vec::<String>::new());
}

#[test]
fn a_platform_is_that_of_the_config_and_before_the_scan_that_of_the_index() {
    let mut world = World::new();
    let image = |world: &World| world.view.image(&tenant(), digest("a")).unwrap().unwrap();
    let known = Known {
        platform: "linux/arm64".parse().unwrap(),
        labels: [("team".to_owned(), "old".to_owned())].into(),
        ..Known::default()
    };
    world.take("a", What::Known, Fact::Known(known));
    assert_eq!(image(&world).platform().to_string(), "linux/arm64");
    assert_eq!(image(&world).labels()["team"], "old");

    // A record of an earlier version, or of an image whose config could not be read.
    world.take("a", What::Scanned, scanned(&[]));
    assert_eq!(image(&world).platform().to_string(), "linux/arm64");
    assert_eq!(image(&world).labels()["team"], "old");

    let Fact::Scanned(record, rows) = scanned(&[]) else {
        panic!("it is a scan");
    };
    let config = model::ScannedConfig {
        platform: "linux/arm64/v8".parse().unwrap(),
        labels: [("team".to_owned(), "new".to_owned())].into(),
    };
    let read = Fact::Scanned(Scanned { config, ..record }, rows);
    world.take("a", What::Scanned, read);
    assert_eq!(image(&world).platform().to_string(), "linux/arm64/v8");
    assert_eq!(image(&world).labels()["team"], "new");
}
