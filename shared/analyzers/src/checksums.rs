//! Digests of what can run or be loaded, as package managers record them: `coalesce` tells by them
//! which files are not as their package brought them.

use std::io::{BufRead as _, BufReader};

use archive::{Entry, Limits};
use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};
use model::{AnalyzerId, FileSums, Hides, hex};

use crate::{
    Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id, md5::Md5, read::is_runnable,
};

/// Its name, by which it is switched off.
pub(crate) const NAME: &str = "checksums";

/// Bytes that are read at a time.
const BUFFER_BYTES: usize = 64 << 10;

/// Where packages put what can run or be loaded. What they put below `etc` is meant to be changed.
const ROOTS: &[&str] = &["bin/", "boot/", "lib", "opt/", "sbin/", "usr/", "var/lib/"];

/// What is left of that to the administrator (Filesystem Hierarchy Standard, section 4.9).
const LOCAL: &str = "usr/local/";

/// Sums up files that packages may own.
pub(crate) struct Checksums(AnalyzerId);

// === impl Checksums ===

impl Checksums {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id(NAME, 1, config, limits)))
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
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            found.add_sums(sums(file)?);
        }
        Ok(())
    }
}

fn sums(file: &File) -> Result<FileSums, Malformed> {
    let mut reader = BufReader::with_capacity(BUFFER_BYTES, file.reader());
    let mut md5 = Md5::default();
    let mut sha1 = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    loop {
        let bytes = reader.fill_buf().map_err(Malformed::Spilled)?;
        if bytes.is_empty() {
            break;
        }
        md5.update(bytes);
        sha1.update(bytes);
        let length = bytes.len();
        reader.consume(length);
    }
    Ok(FileSums {
        path: file.path().to_owned(),
        md5: format!("md5:{}", hex(&md5.finish())),
        sha1: format!("sha1:{}", hex(sha1.finish().as_ref())),
    })
}

/// Whether packages put files at such a path that nobody is to change.
pub(crate) fn may_be_owned(path: &str) -> bool {
    ROOTS.iter().any(|root| path.starts_with(root)) && !path.starts_with(LOCAL)
}
