//! Extensions of PHP: those that PECL and PEAR installed, from their registry, and those that come
//! with PHP, from the directory that is named after the interface they were built for.

mod serialized;

use archive::{Entry, Limits};
use model::{AnalyzerId, Confidence, FoundPackage, PackageType};

use self::serialized::Value;
use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id, malformed};

/// The list of a package's files makes a record long.
const BYTES_MAX: u64 = 4 << 20;

/// Where a record of an installed package lies (PEAR, `PEAR/Registry.php`).
const REGISTRY: &str = ".registry";
const CHANNEL: &str = ".channel.";

/// The channel of a record that names none.
const PEAR: &str = "pear.php.net";

/// Versions of PHP by the interface for extensions (php-src, `Zend/zend_modules.h`).
const INTERFACES: &[(&str, &str)] = &[
    ("20090626", "5.3"),
    ("20100525", "5.4"),
    ("20121212", "5.5"),
    ("20131226", "5.6"),
    ("20151012", "7.0"),
    ("20160303", "7.1"),
    ("20170718", "7.2"),
    ("20180731", "7.3"),
    ("20190902", "7.4"),
    ("20200930", "8.0"),
    ("20210902", "8.1"),
    ("20220829", "8.2"),
    ("20230831", "8.3"),
    ("20240924", "8.4"),
    ("20250925", "8.5"),
];

/// Extensions that come with PHP (php-src, `ext/`). Others have versions of their own, which their
/// files do not tell.
const BUNDLED: &[&str] = &[
    "bcmath",
    "bz2",
    "calendar",
    "ctype",
    "curl",
    "dba",
    "dom",
    "enchant",
    "exif",
    "ffi",
    "fileinfo",
    "filter",
    "ftp",
    "gd",
    "gettext",
    "gmp",
    "iconv",
    "imap",
    "intl",
    "ldap",
    "mbstring",
    "mysqli",
    "mysqlnd",
    "odbc",
    "opcache",
    "pcntl",
    "pdo",
    "pdo_dblib",
    "pdo_firebird",
    "pdo_mysql",
    "pdo_odbc",
    "pdo_pgsql",
    "pdo_sqlite",
    "pgsql",
    "phar",
    "posix",
    "pspell",
    "readline",
    "session",
    "shmop",
    "simplexml",
    "snmp",
    "soap",
    "sockets",
    "sodium",
    "sqlite3",
    "sysvmsg",
    "sysvsem",
    "sysvshm",
    "tidy",
    "tokenizer",
    "xml",
    "xmlreader",
    "xmlwriter",
    "xsl",
    "zip",
];

/// Looks for extensions of PHP.
pub(crate) struct Php(AnalyzerId);

// === impl Php ===

impl Php {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("php", 1, config, limits)))
    }
}

impl Analyzer for Php {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec![".reg/", "/php/"]
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        if is_record(entry.path) {
            Wanted::Alone
        } else if extension(entry.path).is_some() {
            Wanted::Entry
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let path = file.path();
            if let Some((name, version)) = extension(path) {
                found.add_package(FoundPackage {
                    confidence: Confidence::Low,
                    ..FoundPackage::new(
                        PackageType::Generic,
                        format!("php-extension/{name}"),
                        version,
                        path,
                    )
                });
                continue;
            }
            let bytes = file.bytes(BYTES_MAX)?;
            let record = Value::parse(&bytes).map_err(malformed)?;
            found.add_package(package(&record, path)?);
        }
        Ok(())
    }
}

/// `.registry/NAME.reg`, or in a directory there that names the channel.
fn is_record(path: &str) -> bool {
    let Some((directory, name)) = path.rsplit_once('/') else {
        return false;
    };
    let (above, last) = directory.rsplit_once('/').unwrap_or(("", directory));
    let is_registry = |directory: &str| directory.rsplit('/').next() == Some(REGISTRY);
    has_end(name) && (last == REGISTRY || last.starts_with(CHANNEL) && is_registry(above))
}

fn has_end(name: &str) -> bool {
    name.rsplit_once('.').is_some_and(|(_, end)| end == "reg")
}

/// The name of an extension that comes with PHP, and the version of PHP that it is for:
/// `lib/php/20220829/opcache.so`, `lib/php/extensions/no-debug-non-zts-20220829/opcache.so`.
fn extension(path: &str) -> Option<(&str, &'static str)> {
    let (directory, file) = path.rsplit_once('/')?;
    let name = file.strip_suffix(".so")?;
    let (above, last) = directory.rsplit_once('/')?;
    let interface = match above.rsplit('/').next()? {
        "extensions" => last.rsplit('-').next()?,
        "php" => last,
        _ => return None,
    };
    let (_, version) = INTERFACES.iter().find(|(known, _)| *known == interface)?;
    BUNDLED.contains(&name).then_some((name, version))
}

fn package(record: &Value<'_>, path: &str) -> Result<FoundPackage, Malformed> {
    let text = |key: &str| record.get(key).and_then(Value::text);
    // The second is the form of old packages.
    let name = text("name").or_else(|| text("package"));
    let version = record.get("version");
    let version = version.and_then(|version| version.get("release").unwrap_or(version).text());
    let (Some(name), Some(version)) = (name, version) else {
        return Err(malformed("there is no name or no version"));
    };
    let license = record.get("license");
    let license = license.and_then(|license| license.get("_content").unwrap_or(license).text());
    let channel = text("channel").unwrap_or_else(|| PEAR.to_owned());
    Ok(FoundPackage {
        licenses: license.into_iter().collect(),
        ..FoundPackage::new(
            PackageType::Generic,
            format!("{channel}/{name}"),
            version,
            path,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extensions_are_told_by_their_place() {
        let check = |path: &str, expected| assert_eq!(extension(path), expected, "{path}");
        check("usr/lib/php/20220829/opcache.so", Some(("opcache", "8.2")));
        let docker = "usr/local/lib/php/extensions/no-debug-non-zts-20230831/sodium.so";
        check(docker, Some(("sodium", "8.3")));
        check("usr/lib/php/20220829/redis.so", None);
        check("usr/lib/php/20991231/opcache.so", None);
        check("usr/lib/20220829/opcache.so", None);
    }

    #[test]
    fn records_are_told_by_their_place() {
        assert!(is_record("usr/local/lib/php/.registry/pear.reg"));
        assert!(is_record(
            "usr/share/php/.registry/.channel.pecl.php.net/redis.reg"
        ));
        assert!(!is_record("usr/share/php/.channels/pecl.php.net.reg"));
        assert!(!is_record("usr/share/php/.channel.x/redis.reg"));
    }
}
