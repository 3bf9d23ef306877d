//! Documents in an image: what Bitnami, and whoever builds images so, writes beside the software that
//! it installs. Of an operating system's packages the package manager's own records count; of what
//! another analyzer finds as well, that one does (see `coalesce`).

use archive::{Entry, Limits};
use model::{AnalyzerId, Confidence, FoundPackage, PackageType};

use super::{Bom, ItemKind, convert, parse};
use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

/// A Bitnami image's have 100 KB each.
const BYTES_MAX: u64 = 16 << 20;

/// How their names end.
const ENDS: &[&str] = &[
    ".spdx",
    ".spdx.json",
    ".cdx",
    ".cdx.json",
    ".cdx.xml",
    ".cyclonedx.json",
];

/// Reads bills of materials.
pub(crate) struct Sbom(AnalyzerId);

// === impl Sbom ===

impl Sbom {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("sbom", 2, config, limits)))
    }
}

impl Analyzer for Sbom {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        if is_document(entry.path) && begins_as_document(head) {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let bom = parse(&file.bytes(BYTES_MAX)?)?;
            add(&bom, file, found);
        }
        Ok(())
    }
}

/// Whether a file of this name is a bill of materials.
pub(crate) fn is_document(path: &str) -> bool {
    ENDS.iter().any(|end| path.ends_with(end))
}

/// Whether a file begins as one does: drawings of molecules and indexes of databases end in `.cdx` too.
fn begins_as_document(head: &[u8]) -> bool {
    let head = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head);
    let head = head.trim_ascii_start();
    head.starts_with(b"{") || head.starts_with(b"<") || head.starts_with(b"SPDXVersion:")
}

fn add(bom: &Bom, file: &File, found: &mut Found) {
    for item in bom
        .items
        .iter()
        .filter(|item| item.kind == ItemKind::Package)
    {
        let Some(facts) = convert::facts(item) else {
            continue;
        };
        if facts.kind.is_os() || facts.kind == PackageType::Generic {
            continue;
        }
        found.add_package(FoundPackage {
            licenses: item.licenses.clone(),
            digests: item.digests.clone(),
            confidence: Confidence::Medium,
            ..FoundPackage::new(facts.kind, &facts.name, &facts.version, file.path())
        });
    }
}
