//! Whether an installed version is affected: OSV's evaluation, as real records need it.

mod module;
mod pseudo;

use std::fmt;

use model::{FixState, Package, PackageType};

use self::module::{Fit, Module};
use crate::{
    ecosystems::{self, Ecosystem},
    shard::{ShardAdvisory, Window, WindowEnd},
    version::Version,
};

/// What an advisory says of an installed version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evaluation {
    /// Not affected.
    Unaffected(Why),
    /// Not affected, and the vendor says so for every version (`fixed: "0"`).
    Never,
    /// Affected.
    Affected(Hit),
    /// We cannot say, and why.
    Undecided(String),
}

/// Why a version is not affected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// No window and no list holds it.
    Outside,
    /// The windows are of another module stream, or of a modular build where this is none.
    Module,
    /// It is about other operating systems.
    Platform,
}

/// How an installed version is affected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hit {
    /// The range or list that holds the version.
    pub(crate) range: String,
    /// Newer versions that are not affected, best first.
    pub(crate) fixed: Vec<String>,
    /// Whether there is a fix.
    pub(crate) fix_state: FixState,
}

/// An installed version, read once for all advisories about its package.
#[derive(Debug)]
pub(crate) struct Installed<'a> {
    text: &'a str,
    version: Option<Version>,
    module: Module<'a>,
    /// It is a commit without a place among releases.
    is_adrift: bool,
}

/// Where a version stands to a window.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    In,
    Out,
    Never,
    Unknown(String),
}

/// A window, and what it says of a version: for whoever asks why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Shown {
    pub(crate) window: String,
    pub(crate) verdict: String,
}

/// Evaluates the windows one by one and unites them; `versions` are compared by the ecosystem's
/// equality, and as texts only where the installed version is none of the ecosystem's.
pub(crate) fn evaluate(
    family: &dyn Ecosystem,
    advisory: &ShardAdvisory,
    package: &Package,
    installed: &Installed<'_>,
) -> Evaluation {
    // Containers are Linux's.
    if !advisory.platforms.is_empty() && !advisory.platforms.iter().any(|os| os == "linux") {
        return Evaluation::Unaffected(Why::Platform);
    }
    let Some(version) = &installed.version else {
        return of_unreadable(advisory, package, installed.text);
    };
    let module = installed.module;
    // The same sources are built once for each minor release, and all these builds are listed.
    let is_fix = |window: &Window| matches!(&window.end, WindowEnd::Fixed(fix) if ecosystems::version(family, fix).as_ref() == Some(version));
    if matches!(module, Module::Stream(_)) && advisory.windows.iter().any(is_fix) {
        return Evaluation::Unaffected(Why::Outside);
    }
    let mut unknown = None;
    let mut never = false;
    let mut inside = Vec::new();
    let mut fitting = Vec::with_capacity(advisory.windows.len());
    for window in &advisory.windows {
        match module.fit(window, &advisory.modules) {
            Fit::Fits => fitting.push(window),
            Fit::Other => continue,
            Fit::Unknown => {
                // What is newer than the fix of every stream is fixed.
                if place(family, window, version) != Place::Out {
                    unknown = Some("the module stream of its fix is not known".to_owned());
                }
                continue;
            }
        }
        match installed.place(family, window, version) {
            Place::In => inside.push(window),
            Place::Out => {}
            Place::Never => never = true,
            Place::Unknown(why) => unknown = Some(why),
        }
    }
    let same = |listed: &&String| ecosystems::version(family, listed).as_ref() == Some(version);
    let listed = advisory.versions.iter().find(same);
    if !inside.is_empty() || listed.is_some() {
        let text = installed.text;
        let doubt = doubt(advisory, package, text, &inside, listed.is_some());
        return doubt.map_or_else(
            || Evaluation::Affected(hit(family, advisory, version, (&inside, &fitting))),
            Evaluation::Undecided,
        );
    }
    match unknown {
        Some(why) => Evaluation::Undecided(why),
        None if never && advisory.windows.len() == 1 => Evaluation::Never,
        None if fitting.is_empty() && !advisory.windows.is_empty() => {
            Evaluation::Unaffected(Why::Module)
        }
        None => Evaluation::Unaffected(Why::Outside),
    }
}

/// What an advisory says of a version that is none of its ecosystem's.
fn of_unreadable(advisory: &ShardAdvisory, package: &Package, installed: &str) -> Evaluation {
    if installed.is_empty() {
        return Evaluation::Undecided("the package has no version".to_owned());
    }
    if advisory.versions.iter().any(|listed| listed == installed) {
        return Evaluation::Affected(Hit {
            range: format!("lists `{installed}`"),
            fixed: Vec::new(),
            fix_state: FixState::Unknown,
        });
    }
    let text = clip(installed);
    Evaluation::Undecided(if is_unstated(package, installed) {
        format!("its build states no version (`{text}`)")
    } else {
        format!("version `{text}` cannot be compared")
    })
}

/// What Go writes where it knows no version: of a program that was built in its checkout, and of a
/// module that a directory stands for (`v0.0.0`, which nobody releases).
fn is_unstated(package: &Package, installed: &str) -> bool {
    package.kind == PackageType::Golang && matches!(installed, "(devel)" | "v0.0.0" | "0.0.0")
}

/// Why a version that a window or list holds may yet not be affected.
fn doubt(
    advisory: &ShardAdvisory,
    package: &Package,
    installed: &str,
    inside: &[&Window],
    is_listed: bool,
) -> Option<String> {
    let binaries = &advisory.binaries;
    if package.kind == PackageType::Deb
        && !binaries.is_empty()
        && binaries.binary_search(&package.name).is_err()
    {
        let name = clip(&package.name);
        return Some(format!("its list of binary packages lacks `{name}`"));
    }
    let is_ahead = package.kind == PackageType::Golang
        && !is_listed
        && pseudo::may_hold_the_fix(installed, advisory.published, inside);
    is_ahead.then(|| {
        let installed = clip(installed);
        format!("`{installed}` is a commit after the advisory, on another line than its fix")
    })
}

/// What each window says of a version, and the list.
pub(crate) fn explain(
    family: &dyn Ecosystem,
    advisory: &ShardAdvisory,
    package: &Package,
    installed: &str,
) -> Vec<Shown> {
    let read = Installed::of(family, package, installed);
    let (module, version) = (read.module, &read.version);
    let of_window = |window: &Window| {
        let verdict = match (module.fit(window, &advisory.modules), version) {
            (Fit::Other, _) => "is of another module stream".to_owned(),
            (Fit::Unknown, _) => "is of a module stream that is not known".to_owned(),
            (_, None) => "cannot be compared".to_owned(),
            (Fit::Fits, Some(version)) => match read.place(family, window, version) {
                Place::In => "holds it".to_owned(),
                Place::Out => "does not hold it".to_owned(),
                Place::Never => "says that no version is affected".to_owned(),
                Place::Unknown(why) => format!("is undecided: {why}"),
            },
        };
        let window = match shown(window) {
            all if all == "all versions" => all,
            range => format!("range {range}"),
        };
        Shown { window, verdict }
    };
    let mut found: Vec<Shown> = advisory.windows.iter().map(of_window).collect();
    let listed = advisory.versions.len();
    if listed > 0 {
        let same = |listed: &String| match version {
            Some(version) => ecosystems::version(family, listed).as_ref() == Some(version),
            None => listed == read.text,
        };
        let holds = advisory.versions.iter().any(same);
        found.push(Shown {
            window: format!("list of {listed} more versions"),
            verdict: if holds {
                "holds it"
            } else {
                "does not hold it"
            }
            .to_owned(),
        });
    }
    found
}

/// Drops listed versions that a window holds anyway: nothing is lost, and records of distributions
/// shrink to a tenth.
pub(crate) fn drop_versions_in_windows(family: &dyn Ecosystem, part: &mut ShardAdvisory) {
    let windows = &part.windows;
    part.versions.retain(|listed| {
        let version = ecosystems::version(family, listed);
        let held = version.is_some_and(|version| {
            windows
                .iter()
                .any(|window| place(family, window, &version) == Place::In)
        });
        !held
    });
}

fn place(family: &dyn Ecosystem, window: &Window, version: &Version) -> Place {
    let read = |text: &str| {
        ecosystems::version(family, text)
            .ok_or_else(|| format!("version `{}` of its range cannot be compared", clip(text)))
    };
    let (end, is_last) = match &window.end {
        WindowEnd::Fixed(text) if text.trim() == "0" => return Place::Never,
        WindowEnd::Fixed(text) | WindowEnd::Limit(text) => (Some(read(text)), false),
        WindowEnd::Last(text) => (Some(read(text)), true),
        WindowEnd::Open => (None, false),
    };
    let start = window.introduced.as_deref().map(read);
    let is_before_end = |end: &Version| {
        if is_last {
            version <= end
        } else {
            version < end
        }
    };
    match (start, end) {
        (Some(Ok(start)), Some(Ok(end))) if start > end => {
            if family.is_distribution() {
                // The start was copied from upstream's numbering and means nothing here.
                return decided(is_before_end(&end));
            }
            if is_before_end(&end) || *version >= start {
                return Place::Unknown("its range ends before it begins".to_owned());
            }
            Place::Out
        }
        (start, end) => {
            let after_start = start.map_or(Ok(true), |start| start.map(|start| *version >= start));
            let before_end = end.map_or(Ok(true), |end| end.map(|end| is_before_end(&end)));
            match (after_start, before_end) {
                (Ok(false), _) | (_, Ok(false)) => Place::Out,
                (Ok(true), Ok(true)) => Place::In,
                (Err(why), _) | (_, Err(why)) => Place::Unknown(why),
            }
        }
    }
}

/// The fix is the smallest fixed version above the installed one in a window that holds it; fixed
/// versions of other windows follow. A version that another window holds fixes nothing.
fn hit(
    family: &dyn Ecosystem,
    advisory: &ShardAdvisory,
    version: &Version,
    (inside, fitting): (&[&Window], &[&Window]),
) -> Hit {
    let mut fixes: Vec<(bool, Version, &str)> = Vec::new();
    for window in fitting {
        let WindowEnd::Fixed(text) = &window.end else {
            continue;
        };
        let Some(fix) = ecosystems::version(family, text).filter(|fix| fix > version) else {
            continue;
        };
        let holds = |window: &&Window| place(family, window, &fix) == Place::In;
        if !fitting.iter().any(holds) {
            fixes.push((!inside.contains(window), fix, text));
        }
    }
    fixes.sort();
    fixes.dedup_by(|a, b| a.1 == b.1);
    let is_open = inside.iter().any(|window| window.end == WindowEnd::Open);
    let fix_state = match () {
        () if advisory.end_of_life => FixState::EndOfLife,
        () if !fixes.is_empty() => FixState::Fixed,
        () => match advisory.unfixed {
            Some(state) => state,
            None if is_open => FixState::NotFixed,
            None => FixState::Unknown,
        },
    };
    let range = inside
        .first()
        .map_or_else(|| "its list of versions".to_owned(), |w| shown(w));
    Hit {
        range,
        fixed: fixes.into_iter().map(|fix| fix.2.to_owned()).collect(),
        fix_state,
    }
}

// === impl Installed ===

impl<'a> Installed<'a> {
    /// The version of a package that an advisory is compared with.
    pub(crate) fn of(family: &dyn Ecosystem, package: &'a Package, text: &'a str) -> Self {
        let text = text.trim();
        let version = ecosystems::version(family, text);
        Self {
            text,
            version: version.filter(|_| !is_unstated(package, text)),
            module: Module::of(package),
            is_adrift: pseudo::is_adrift(package, text),
        }
    }

    fn place(&self, family: &dyn Ecosystem, window: &Window, version: &Version) -> Place {
        if self.is_adrift && pseudo::is_of_releases(window) {
            let text = clip(self.text);
            return Place::Unknown(format!(
                "`{text}` is a commit of a checkout without tags, anywhere among the releases"
            ));
        }
        place(family, window, version)
    }
}

fn decided(is_in: bool) -> Place {
    if is_in { Place::In } else { Place::Out }
}

fn shown(window: &Window) -> String {
    let from = window
        .introduced
        .as_ref()
        .map_or(String::new(), |from| format!(">= {}", clip(from)));
    let to = match &window.end {
        WindowEnd::Fixed(version) | WindowEnd::Limit(version) => format!("< {}", clip(version)),
        WindowEnd::Last(version) => format!("<= {}", clip(version)),
        WindowEnd::Open if from.is_empty() => "all versions".to_owned(),
        WindowEnd::Open => return from,
    };
    if from.is_empty() {
        to
    } else {
        format!("{from}, {to}")
    }
}

fn clip(text: &str) -> String {
    text.chars().take(100).collect()
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "no range and no list holds the version",
            Self::Module => "it is about builds of another module stream",
            Self::Platform => "it is about other operating systems",
        })
    }
}

#[cfg(test)]
mod tests;
