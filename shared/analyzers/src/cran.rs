//! Installed R packages: the `DESCRIPTION` in each one's directory of a library (R, "Writing R
//! Extensions", section 1.1.1).

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundPackage, PackageType};

use crate::{
    Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id, malformed, stanza::paragraphs,
};

/// They hold the text about the package.
const BYTES_MAX: u64 = 4 << 20;

/// Reads the descriptions of installed R packages.
pub(crate) struct Cran(AnalyzerId);

// === impl Cran ===

impl Cran {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("cran", 1, config, limits)))
    }
}

impl Analyzer for Cran {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec!["/DESCRIPTION/"]
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        let is_one = is_description(entry.path) && head.starts_with(b"Package:");
        if is_one { Wanted::Alone } else { Wanted::No }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let text = file.text(BYTES_MAX)?;
            let fields = paragraphs(&text).next().unwrap_or_default();
            let (Some(name), Some(version)) = (fields.get("Package"), fields.get("Version")) else {
                return Err(malformed("there is no name or no version"));
            };
            let needed = [fields.folded("Depends"), fields.folded("Imports")].join(",");
            let needed = needed
                .split(',')
                .map(|need| need.split('(').next().unwrap_or_default());
            let needed = needed
                .map(str::trim)
                .filter(|need| !matches!(*need, "" | "R"));
            let license = fields.get("License");
            found.add_package(FoundPackage {
                licenses: license.map(ToOwned::to_owned).into_iter().collect(),
                depends_on: needed.map(ToOwned::to_owned).collect(),
                ..FoundPackage::new(PackageType::Cran, name, version, file.path())
            });
        }
        Ok(())
    }
}

/// `usr/lib/R/library/stats/DESCRIPTION`, `usr/local/lib/R/site-library/rlang/DESCRIPTION`.
fn is_description(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (name, _package, library) = (parts.next(), parts.next(), parts.next());
    name == Some("DESCRIPTION") && matches!(library, Some("library" | "site-library"))
}
