//! Whether an installed version is affected: OSV's evaluation, as real records need it.

use model::FixState;

use crate::{
    ecosystems::{self, Ecosystem},
    shard::{ShardAdvisory, Window, WindowEnd},
    version::Version,
};

/// What an advisory says of an installed version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Evaluation {
    /// Not affected.
    Unaffected,
    /// Not affected, and the vendor says so for every version (`fixed: "0"`).
    Never,
    /// Affected.
    Affected(Hit),
    /// We cannot say, and why.
    Undecided(String),
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

/// Where a version stands to a window.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Place {
    In,
    Out,
    Never,
    Unknown(String),
}

/// Evaluates the windows one by one and unites them; `versions` are compared by the ecosystem's
/// equality, and as texts only where the installed version is none of the ecosystem's.
pub(crate) fn evaluate(
    family: &dyn Ecosystem,
    advisory: &ShardAdvisory,
    installed: &str,
) -> Evaluation {
    let installed = installed.trim();
    if installed.is_empty() {
        return Evaluation::Undecided("the package has no version".to_owned());
    }
    let Some(version) = ecosystems::version(family, installed) else {
        return if advisory.versions.iter().any(|listed| listed == installed) {
            Evaluation::Affected(Hit {
                range: format!("lists `{installed}`"),
                fixed: Vec::new(),
                fix_state: FixState::Unknown,
            })
        } else {
            Evaluation::Undecided(format!("version `{}` cannot be compared", clip(installed)))
        };
    };
    let mut unknown = None;
    let mut never = false;
    let mut inside = Vec::new();
    for window in &advisory.windows {
        match place(family, window, &version) {
            Place::In => inside.push(window),
            Place::Out => {}
            Place::Never => never = true,
            Place::Unknown(why) => unknown = Some(why),
        }
    }
    let same = |listed: &&String| ecosystems::version(family, listed).as_ref() == Some(&version);
    let listed = advisory.versions.iter().find(same);
    if !inside.is_empty() || listed.is_some() {
        return Evaluation::Affected(hit(family, advisory, &version, &inside));
    }
    match unknown {
        Some(why) => Evaluation::Undecided(why),
        None if never && advisory.windows.len() == 1 => Evaluation::Never,
        None => Evaluation::Unaffected,
    }
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
    inside: &[&Window],
) -> Hit {
    let mut fixes: Vec<(bool, Version, &str)> = Vec::new();
    for window in &advisory.windows {
        let WindowEnd::Fixed(text) = &window.end else {
            continue;
        };
        let Some(fix) = ecosystems::version(family, text).filter(|fix| fix > version) else {
            continue;
        };
        let holds = |window: &Window| place(family, window, &fix) == Place::In;
        if !advisory.windows.iter().any(holds) {
            fixes.push((!inside.contains(&window), fix, text));
        }
    }
    fixes.sort();
    fixes.dedup_by(|a, b| a.1 == b.1);
    let is_open = inside.iter().any(|window| window.end == WindowEnd::Open);
    let fix_state = match () {
        () if advisory.end_of_life => FixState::EndOfLife,
        () if !fixes.is_empty() => FixState::Fixed,
        () if is_open => FixState::NotFixed,
        () => FixState::Unknown,
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

#[cfg(test)]
mod tests;
