//! `WordPress`, its plugins and themes: the version file of the first, the header comments of the
//! others (`WordPress`, "Header Requirements"; its `get_file_data`).

use std::io::Read as _;

use archive::{Entry, Limits};
use model::{AnalyzerId, Confidence, FoundPackage, PackageType};

use crate::{Analyzer, Config, File, Found, Malformed, Wanted, analyzer_id};

/// As much of a file as `WordPress` itself reads.
const HEADER_BYTES: u64 = 8 << 10;

/// A name, a version or a licence is shorter.
const TEXT_BYTES_MAX: usize = 200;

const PLUGINS: &[&str] = &["wp-content/plugins/", "wp-content/mu-plugins/"];
const THEMES: &str = "wp-content/themes/";
const STYLE: &str = "style.css";
const CORE: &str = "wp-includes/version.php";

/// Reads headers of plugins and themes.
pub(crate) struct Wordpress(AnalyzerId);

/// What a file may tell of, with the name that its place gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind<'a> {
    Core,
    Plugin(&'a str),
    Theme(&'a str),
}

// === impl Wordpress ===

impl Wordpress {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        Box::new(Self(analyzer_id("wordpress", 1, config, limits)))
    }
}

impl Analyzer for Wordpress {
    fn id(&self) -> &AnalyzerId {
        &self.0
    }

    fn pieces(&self) -> Vec<&str> {
        vec!["/wp-content/", "/wp-includes/version.php/"]
    }

    fn wants(&self, entry: &Entry<'_>, _head: &[u8]) -> Wanted {
        if kind(entry.path).is_some() {
            Wanted::Alone
        } else {
            Wanted::No
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        for file in files {
            let Some(kind) = kind(file.path()) else {
                continue;
            };
            let mut bytes = Vec::new();
            let read = file.reader().take(HEADER_BYTES).read_to_end(&mut bytes);
            read.map_err(Malformed::Spilled)?;
            let text = String::from_utf8_lossy(&bytes);
            // Of a plugin's files one has the header.
            if let Some(package) = package(kind, &text, file.path()) {
                found.add_package(package);
            }
        }
        Ok(())
    }
}

fn kind(path: &str) -> Option<Kind<'_>> {
    if path.strip_suffix(CORE).is_some_and(is_root) {
        return Some(Kind::Core);
    }
    let at = |root: &str| {
        let (before, below) = path.split_once(root)?;
        is_root(before).then_some(below)
    };
    if let Some(below) = at(THEMES) {
        let name = below.strip_suffix(STYLE)?.strip_suffix('/')?;
        return (!name.contains('/')).then_some(Kind::Theme(name));
    }
    let below = PLUGINS.iter().find_map(|root| at(root))?;
    let stem = below.strip_suffix(".php")?;
    match stem.split_once('/') {
        None => Some(Kind::Plugin(stem)),
        Some((name, file)) if !file.contains('/') => Some(Kind::Plugin(name)),
        Some(_) => None,
    }
}

fn is_root(before: &str) -> bool {
    before.is_empty() || before.ends_with('/')
}

fn package(kind: Kind<'_>, text: &str, path: &str) -> Option<FoundPackage> {
    let (name, version) = match kind {
        Kind::Core => ("wordpress".to_owned(), assigned(text, "$wp_version")?),
        Kind::Plugin(slug) => {
            header(text, "Plugin Name")?;
            (format!("wordpress-plugin/{slug}"), header(text, "Version")?)
        }
        Kind::Theme(slug) => {
            header(text, "Theme Name")?;
            (format!("wordpress-theme/{slug}"), header(text, "Version")?)
        }
    };
    let license = match kind {
        Kind::Core => None,
        _ => header(text, "License"),
    };
    Some(FoundPackage {
        licenses: license.map(ToOwned::to_owned).into_iter().collect(),
        confidence: Confidence::Medium,
        ..FoundPackage::new(PackageType::Generic, name, version, path)
    })
}

/// The value of a field of the comment: `* Version: 5.3`.
fn header<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.split(['\n', '\r']).find_map(|line| {
        let line = line.trim_start();
        let line = line.strip_prefix("<?php").unwrap_or(line);
        let line = line.trim_start_matches([' ', '\t', '/', '*', '#', '@']);
        let (field, value) = line.split_once(':')?;
        if !field.eq_ignore_ascii_case(name) {
            return None;
        }
        let value = value.split("*/").next()?.split("?>").next()?.trim();
        (!value.is_empty() && value.len() <= TEXT_BYTES_MAX).then_some(value)
    })
}

/// The text that a variable is set to: `$wp_version = '6.4.2';`.
fn assigned<'a>(text: &'a str, variable: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let value = line.trim().strip_prefix(variable)?.trim_start();
        let value = value.strip_prefix('=')?.trim().strip_suffix(';')?;
        let value = value.trim().trim_matches(['\'', '"']);
        (!value.is_empty() && value.len() <= TEXT_BYTES_MAX).then_some(value)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plugins_and_themes_have_places() {
        let check =
            |path: &str, expected: Option<Kind<'_>>| assert_eq!(kind(path), expected, "{path}");
        check("var/www/html/wp-includes/version.php", Some(Kind::Core));
        check("wp-includes/version.php", Some(Kind::Core));
        check("var/www/my-wp-includes/version.php", None);
        check(
            "srv/wp-content/plugins/akismet/akismet.php",
            Some(Kind::Plugin("akismet")),
        );
        check("wp-content/plugins/hello.php", Some(Kind::Plugin("hello")));
        check("wp-content/mu-plugins/load.php", Some(Kind::Plugin("load")));
        check("wp-content/plugins/akismet/views/notice.php", None);
        check(
            "wp-content/themes/twenty/style.css",
            Some(Kind::Theme("twenty")),
        );
        check("wp-content/themes/twenty/css/style.css", None);
        check("wp-content/themes/style.css", None);
    }

    #[test]
    fn headers_are_read_as_wordpress_reads_them() {
        let text = "<?php /* Plugin Name: One */\n * version :1\n\t * Version:  2.0 */ x\n";
        assert_eq!(header(text, "Plugin Name"), Some("One"));
        assert_eq!(header(text, "Version"), Some("2.0"));
        assert_eq!(header(text, "License"), None);
        let long = |length: usize| format!("Version: {}", "1".repeat(length));
        assert!(header(&long(TEXT_BYTES_MAX), "Version").is_some());
        assert!(header(&long(TEXT_BYTES_MAX + 1), "Version").is_none());
    }

    #[test]
    fn a_header_stands_in_the_first_bytes() {
        let read = |before: usize| {
            let header = "/* Plugin Name: One\n * Version: 1 */";
            let bytes = format!("{}{header}", "\n".repeat(before));
            let file = File::of("wp-content/plugins/one/one.php", bytes.as_bytes());
            let mut found = Found::new(1 << 20);
            let wordpress = Wordpress::boxed(&Config::default(), &Limits::default());
            wordpress.analyze(&[file], &mut found).unwrap();
            found.packages.len()
        };
        let header_bytes = usize::try_from(HEADER_BYTES).unwrap();
        assert_eq!(read(header_bytes - 100), 1);
        assert_eq!(read(header_bytes), 0);
    }
}
