//! Java run times and development kits: the file `release` that each has in its directory (`OpenJDK`,
//! `make/ReleaseFile.gmk`).

use archive::{Entry, Limits};
use model::{AnalyzerId, Confidence, FoundPackage, PackageType};

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id, os_release::value};

/// A list of modules makes it 2 KB long.
const BYTES_MAX: u64 = 64 << 10;

const NAME: &str = "release";

/// A line that all of them have.
const VERSION: &str = "JAVA_VERSION";
const VERSION_LINE: &[u8] = b"JAVA_VERSION=";

/// Reads what Java installations say of themselves.
pub(crate) struct Jdk(AnalyzerId);

// === impl Jdk ===

impl Jdk {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("jdk", 1, config, limits)))
    }
}

impl Analyzer for Jdk {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec!["/release/"]
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        let mut lines = head.split(|byte| *byte == b'\n');
        let is_one = entry.name() == NAME && lines.any(|line| line.starts_with(VERSION_LINE));
        if is_one { Wanted::Alone } else { Wanted::No }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let text = file.text(BYTES_MAX)?;
            let Some(version) = value(&text, VERSION) else {
                found.malformed(file.path(), "there is no version");
                continue;
            };
            let (name, version) = match value(&text, "GRAALVM_VERSION") {
                Some(graal) => ("graalvm", graal),
                None if value(&text, "BUILD_TYPE").as_deref() == Some("commercial") => {
                    ("oracle-jdk", version)
                }
                None => ("openjdk", version),
            };
            found.add_package(FoundPackage {
                arch: value(&text, "OS_ARCH"),
                vendor: value(&text, "IMPLEMENTOR"),
                confidence: Confidence::Low,
                ..FoundPackage::new(PackageType::Generic, name, version, file.path())
            });
        }
        Ok(())
    }
}
