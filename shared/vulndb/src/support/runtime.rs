//! Runtimes that are in an image by themselves: those of an operating system's packages are looked
//! after by it, however old they are.

use jiff::civil::{Date, date};
use model::{Gap, GapCode, Hides, Package, PackageType};

use super::{LastDay, is_older_than};

/// The last day of security updates of a line; older lines than those listed have ended. devguide.python.org/versions,
/// github.com/nodejs/release, ruby-lang.org/en/downloads/branches, php.net/supported-versions,
/// dotnet.microsoft.com/platform/support/policy; Java's are the days on which the last of the builds
/// that are free for everybody end (adoptium.net/support, bell-sw.com/support); a line of Go ends with the release of the next
/// but one (go.dev/doc/devel/release).
const LAST_DAYS: &[LastDay] = &[
    ("python", "2.7", date(2020, 1, 1)),
    ("python", "3.4", date(2019, 3, 18)),
    ("python", "3.5", date(2020, 9, 30)),
    ("python", "3.6", date(2021, 12, 23)),
    ("python", "3.7", date(2023, 6, 27)),
    ("python", "3.8", date(2024, 10, 7)),
    ("python", "3.9", date(2025, 10, 31)),
    ("python", "3.10", date(2026, 10, 31)),
    ("python", "3.11", date(2027, 10, 31)),
    ("python", "3.12", date(2028, 10, 31)),
    ("python", "3.13", date(2029, 10, 31)),
    ("python", "3.14", date(2030, 10, 31)),
    ("node", "10", date(2021, 4, 30)),
    ("node", "11", date(2019, 6, 30)),
    ("node", "12", date(2022, 4, 30)),
    ("node", "13", date(2020, 6, 1)),
    ("node", "14", date(2023, 4, 30)),
    ("node", "15", date(2021, 6, 1)),
    ("node", "16", date(2023, 9, 11)),
    ("node", "17", date(2022, 6, 1)),
    ("node", "18", date(2025, 4, 30)),
    ("node", "19", date(2023, 6, 1)),
    ("node", "20", date(2026, 4, 30)),
    ("node", "21", date(2024, 6, 1)),
    ("node", "22", date(2027, 4, 30)),
    ("node", "23", date(2025, 6, 1)),
    ("node", "24", date(2028, 4, 30)),
    ("node", "25", date(2026, 6, 1)),
    ("ruby", "2.7", date(2023, 3, 31)),
    ("ruby", "3.0", date(2024, 4, 23)),
    ("ruby", "3.1", date(2025, 3, 26)),
    ("ruby", "3.2", date(2026, 3, 31)),
    ("ruby", "3.3", date(2027, 3, 31)),
    ("ruby", "3.4", date(2028, 3, 31)),
    ("ruby", "4.0", date(2029, 3, 31)),
    ("php", "7.4", date(2022, 11, 28)),
    ("php", "8.0", date(2023, 11, 26)),
    ("php", "8.1", date(2025, 12, 31)),
    ("php", "8.2", date(2026, 12, 31)),
    ("php", "8.3", date(2027, 12, 31)),
    ("php", "8.4", date(2028, 12, 31)),
    ("php", "8.5", date(2029, 12, 31)),
    ("dotnet", "3.1", date(2022, 12, 13)),
    ("dotnet", "5.0", date(2022, 5, 10)),
    ("dotnet", "6.0", date(2024, 11, 12)),
    ("dotnet", "7.0", date(2024, 5, 14)),
    ("dotnet", "8.0", date(2026, 11, 10)),
    ("dotnet", "9.0", date(2026, 11, 10)),
    ("dotnet", "10.0", date(2028, 11, 14)),
    ("java", "8", date(2030, 12, 31)),
    ("java", "9", date(2018, 3, 20)),
    ("java", "10", date(2018, 9, 25)),
    ("java", "11", date(2027, 10, 31)),
    ("java", "12", date(2019, 9, 17)),
    ("java", "13", date(2020, 3, 17)),
    ("java", "14", date(2020, 9, 15)),
    ("java", "15", date(2021, 3, 16)),
    ("java", "16", date(2021, 9, 14)),
    ("java", "17", date(2027, 10, 31)),
    ("java", "18", date(2022, 9, 20)),
    ("java", "19", date(2023, 3, 21)),
    ("java", "20", date(2023, 9, 19)),
    ("java", "21", date(2029, 12, 31)),
    ("java", "22", date(2024, 9, 17)),
    ("java", "23", date(2025, 3, 18)),
    ("java", "24", date(2025, 9, 16)),
    ("java", "25", date(2031, 9, 30)),
    ("go", "1.18", date(2023, 2, 1)),
    ("go", "1.19", date(2023, 8, 8)),
    ("go", "1.20", date(2024, 2, 6)),
    ("go", "1.21", date(2024, 8, 13)),
    ("go", "1.22", date(2025, 2, 11)),
    ("go", "1.23", date(2025, 8, 12)),
    ("go", "1.24", date(2026, 2, 10)),
    ("go", "1.25", date(2026, 8, 18)),
];

/// A gap for each runtime whose line gets no security updates any more. It hides nothing: what is
/// known of it is found as ever.
pub(crate) fn gaps(packages: &[Package], today: Date) -> Vec<Gap> {
    let mut gaps = Vec::new();
    for package in packages {
        let Some((runtime, last_day)) = last_day(package).filter(|(_, day)| today > *day) else {
            continue;
        };
        let version = &package.version;
        let since = match last_day {
            day if day > Date::ZERO => format!(" since {day}"),
            _ => String::new(),
        };
        let detail = format!("{runtime} {version} gets no security updates{since}");
        let gap = Gap::new(GapCode::EndOfLifeRuntime, Hides::Nothing, detail);
        gaps.push(gap.at(package.path.as_str()).in_layer(package.layer));
    }
    gaps.sort();
    gaps.dedup();
    gaps
}

/// The runtime that a package is, and the last day of its line.
fn last_day(package: &Package) -> Option<(&'static str, Date)> {
    if package.owned_by.is_some() {
        return None;
    }
    let name = package.name.to_ascii_lowercase();
    let runtime = match (package.kind, name.as_str()) {
        (PackageType::Golang, "stdlib") => "go",
        (PackageType::Nuget, "microsoft.netcore.app" | "microsoft.aspnetcore.app")
        | (PackageType::Generic, "dotnet") => "dotnet",
        (PackageType::Generic, "node" | "nodejs") => "node",
        (PackageType::Generic, "python" | "cpython") => "python",
        // Whoever pays for Oracle's gets updates for longer.
        (PackageType::Generic, "openjdk") => "java",
        (PackageType::Generic, "ruby") => "ruby",
        (PackageType::Generic, "php" | "php-cli") => "php",
        _ => return None,
    };
    let version = package.version.trim_start_matches(['v', 'g', 'o']);
    let mut parts = version.split(['.', '-', '+']);
    let (major, minor) = (parts.next()?, parts.next().unwrap_or_default());
    // `1.8.0_392` is Java 8.
    let (major, minor) = match (runtime, major) {
        ("java", "1") => (minor, ""),
        _ => (major, minor),
    };
    let line = format!("{major}.{minor}");
    let is_line = |text: &str| text == line || text == major;
    let known = LAST_DAYS
        .iter()
        .find(|one| one.0 == runtime && is_line(one.1))
        .map(|one| one.2);
    let is_older = || is_older_than(LAST_DAYS, runtime, &line);
    Some((runtime, known.or_else(|| is_older().then_some(Date::ZERO))?))
}
