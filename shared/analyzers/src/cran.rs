//! Installed R packages: the `DESCRIPTION` in each one's directory of a library (R, "Writing R
//! Extensions", section 1.1.1).

use archive::Entry;
use model::{FoundPackage, PackageType};

use crate::{File, Found, Malformed, each::EachFile, malformed, stanza::paragraphs};

/// They hold the text about the package.
const BYTES_MAX: u64 = 4 << 20;

/// Reads the descriptions of installed R packages.
pub(crate) struct Cran;

// === impl Cran ===

impl EachFile for Cran {
    const NAME: &'static str = "cran";
    const VERSION: u32 = 3;
    const PIECES: &'static [&'static str] = &["/DESCRIPTION/"];

    fn is_wanted(entry: &Entry<'_>, _head: &[u8]) -> bool {
        is_description(entry.path)
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let text = file.text(BYTES_MAX)?;
        let fields = paragraphs(&text).next().unwrap_or_default();
        // Installing writes it; without it, R does not list the package.
        if fields.get("Built").is_none() {
            return Ok(());
        }
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
        let license = Some(fields.folded("License")).filter(|text| !text.is_empty());
        found.add_package(FoundPackage {
            licenses: license.into_iter().collect(),
            depends_on: needed.map(ToOwned::to_owned).collect(),
            ..FoundPackage::new(PackageType::Cran, name, version, file.path())
        });
        Ok(())
    }
}

/// `usr/lib/R/library/stats/DESCRIPTION`, `usr/local/lib/R/site-library/rlang/DESCRIPTION`.
fn is_description(path: &str) -> bool {
    let mut parts = path.rsplit('/');
    let (name, _package, library) = (parts.next(), parts.next(), parts.next());
    name == Some("DESCRIPTION") && matches!(library, Some("library" | "site-library"))
}
