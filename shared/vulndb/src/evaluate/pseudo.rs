//! Go's pseudo-versions (go.dev/ref/mod#pseudo-versions): commits, whose place among releases is a
//! guess where they are on another branch.

use jiff::{Timestamp, tz::TimeZone};
use model::{Confidence, Package, PackageType};

use crate::shard::{Window, WindowEnd};

/// Whether a version is a commit made after an advisory was published, and on another line than any
/// of the fixes that it is compared with: then its order says nothing.
pub(super) fn may_hold_the_fix(
    version: &str,
    published: Option<Timestamp>,
    inside: &[&Window],
) -> bool {
    let Some((line, time)) = parts(version) else {
        return false;
    };
    let published = published.map(|at| at.to_zoned(TimeZone::UTC));
    let Some(published) = published.map(|at| at.strftime("%Y%m%d%H%M%S").to_string()) else {
        return false;
    };
    let is_elsewhere = |window: &&Window| match &window.end {
        WindowEnd::Fixed(fixed) => line.is_none() || line != self::line(fixed),
        _ => false,
    };
    time > published.as_str() && !inside.is_empty() && inside.iter().all(is_elsewhere)
}

/// Whether a program was built from a checkout that knew no tags: then its version is a commit that
/// stands anywhere among the releases, which its analyzer says by how sure it is. The same version of
/// a module that Go chose is before its first release.
pub(super) fn is_adrift(package: &Package, version: &str) -> bool {
    package.kind == PackageType::Golang
        && package.confidence == Confidence::Low
        && matches!(parts(version), Some((None, _)))
}

/// Whether a window begins or ends with a release, among which such a commit has no place.
pub(super) fn is_of_releases(window: &Window) -> bool {
    let end = match &window.end {
        WindowEnd::Fixed(end) | WindowEnd::Last(end) | WindowEnd::Limit(end) => Some(end),
        WindowEnd::Open => None,
    };
    let is_release = |text: &String| line(text).is_none_or(|line| line != "0.0");
    window.introduced.iter().chain(end).any(is_release)
}

/// The line (`1.2`; none for `v0.0.0-…`, which is a branch without releases) and time of a
/// pseudo-version.
fn parts(version: &str) -> Option<(Option<&str>, &str)> {
    let (version, _build) = version.split_once('+').unwrap_or((version, ""));
    let (rest, hash) = version.rsplit_once('-')?;
    let (base, time) = rest.rsplit_once(['-', '.'])?;
    let is_pseudo = hash.len() == 12
        && hash.bytes().all(|b| b.is_ascii_hexdigit())
        && time.len() == 14
        && time.bytes().all(|b| b.is_ascii_digit());
    let base = base.strip_prefix('v').unwrap_or(base);
    is_pseudo.then(|| (line(base).filter(|_| base != "0.0.0"), time))
}

/// Major and minor number.
fn line(version: &str) -> Option<&str> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let (major, rest) = version.split_once('.')?;
    let minor = rest.split('.').next().unwrap_or_default();
    version.get(..major.len().checked_add(1)?.checked_add(minor.len())?)
}
