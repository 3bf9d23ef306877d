//! Operating systems: which OSV ecosystems a release has.

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

/// Whether there are rules for this operating system and its release is known: a package of it
/// would be looked up somewhere.
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

/// The number of one of Debian's releases, by its codename.
pub(crate) fn debian_release(codename: &str) -> Option<&'static str> {
    let known = DEBIAN_CODENAMES.iter().find(|(name, _)| *name == codename);
    known.map(|(_, major)| *major)
}

pub(crate) fn debian_major(os: &Os) -> Option<String> {
    let major = os.version_id.split('.').next().unwrap_or_default();
    if is_number(major) {
        return Some(major.to_owned());
    }
    let codename = os.codename.as_deref()?;
    debian_release(codename).map(ToOwned::to_owned)
}

pub(crate) fn ubuntu_version(os: &Os) -> Option<&str> {
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

pub(crate) fn alpine_branch(os: &Os) -> Option<String> {
    // An edge image has a version like `3.24_alpha20260101`.
    let mut parts = os.version_id.split('.');
    let (major, minor) = (parts.next()?, parts.next()?);
    (is_number(major) && is_number(minor)).then(|| format!("{major}.{minor}"))
}

pub(crate) fn is_number(text: &str) -> bool {
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
}
