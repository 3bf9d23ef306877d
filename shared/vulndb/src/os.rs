//! Operating systems: which OSV ecosystems a release has, and when its security updates end.

use jiff::{
    Timestamp,
    civil::{Date, date},
    tz::TimeZone,
};
use model::Os;

use crate::ecosystems;

/// Debian's releases by codename, for an os-release without `VERSION_ID`.
const DEBIAN_CODENAMES: [(&str, &str); 8] = [
    ("wheezy", "7"),
    ("jessie", "8"),
    ("stretch", "9"),
    ("buster", "10"),
    ("bullseye", "11"),
    ("bookworm", "12"),
    ("trixie", "13"),
    ("forky", "14"),
];

/// The last day of security updates for everybody. Debian: end of LTS; Ubuntu: end of standard
/// support (both: distro-info-data; debian.org/releases, ubuntu.com/about/release-cycle); Alpine:
/// end of support of the branch (alpinelinux.org/releases).
const LAST_DAYS: &[(&str, &str, Date)] = &[
    ("debian", "7", date(2018, 5, 31)),
    ("debian", "8", date(2020, 6, 30)),
    ("debian", "9", date(2022, 6, 30)),
    ("debian", "10", date(2024, 6, 30)),
    ("debian", "11", date(2026, 8, 31)),
    ("debian", "12", date(2028, 6, 30)),
    ("debian", "13", date(2030, 6, 30)),
    ("ubuntu", "12.04", date(2017, 4, 28)),
    ("ubuntu", "14.04", date(2019, 4, 25)),
    ("ubuntu", "16.04", date(2021, 4, 30)),
    ("ubuntu", "18.04", date(2023, 5, 31)),
    ("ubuntu", "20.04", date(2025, 5, 31)),
    ("ubuntu", "22.04", date(2027, 6, 1)),
    ("ubuntu", "23.10", date(2024, 7, 11)),
    ("ubuntu", "24.04", date(2029, 5, 31)),
    ("ubuntu", "24.10", date(2025, 7, 10)),
    ("ubuntu", "25.04", date(2026, 1, 15)),
    ("ubuntu", "25.10", date(2026, 7, 9)),
    ("ubuntu", "26.04", date(2031, 5, 29)),
    ("alpine", "3.8", date(2020, 5, 1)),
    ("alpine", "3.9", date(2020, 11, 1)),
    ("alpine", "3.10", date(2021, 5, 1)),
    ("alpine", "3.11", date(2021, 11, 1)),
    ("alpine", "3.12", date(2022, 5, 1)),
    ("alpine", "3.13", date(2022, 11, 1)),
    ("alpine", "3.14", date(2023, 5, 1)),
    ("alpine", "3.15", date(2023, 11, 1)),
    ("alpine", "3.16", date(2024, 5, 23)),
    ("alpine", "3.17", date(2024, 11, 22)),
    ("alpine", "3.18", date(2025, 5, 9)),
    ("alpine", "3.19", date(2025, 11, 1)),
    ("alpine", "3.20", date(2026, 4, 1)),
    ("alpine", "3.21", date(2026, 11, 1)),
    ("alpine", "3.22", date(2027, 5, 1)),
    ("alpine", "3.23", date(2027, 11, 1)),
];

/// The last day on which a release gets security updates; `None` where we do not know.
pub fn end_of_life(os: &Os) -> Option<Date> {
    let release = match os.id.as_str() {
        "debian" => debian_major(os)?,
        "ubuntu" => ubuntu_version(os)?.to_owned(),
        "alpine" => alpine_branch(os)?,
        _ => return None,
    };
    let same = |entry: &&(&str, &str, Date)| entry.0 == os.id && entry.1 == release;
    let known = LAST_DAYS.iter().find(same).map(|entry| entry.2);
    known.or_else(|| is_older_than_listed(&os.id, &release).then_some(Date::ZERO))
}

/// The moment from which a release gets no security updates; `None` where we do not know it.
pub(crate) fn ends_at(os: &Os) -> Option<Timestamp> {
    let after = end_of_life(os)
        .filter(|last_day| *last_day > Date::ZERO)?
        .tomorrow()
        .ok()?;
    Some(after.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// Whether there are rules for this operating system and its release is known.
pub(crate) fn is_known(os: &Os) -> bool {
    ecosystems::has_releases(os)
}

/// The ecosystems of a Debian or Ubuntu release, as OSV spells them.
pub(crate) fn deb_releases(os: &Os) -> Vec<String> {
    match os.id.as_str() {
        "debian" => debian_major(os)
            .map(|major| format!("Debian:{major}"))
            .into_iter()
            .collect(),
        "ubuntu" => match ubuntu_version(os) {
            Some(version) if is_lts(version) => {
                vec![format!("Ubuntu:{version}:LTS"), format!("Ubuntu:{version}")]
            }
            Some(version) => vec![format!("Ubuntu:{version}")],
            None => Vec::new(),
        },
        _ => Vec::new(),
    }
}

/// The ecosystem of what Ubuntu offers subscribers for a release.
pub(crate) fn ubuntu_pro(os: &Os) -> Option<String> {
    let version = (os.id == "ubuntu").then(|| ubuntu_version(os)).flatten()?;
    is_lts(version).then(|| format!("Ubuntu:Pro:{version}:LTS"))
}

/// The ecosystem of an Alpine branch; `None` for `edge`, which has no data.
pub(crate) fn alpine_release(os: &Os) -> Option<String> {
    let branch = (os.id == "alpine").then(|| alpine_branch(os)).flatten()?;
    Some(format!("Alpine:v{branch}"))
}

fn debian_major(os: &Os) -> Option<String> {
    let major = os.version_id.split('.').next().unwrap_or_default();
    if is_number(major) {
        return Some(major.to_owned());
    }
    let codename = os.codename.as_deref()?;
    let known = DEBIAN_CODENAMES.iter().find(|(name, _)| *name == codename);
    known.map(|(_, major)| (*major).to_owned())
}

fn ubuntu_version(os: &Os) -> Option<&str> {
    let (year, month) = os.version_id.split_once('.')?;
    (is_number(year) && is_number(month)).then_some(os.version_id.as_str())
}

/// April of even years.
fn is_lts(version: &str) -> bool {
    version.split_once('.').is_some_and(|(year, month)| {
        month == "04"
            && year
                .bytes()
                .last()
                .is_some_and(|digit| b"02468".contains(&digit))
    })
}

fn alpine_branch(os: &Os) -> Option<String> {
    // An edge image has a version like `3.24_alpha20260101`.
    let mut parts = os.version_id.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    (is_number(major) && is_number(minor)).then(|| format!("{major}.{minor}"))
}

fn is_older_than_listed(id: &str, release: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split('.')
            .map(|part| part.parse().unwrap_or(u32::MAX))
            .collect()
    };
    let listed = LAST_DAYS
        .iter()
        .filter(|entry| entry.0 == id)
        .map(|entry| numbers(entry.1));
    listed.min().is_some_and(|oldest| numbers(release) < oldest)
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(id: &str, version_id: &str, codename: Option<&str>) -> Os {
        Os {
            id: id.to_owned(),
            version_id: version_id.to_owned(),
            eol: None,
            pretty_name: None,
            codename: codename.map(ToOwned::to_owned),
        }
    }

    #[test]
    fn releases_are_spelled_as_osv_spells_them() {
        assert_eq!(deb_releases(&os("debian", "12", None)), ["Debian:12"]);
        assert_eq!(
            deb_releases(&os("debian", "", Some("trixie"))),
            ["Debian:13"]
        );
        assert!(deb_releases(&os("debian", "", Some("sid"))).is_empty());
        let jammy = os("ubuntu", "22.04", None);
        assert_eq!(deb_releases(&jammy), ["Ubuntu:22.04:LTS", "Ubuntu:22.04"]);
        assert_eq!(ubuntu_pro(&jammy).as_deref(), Some("Ubuntu:Pro:22.04:LTS"));
        assert_eq!(deb_releases(&os("ubuntu", "24.10", None)), ["Ubuntu:24.10"]);
        assert_eq!(
            alpine_release(&os("alpine", "3.15.11", None)).as_deref(),
            Some("Alpine:v3.15")
        );
        assert_eq!(
            alpine_release(&os("alpine", "3.24_alpha20260101", None)),
            None
        );
        assert!(is_known(&jammy) && !is_known(&os("fedora", "42", None)));
    }

    #[test]
    fn the_end_of_life_is_the_end_of_updates_for_everybody() {
        assert_eq!(
            end_of_life(&os("debian", "11", None)),
            Some(date(2026, 8, 31))
        );
        assert_eq!(
            end_of_life(&os("alpine", "3.15.11", None)),
            Some(date(2023, 11, 1))
        );
        assert_eq!(end_of_life(&os("alpine", "3.4.6", None)), Some(Date::ZERO));
        assert_eq!(end_of_life(&os("debian", "14", None)), None);
    }
}
