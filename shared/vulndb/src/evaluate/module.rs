//! Modules of RPM distributions: builds of one package for several streams beside each other.
//!
//! A fix whose release holds `.module` is one for packages of the same module and stream, and for no
//! others: versions of two streams, or of a modular and an ordinary build, say nothing about each
//! other.

use model::{Package, PackageType};

use crate::shard::{Window, WindowEnd};

const MARK: &str = ".module";

/// The module that an installed package was built in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Module<'a> {
    /// It is no RPM package: nothing to look at.
    NotAsked,
    /// None.
    None,
    /// `name:stream`.
    Stream(&'a str),
    /// Its release is that of a module, and its label is missing.
    Unreadable,
}

/// Whether a window is about such packages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Fits,
    Other,
    Unknown,
}

// === impl Module ===

impl<'a> Module<'a> {
    pub(super) fn of(package: &'a Package) -> Self {
        if package.kind != PackageType::Rpm {
            return Self::NotAsked;
        }
        match package.modularity.as_deref().and_then(stream) {
            Some(stream) => Self::Stream(stream),
            None if package.version.contains(MARK) => Self::Unreadable,
            None => Self::None,
        }
    }

    pub(super) fn fit(self, window: &Window, streams: &[String]) -> Fit {
        let is_modular = match &window.end {
            WindowEnd::Fixed(text) | WindowEnd::Last(text) | WindowEnd::Limit(text) => {
                text.contains(MARK)
            }
            // All versions: of builds for the named streams, or of ordinary ones.
            WindowEnd::Open => !streams.is_empty(),
        };
        match (self, is_modular) {
            (Self::NotAsked, _) | (Self::None, false) => Fit::Fits,
            (Self::None, true) | (Self::Stream(_) | Self::Unreadable, false) => Fit::Other,
            (Self::Unreadable, true) => Fit::Unknown,
            (Self::Stream(_), true) if streams.is_empty() => Fit::Unknown,
            (Self::Stream(own), true) => {
                if streams.iter().any(|stream| stream == own) {
                    Fit::Fits
                } else {
                    Fit::Other
                }
            }
        }
    }
}

/// `name:stream` of `name:stream:version:context`.
fn stream(label: &str) -> Option<&str> {
    let (name, rest) = label.split_once(':')?;
    let stream = rest.split(':').next().unwrap_or_default();
    let end = name.len().checked_add(1)?.checked_add(stream.len())?;
    (!name.is_empty() && !stream.is_empty())
        .then(|| label.get(..end))
        .flatten()
}

#[cfg(test)]
mod tests {
    use model::PackageType;

    use super::*;
    use crate::matching::tests::package;

    #[test]
    fn a_modular_fix_is_one_for_its_own_stream() {
        let window = |fixed: &str| Window {
            introduced: None,
            end: WindowEnd::Fixed(fixed.to_owned()),
        };
        let (modular, ordinary) = (window("1-2.module_el8.5.0+1"), window("1-2.el8"));
        let fit = |label: Option<&str>, version: &str, window: &Window, streams: &[&str]| {
            let mut package = package(PackageType::Rpm, "p", version);
            package.modularity = label.map(ToOwned::to_owned);
            let streams: Vec<String> = streams.iter().map(|&one| one.to_owned()).collect();
            Module::of(&package).fit(window, &streams)
        };
        let label = Some("ruby:2.7:8050020210702:f1b6c3");
        assert_eq!(fit(label, "1", &modular, &["ruby:2.7"]), Fit::Fits);
        assert_eq!(fit(label, "1", &modular, &["ruby:2.5"]), Fit::Other);
        assert_eq!(fit(label, "1", &modular, &[]), Fit::Unknown);
        assert_eq!(fit(label, "1", &ordinary, &[]), Fit::Other);
        assert_eq!(fit(None, "1-1.el8", &modular, &["ruby:2.7"]), Fit::Other);
        assert_eq!(fit(None, "1-1.el8", &ordinary, &[]), Fit::Fits);
        let release = "1-1.module_el8.4.0";
        assert_eq!(fit(None, release, &modular, &["ruby:2.7"]), Fit::Unknown);
        assert_eq!(fit(None, release, &ordinary, &[]), Fit::Other);
        let open = Window {
            introduced: None,
            end: WindowEnd::Open,
        };
        assert_eq!(fit(label, "1", &open, &["ruby:2.7"]), Fit::Fits);
        assert_eq!(fit(label, "1", &open, &["ruby:2.5"]), Fit::Other);
        assert_eq!(fit(None, "1-1.el8", &open, &["ruby:2.7"]), Fit::Other);
        assert_eq!(fit(None, "1-1.el8", &open, &[]), Fit::Fits);
        assert_eq!(fit(label, "1", &open, &[]), Fit::Other);
    }
}
