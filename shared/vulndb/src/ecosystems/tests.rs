//! Version orders: upstream's vectors, laws, and the ecosystems' own programs as oracles; and which
//! names packages are looked up by.

mod consistency;
mod names;
mod oracles;
mod real;

use std::cmp::Ordering;

use proptest::{
    prelude::*,
    test_runner::{Config, TestRunner},
};

use super::{
    ECOSYSTEMS, Ecosystem, Incomparable, actions::Actions, apk::Apk, bitnami::Bitnami,
    cargo::Cargo, compare, composer::Composer, conan::Conan, cran::Cran, dart::Dart, deb::Deb,
    family, gem::Gem, golang::Golang, hackage::Hackage, hex::Hex, julia::Julia, maven::Maven,
    newest, npm::Npm, nuget::Nuget, pypi::Pypi, rpm::Rpm, schemes, swift::Swift, version,
};

/// Every family, what its versions look like, for random ones, and its upstream's vectors.
const SAMPLES: &[(&dyn Ecosystem, &str, &str)] = &[
    (
        &Deb,
        r"([0-2]:)?[0-9]{1,2}([.+~a-zA-Z-]{0,2}[0-9]{0,3}){0,4}(-[0-9]{1,2}([+~.a-z]{1,3}[0-9]{0,2})?)?",
        include_str!("../../testdata/versions/deb.txt"),
    ),
    // Components with leading zeros are left out: apk 3 changed their order.
    (
        &Apk,
        r"[0-9]{1,2}(\.([1-9][0-9]{0,2}|0)){0,3}[a-c]?(_(alpha|beta|pre|rc|cvs|svn|git|hg|p)[0-9]{0,2}){0,2}-r[0-9]{1,2}",
        include_str!("../../testdata/versions/apk.txt"),
    ),
    (
        &Rpm,
        r"([0-2]:)?[0-9a-c]{1,2}([.+_]{0,2}[~^]?[0-9]{0,3}[a-c]{0,2}){0,4}(-[0-9]{1,2}([.~^]?(el8|el9_2|rc|1)){0,3})?",
        include_str!("../../testdata/versions/rpm.txt"),
    ),
    (
        &Pypi,
        r"(1!)?[0-9]{1,2}(\.[0-9]{1,2}){0,3}((a|b|rc)[0-9]{1,2})?(\.post[0-9])?(\.dev[0-9])?(\+[a-z0-9]{1,3}(\.[0-9]{1,2})?)?",
        include_str!("../../testdata/versions/pypi.txt"),
    ),
    (
        &Npm,
        SEMVER,
        include_str!("../../testdata/versions/npm.txt"),
    ),
    (
        &Maven,
        r"[0-9]{1,2}([.-]([0-9]{1,2}|a|b|m|rc|cr|ga|sp|x|beta|alpha|final|snapshot|jre|release)){0,3}[0-9]{0,2}(-(rc|sp|m)?[0-9]{0,2})?",
        include_str!("../../testdata/versions/maven.txt"),
    ),
    (
        &Golang,
        r"(v?(0|[1-9])\.(0|[1-9][0-9]?)\.(0|[1-9])(-(rc\.[0-9]|pre|0\.[1-9][0-9]{2}|alpha)(-[a-f]{2})?)?(\+incompatible)?|go1\.[0-9]{1,2}(rc[1-9]|beta[1-9]|\.[0-9]{1,2})?)",
        include_str!("../../testdata/versions/golang.txt"),
    ),
    (
        &Cargo,
        SEMVER,
        include_str!("../../testdata/versions/cargo.txt"),
    ),
    (
        &Gem,
        r"[0-9]{1,2}(\.(0|[0-9]{1,2}|a|b|rc|pre|rc[0-9]|0a)){0,5}(-[0-9a-c]{1,2}(\.[0-9a-c]{1,2})?)?",
        include_str!("../../testdata/versions/gem.txt"),
    ),
    (
        &Composer,
        r"v?[0-9]{1,3}(\.(0|[0-9]{1,2})){0,3}([._-]?(stable|beta|b|RC|alpha|a|patch|pl|p)([.-]?[0-9]{1,2}){0,2})?([.-]?dev)?(\+b1)?",
        include_str!("../../testdata/versions/composer.txt"),
    ),
    (
        &Nuget,
        r"[0-9]{1,2}(\.[0-9]{1,2}){0,3}(-(alpha|Beta|rc|[1-9][0-9]?|x-1)(\.([1-9][0-9]?|a|B)){0,2})?(\+b1)?",
        include_str!("../../testdata/versions/nuget.txt"),
    ),
    (
        &Cran,
        r"[0-9]{1,2}([.-][0-9]{1,3}){1,4}",
        include_str!("../../testdata/versions/cran.txt"),
    ),
    (
        &Hex,
        SEMVER,
        include_str!("../../testdata/versions/hex.txt"),
    ),
    (
        &Dart,
        r"[0-9]\.[0-9]\.[0-9](-(alpha|beta|[1-9])(\.([1-9]|a)){0,2})?(\+(b|[0-9]{1,2})(\.[0-9])?)?",
        include_str!("../../testdata/versions/pub.txt"),
    ),
    (
        &Hackage,
        r"[0-9]{1,2}(\.[0-9]{1,3}){0,4}",
        include_str!("../../testdata/versions/hackage.txt"),
    ),
    (
        &Julia,
        r"v?[0-9](\.[0-9](\.[0-9])?)?(-|-?rc[1-9]|-alpha(\.[1-9])?|-[1-9])?(\+|\+[0-9]|\+b(\.[0-9])?)?",
        include_str!("../../testdata/versions/julia.txt"),
    ),
    (
        &Swift,
        SEMVER,
        include_str!("../../testdata/versions/swift.txt"),
    ),
    (
        &Actions,
        SEMVER,
        include_str!("../../testdata/versions/github.txt"),
    ),
    (
        &Conan,
        r"[0-9]{1,2}(\.([0-9]{1,2}|[a-c]|[0-9][a-c]|cci)){0,3}(-(pre|rc)(\.[0-9])?)?(\+[0-9])?",
        include_str!("../../testdata/versions/conan.txt"),
    ),
    (
        &Bitnami,
        SEMVER,
        include_str!("../../testdata/versions/bitnami.txt"),
    ),
];
const SEMVER: &str = r"(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)(-(alpha|beta|rc|[1-9][0-9]?|x-1)(\.([1-9][0-9]?|a)){0,2})?(\+b1)?";

/// Of the family with this purl type.
fn of_type(purl_type: &str) -> &'static dyn Ecosystem {
    let mut families = ECOSYSTEMS.iter().copied();
    let found = families.find(|family| family.purl_type() == purl_type);
    found.unwrap_or_else(|| panic!("no family of `{purl_type}`"))
}

fn shape(family: &dyn Ecosystem) -> &'static str {
    let same = |sample: &&(&dyn Ecosystem, &str, &str)| sample.0.purl_type() == family.purl_type();
    SAMPLES
        .iter()
        .find(same)
        .expect("every family has a shape")
        .1
}

fn ordering(family: &dyn Ecosystem, a: &str, b: &str) -> Ordering {
    let read = |text: &str| {
        let name = family.purl_type();
        version(family, text).unwrap_or_else(|| panic!("`{text}` is a version of `{name}`"))
    };
    read(a).cmp(&read(b))
}

/// A line of vectors: versions in ascending order, `=` joins equal ones; `!` what is no version.
fn check(family: &dyn Ecosystem, line: &str) {
    if let Some(text) = line.strip_prefix("! ") {
        let name = family.purl_type();
        assert_eq!(version(family, text), None, "`{text}` of `{name}`");
        return;
    }
    let groups = line.split(" < ").enumerate();
    let flat: Vec<(usize, &str)> = groups
        .flat_map(|(rank, group)| group.split(" = ").map(move |text| (rank, text)))
        .collect();
    assert!(flat.len() > 1, "`{line}` compares nothing");
    for (rank_a, a) in &flat {
        for (rank_b, b) in &flat {
            let found = ordering(family, a, b);
            let name = family.purl_type();
            assert_eq!(found, rank_a.cmp(rank_b), "`{a}` against `{b}` of `{name}`");
        }
    }
}

#[test]
fn every_ecosystem_orders_as_its_upstream_says() {
    for (family, _, vectors) in SAMPLES {
        let is_vector = |line: &&str| !line.is_empty() && !line.starts_with('#');
        for line in vectors.lines().filter(is_vector) {
            check(*family, line);
        }
    }
    let families: Vec<&str> = ECOSYSTEMS.iter().map(|family| family.purl_type()).collect();
    let sampled: Vec<&str> = SAMPLES.iter().map(|sample| sample.0.purl_type()).collect();
    assert_eq!(families, sampled, "every family has vectors");
}

#[test]
fn what_is_too_long_or_has_control_characters_is_no_version() {
    for family in ECOSYSTEMS {
        for text in ["", " ", "1.0\0", "1.0\n2.0", &"1".repeat(300)] {
            assert_eq!(version(*family, text), None, "{}", family.purl_type());
        }
        assert!(
            version(*family, " 1.0.0 ").is_some(),
            "{}",
            family.purl_type()
        );
    }
}

#[test]
fn a_number_sorts_by_its_value_however_long_it_is() {
    let long = format!("1.0.{}", "9".repeat(200));
    for family in ECOSYSTEMS
        .iter()
        .filter(|family| family.purl_type() != "pypi")
    {
        let found = ordering(*family, "1.0.18446744073709551616", &long);
        assert_eq!(found, Ordering::Less, "{}", family.purl_type());
    }
}

#[test]
fn every_order_is_total() {
    for family in ECOSYSTEMS {
        let shape = || proptest::string::string_regex(shape(*family)).expect("a valid pattern");
        let mut runner = TestRunner::new(Config::with_cases(2_000));
        let read = std::cell::Cell::new(0_u32);
        let outcome = runner.run(&[shape(), shape(), shape()], |texts| {
            let [Some(a), Some(b), Some(c)] = texts.each_ref().map(|text| version(*family, text))
            else {
                return Ok(());
            };
            prop_assert_eq!(a.cmp(&b), b.cmp(&a).reverse(), "antisymmetry");
            prop_assert_eq!(a == b, a.cmp(&b) == Ordering::Equal, "equality");
            prop_assert!(!(a <= b && b <= c) || a <= c, "transitivity");
            let again = version(*family, &format!(" {} ", texts[0]));
            prop_assert_eq!(Some(a), again, "blanks around it");
            read.set(read.get() + 1);
            Ok(())
        });
        let name = family.purl_type();
        outcome.unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(
            read.get() > 1_000,
            "{name}: only {} of its shapes are versions",
            read.get()
        );
    }
}

proptest! {
    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,300}", signs in "[-.~^:+_0-9a-zA-Z]{0,40}") {
        for family in ECOSYSTEMS {
            for text in [&text, &signs] {
                let _version = version(*family, text);
                let _name = family.normalize(text);
            }
        }
    }
}

#[test]
fn a_scheme_has_the_name_of_its_purls_or_of_an_ecosystem_or_a_usual_one() {
    let less = Ok(Ordering::Less);
    assert_eq!(compare("deb", "1.0~rc1", "1.0"), less);
    assert_eq!(compare("dpkg", "1.0~rc1", "1.0"), less);
    assert_eq!(compare("Ubuntu:Pro:22.04:LTS", "1.0~rc1", "1.0"), less);
    assert_eq!(
        compare("Red Hat:enterprise_linux:9::baseos", "1-1.el9", "1-1.el9_2"),
        less
    );
    assert_eq!(compare("TuxCare:Alpine:v3.16", "1.0_rc1", "1.0"), less);
    assert_eq!(compare("pep440", "1.0rc1", "1.0"), less);
    assert_eq!(compare("generic", "1.1.1k", "1.1.1w"), less);
    assert_eq!(
        compare("rune", "1", "2").unwrap_err().to_string(),
        "no version scheme `rune`"
    );
    assert_eq!(
        compare("pypi", "1", "0.1-bulbasaur"),
        Err(Incomparable::Version(
            "pypi".to_owned(),
            "0.1-bulbasaur".to_owned()
        ))
    );
    for scheme in schemes() {
        assert_eq!(compare(scheme, "1.0.0", "1.0.1"), less, "{scheme}");
    }
}

#[test]
fn names_of_ecosystems_and_purl_types_are_of_one_family_each() {
    let names: Vec<&str> = ECOSYSTEMS
        .iter()
        .flat_map(|f| f.names().iter().copied())
        .collect();
    for (index, family) in ECOSYSTEMS.iter().enumerate() {
        for name in family.names() {
            assert_eq!(
                names.iter().filter(|other| *other == name).count(),
                1,
                "{name}"
            );
        }
        let same = |other: &&dyn Ecosystem| other.purl_type() == family.purl_type();
        assert_eq!(
            ECOSYSTEMS.iter().copied().position(|f| same(&f)),
            Some(index)
        );
    }
    assert!(family("Android:").is_none() && family("GIT").is_none());
}

#[test]
fn the_newest_version_is_that_of_its_kind() {
    use model::PackageType::{Generic, Maven, Pypi};
    assert_eq!(newest(Pypi, &["1.9", "1.10", "1.2"]), Some("1.10"));
    assert_eq!(newest(Maven, &["1.0", "1.0-rc1"]), Some("1.0"));
    assert_eq!(newest(Pypi, &["1.9", "x"]), None);
    assert_eq!(newest(Generic, &["1.9"]), None);
}
