//! Packages of embedded distributions: opkg's `status`, which has dpkg's form, and its lists of
//! files.

use archive::Entry;
use model::{Owned, PackageType};

use crate::{File, Found, Malformed, dpkg, each::EachFile};

/// A router's `status` has 100 KB.
const BYTES_MAX: u64 = 64 << 20;

/// The largest packages have some thousand files.
const FILES_MAX: usize = 500_000;

/// Where opkg keeps its records: that of `OpenWrt`, and that of others.
const HOMES: &[&str] = &["usr/lib/opkg", "var/lib/opkg"];

/// Where its list of packages is.
pub(crate) const PLACES: &[&str] = &["usr/lib/opkg/status", "var/lib/opkg/status"];

/// Reads opkg's records.
pub(crate) struct Opkg;

/// Whether a file at this path is read as a list of packages.
pub(crate) fn is_database(path: &str) -> bool {
    let home = path.strip_suffix("/status");
    home.is_some_and(|home| HOMES.contains(&home) || home.ends_with("/lib/opkg"))
}

/// The package whose files are listed at this path.
fn owner(path: &str) -> Option<&str> {
    let (directory, name) = path.rsplit_once('/')?;
    let home = directory.strip_suffix("/info")?;
    name.strip_suffix(".list").filter(|_| HOMES.contains(&home))
}

// === impl Opkg ===

impl EachFile for Opkg {
    const NAME: &'static str = "opkg";
    const VERSION: u32 = 1;
    const PIECES: &'static [&'static str] = &["/lib/opkg/"];

    fn is_wanted(entry: &Entry<'_>, _head: &[u8]) -> bool {
        is_database(entry.path) || owner(entry.path).is_some()
    }

    fn read(file: &File, found: &mut Found) -> Result<(), Malformed> {
        let text = file.text(BYTES_MAX)?;
        match owner(file.path()) {
            Some(package) => read_owned(package, file.path(), &text, found),
            None => dpkg::read_status(PackageType::Opkg, file.path(), &text, found),
        }
        Ok(())
    }
}

/// A path per line; newer versions add size and mode.
fn read_owned(package: &str, path: &str, text: &str, found: &mut Found) {
    let files = text.lines().filter_map(|line| line.split('\t').next());
    let files = files.map(|file| file.trim_start_matches('/'));
    for (number, file) in files.filter(|file| !file.is_empty()).enumerate() {
        if number >= FILES_MAX {
            return found.malformed(path, format!("there are more than {FILES_MAX} files"));
        }
        found.add_owned(Owned {
            package: package.to_owned(),
            arch: None,
            path: file.to_owned(),
            digest: None,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_files_are_bounded() {
        let text = "/usr/bin/a\t0755\n".repeat(FILES_MAX + 1);
        let mut found = Found::new(u64::MAX);
        let (within, _) = text.split_at(text.len() - "/usr/bin/a\t0755\n".len());
        read_owned("a", "l", within, &mut found);
        assert_eq!((found.owned.len(), found.gaps.len()), (FILES_MAX, 0));
        assert_eq!(found.owned[0].path, "usr/bin/a");
        read_owned("a", "l", &text, &mut found);
        assert_eq!(found.gaps.len(), 1);
    }

    #[test]
    fn records_stand_where_opkg_keeps_them() {
        assert!(is_database("usr/lib/opkg/status") && is_database("srv/lib/opkg/status"));
        assert!(!is_database("opkg/status"));
        assert_eq!(owner("var/lib/opkg/info/libc.list"), Some("libc"));
        assert_eq!(owner("srv/var/lib/opkg/info/libc.list"), None);
    }
}
