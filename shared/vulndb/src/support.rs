//! When security updates end: of operating systems, and of runtimes that no operating system
//! looks after.

mod runtime;
#[cfg(test)]
mod tests;

use jiff::{
    Timestamp,
    civil::{Date, date},
    tz::TimeZone,
};
use model::Os;

pub(crate) use self::runtime::gaps as runtime_gaps;
use crate::os;

/// A release and its last day.
type LastDay = (&'static str, &'static str, Date);

/// The last day of security updates for everybody. Debian: end of LTS; Ubuntu: end of standard
/// support (both: distro-info-data; debian.org/releases, ubuntu.com/about/release-cycle); Alpine:
/// end of support of the branch (alpinelinux.org/releases); the others: end of maintenance or
/// general support (access.redhat.com/support/policy/updates/errata, wiki.almalinux.org,
/// rockylinux.org, centos.org, oracle.com, aws.amazon.com, suse.com/lifecycle, en.opensuse.org,
/// fedoraproject.org, Broadcom's product lifecycle for Photon, learn.microsoft.com/azure/azure-linux).
/// What is older than all that are listed of a system has ended, so releases between them must be
/// listed.
const LAST_DAYS: &[LastDay] = &[
    ("debian", "7", date(2018, 5, 31)),
    ("debian", "8", date(2020, 6, 30)),
    ("debian", "9", date(2022, 6, 30)),
    ("debian", "10", date(2024, 6, 30)),
    ("debian", "11", date(2026, 8, 31)),
    ("debian", "12", date(2028, 6, 30)),
    ("debian", "13", date(2030, 6, 30)),
    ("ubuntu", "12.04", date(2017, 4, 28)),
    ("ubuntu", "12.10", date(2014, 5, 16)),
    ("ubuntu", "13.04", date(2014, 1, 27)),
    ("ubuntu", "13.10", date(2014, 7, 17)),
    ("ubuntu", "14.04", date(2019, 4, 25)),
    ("ubuntu", "14.10", date(2015, 7, 23)),
    ("ubuntu", "15.04", date(2016, 2, 4)),
    ("ubuntu", "15.10", date(2016, 7, 28)),
    ("ubuntu", "16.04", date(2021, 4, 30)),
    ("ubuntu", "16.10", date(2017, 7, 20)),
    ("ubuntu", "17.04", date(2018, 1, 13)),
    ("ubuntu", "17.10", date(2018, 7, 19)),
    ("ubuntu", "18.04", date(2023, 5, 31)),
    ("ubuntu", "18.10", date(2019, 7, 18)),
    ("ubuntu", "19.04", date(2020, 1, 23)),
    ("ubuntu", "19.10", date(2020, 7, 17)),
    ("ubuntu", "20.04", date(2025, 5, 31)),
    ("ubuntu", "20.10", date(2021, 7, 22)),
    ("ubuntu", "21.04", date(2022, 1, 20)),
    ("ubuntu", "21.10", date(2022, 7, 14)),
    ("ubuntu", "22.04", date(2027, 6, 1)),
    ("ubuntu", "22.10", date(2023, 7, 20)),
    ("ubuntu", "23.04", date(2024, 1, 25)),
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
    ("rhel", "6", date(2020, 11, 30)),
    ("rhel", "7", date(2024, 6, 30)),
    ("rhel", "8", date(2029, 5, 31)),
    ("rhel", "9", date(2032, 5, 31)),
    ("rhel", "10", date(2035, 5, 31)),
    ("centos", "6", date(2020, 11, 30)),
    ("centos", "7", date(2024, 6, 30)),
    ("centos", "8", date(2021, 12, 31)),
    ("centos-stream", "8", date(2024, 5, 31)),
    ("centos-stream", "9", date(2027, 5, 31)),
    ("centos-stream", "10", date(2030, 1, 1)),
    ("almalinux", "8", date(2029, 3, 1)),
    ("almalinux", "9", date(2032, 5, 31)),
    ("almalinux", "10", date(2035, 5, 31)),
    ("rocky", "8", date(2029, 5, 31)),
    ("rocky", "9", date(2032, 5, 31)),
    ("rocky", "10", date(2035, 5, 31)),
    ("ol", "7", date(2024, 12, 31)),
    ("ol", "8", date(2029, 7, 31)),
    ("ol", "9", date(2032, 6, 30)),
    ("fedora", "38", date(2024, 5, 21)),
    ("fedora", "39", date(2024, 11, 26)),
    ("fedora", "40", date(2025, 5, 13)),
    ("fedora", "41", date(2025, 12, 15)),
    ("fedora", "42", date(2026, 5, 27)),
    ("amzn", "2", date(2026, 6, 30)),
    ("amzn", "2016.09", date(2023, 12, 31)),
    ("amzn", "2017.03", date(2023, 12, 31)),
    ("amzn", "2017.09", date(2023, 12, 31)),
    ("amzn", "2018.03", date(2023, 12, 31)),
    ("amzn", "2023", date(2029, 6, 30)),
    ("sles", "12.5", date(2024, 10, 31)),
    ("sles", "15", date(2019, 12, 31)),
    ("sles", "15.1", date(2021, 1, 31)),
    ("sles", "15.2", date(2021, 12, 31)),
    ("sles", "15.3", date(2022, 12, 31)),
    ("sles", "15.4", date(2023, 12, 31)),
    ("sles", "15.5", date(2024, 12, 31)),
    ("sles", "15.6", date(2025, 12, 31)),
    ("sles", "15.7", date(2031, 7, 31)),
    ("opensuse-leap", "15.4", date(2023, 12, 7)),
    ("opensuse-leap", "15.5", date(2024, 12, 31)),
    ("opensuse-leap", "15.6", date(2026, 4, 30)),
    ("opensuse-leap", "16.0", date(2027, 10, 31)),
    ("opensuse-leap", "42.1", date(2017, 5, 17)),
    ("opensuse-leap", "42.2", date(2018, 1, 26)),
    ("opensuse-leap", "42.3", date(2019, 7, 1)),
    ("photon", "3.0", date(2025, 10, 2)),
    ("photon", "4.0", date(2027, 10, 11)),
    ("mariner", "2.0", date(2025, 7, 31)),
    ("azurelinux", "3.0", date(2027, 8, 31)),
];

/// The last day on which a release gets security updates; `None` where we do not know.
pub fn end_of_life(os: &Os) -> Option<Date> {
    let (id, release) = release(os)?;
    let same = |entry: &&LastDay| entry.0 == id && entry.1 == release;
    let known = LAST_DAYS.iter().find(same).map(|entry| entry.2);
    known.or_else(|| is_older_than(LAST_DAYS, id, &release).then_some(Date::ZERO))
}

/// The moment from which a release gets no security updates; `None` where we do not know it.
pub(crate) fn ends_at(os: &Os) -> Option<Timestamp> {
    let after = end_of_life(os)
        .filter(|last_day| *last_day > Date::ZERO)?
        .tomorrow()
        .ok()?;
    Some(after.to_zoned(TimeZone::UTC).ok()?.timestamp())
}

/// A release in the words of the table.
fn release(os: &Os) -> Option<(&str, String)> {
    let whole = || Some(os.version_id.clone()).filter(|version| !version.is_empty());
    let release = match os.id.as_str() {
        "debian" => os::debian_major(os)?,
        "ubuntu" => os::ubuntu_version(os)?.to_owned(),
        "alpine" => os::alpine_branch(os)?,
        "rhel" | "centos" | "almalinux" | "rocky" | "ol" => {
            let major = os.version_id.split('.').next().unwrap_or_default();
            os::is_number(major).then(|| major.to_owned())?
        }
        _ => whole()?,
    };
    let is_stream = |name: &String| name.contains("Stream");
    let id = if os.id == "centos" && os.pretty_name.as_ref().is_some_and(is_stream) {
        "centos-stream"
    } else {
        os.id.as_str()
    };
    Some((id, release))
}

/// Whether something is older than every line of a table.
fn is_older_than(listed: &[LastDay], id: &str, release: &str) -> bool {
    let numbers = |text: &str| -> Vec<u32> {
        text.split('.')
            .map(|part| part.parse().unwrap_or(u32::MAX))
            .collect()
    };
    let listed = listed
        .iter()
        .filter(|entry| entry.0 == id)
        .map(|entry| numbers(entry.1));
    listed.min().is_some_and(|oldest| numbers(release) < oldest)
}
