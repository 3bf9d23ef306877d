use jiff::civil::{Date, date};
use model::PackageType;

use super::{end_of_life, runtime_gaps};
use crate::matching::tests::{os, package};

#[test]
fn the_end_of_life_is_the_end_of_updates_for_everybody() {
    let check = |id: &str, version: &str, expected: Option<Date>| {
        assert_eq!(end_of_life(&os(id, version)), expected, "{id} {version}");
    };
    check("debian", "11", Some(date(2026, 8, 31)));
    check("debian", "14", None);
    check("alpine", "3.15.11", Some(date(2023, 11, 1)));
    check("alpine", "3.4.6", Some(Date::ZERO));
    check("rhel", "8.10", Some(date(2029, 5, 31)));
    check("centos", "8", Some(date(2021, 12, 31)));
    check("sles", "15.5", Some(date(2024, 12, 31)));
    check("amzn", "2023", Some(date(2029, 6, 30)));
    check("ubuntu", "22.10", Some(date(2023, 7, 20)));
    check("opensuse-leap", "42.3", Some(date(2019, 7, 1)));
    check("opensuse-leap", "15.3", Some(Date::ZERO));
    check("unheard-of", "1", None);
    let mut stream = os("centos", "9");
    stream.pretty_name = Some("CentOS Stream 9".to_owned());
    assert_eq!(end_of_life(&stream), Some(date(2027, 5, 31)));
}

#[test]
fn a_runtime_of_its_own_that_is_out_of_support_is_told() {
    let gaps = |kind, name: &str, version: &str| {
        let gaps = runtime_gaps(&[package(kind, name, version)], date(2026, 11, 24));
        gaps.into_iter().map(|gap| gap.detail).next()
    };
    assert_eq!(
        gaps(PackageType::Golang, "stdlib", "1.20.3").as_deref(),
        Some("go 1.20.3 gets no security updates since 2024-02-06")
    );
    assert_eq!(
        gaps(PackageType::Golang, "stdlib", "1.17.13").as_deref(),
        Some("go 1.17.13 gets no security updates")
    );
    assert!(gaps(PackageType::Generic, "php", "5.6.40").is_some());
    assert!(gaps(PackageType::Generic, "node", "8.17.0").is_some());
    assert!(gaps(PackageType::Generic, "python", "").is_none());
    assert!(gaps(PackageType::Generic, "python", "unknown").is_none());
    assert!(gaps(PackageType::Generic, "node", "18.20.1").is_some());
    assert!(gaps(PackageType::Generic, "node", "22.1.0").is_none());
    let java = |version: &str| gaps(PackageType::Generic, "openjdk", version).is_some();
    assert!(java("22.0.2") && java("1.7.0_352") && java("16"));
    assert!(!java("1.8.0_392") && !java("21.0.5+11") && !java("25"));
    assert!(gaps(PackageType::Generic, "python", "3.9.1").is_some());
    assert!(
        gaps(PackageType::Npm, "node", "18.20.1").is_none(),
        "a package of that name"
    );
    let mut owned = package(PackageType::Generic, "node", "18.20.1");
    owned.owned_by = Some(package(PackageType::Deb, "nodejs", "18").id);
    assert!(runtime_gaps(&[owned], date(2026, 11, 24)).is_empty());
}
