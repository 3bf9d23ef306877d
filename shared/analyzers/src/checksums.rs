//! Digests of what can run or be loaded, as package managers record them: `coalesce` tells by them
//! which files are not as their package brought them.

use archive::{Entry, Limits};
use model::{AnalyzerId, Hides};

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id, read::is_runnable};

/// Its name, by which it is switched off.
pub(crate) const NAME: &str = "checksums";

/// Where packages put what can run or be loaded. What they put below `etc` is meant to be changed.
const ROOTS: &[&str] = &["bin/", "boot/", "lib", "opt/", "sbin/", "usr/", "var/lib/"];

/// What is left of that to the administrator (Filesystem Hierarchy Standard, section 4.9).
const LOCAL: &str = "usr/local/";

/// Sums up files that packages may own.
pub(crate) struct Checksums(AnalyzerId);

// === impl Checksums ===

impl Checksums {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id(NAME, 2, config, limits)))
    }
}

impl Analyzer for Checksums {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn hides(&self) -> Hides {
        Hides::Nothing
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        if may_be_owned(entry.path) && is_runnable(entry, head) {
            Wanted::Sums
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        let sums = files.iter().filter_map(File::sums);
        sums.for_each(|sums| found.add_sums(sums));
        Ok(())
    }
}

/// Whether packages put files at such a path that nobody is to change.
pub(crate) fn may_be_owned(path: &str) -> bool {
    ROOTS.iter().any(|root| path.starts_with(root)) && !path.starts_with(LOCAL)
}
