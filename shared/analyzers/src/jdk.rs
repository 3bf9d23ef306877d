//! Java run times and development kits: the file `release` that each has in its directory (`OpenJDK`,
//! `make/ReleaseFile.gmk`).

use archive::Entry;
use model::{Confidence, FoundPackage, PackageType};

use crate::{File, Found, Malformed, each::EachFile, os_release::value};

/// A list of modules makes it 2 KB long.
const BYTES_MAX: u64 = 64 << 10;

const NAME: &str = "release";

/// A line that all of them have.
const VERSION: &str = "JAVA_VERSION";
const VERSION_LINE: &[u8] = b"JAVA_VERSION=";

/// Reads what Java installations say of themselves.
pub(crate) struct Jdk;

// === impl Jdk ===

impl EachFile for Jdk {
    const NAME: &'static str = "jdk";
    const VERSION: u32 = 1;
    const PIECES: &'static [&'static str] = &["/release/"];

    fn is_wanted(entry: &Entry<'_>, head: &[u8]) -> bool {
        let mut lines = head.split(|byte| *byte == b'\n');
        entry.name() == NAME && lines.any(|line| line.starts_with(VERSION_LINE))
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let text = file.text(BYTES_MAX)?;
        let Some(version) = value(&text, VERSION) else {
            found.malformed(file.path(), "there is no version");
            return Ok(());
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
        Ok(())
    }
}
