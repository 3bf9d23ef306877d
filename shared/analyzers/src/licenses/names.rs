//! Names of single licences, as people and package managers write them.

use std::{collections::HashMap, sync::LazyLock};

/// Characters of a name in a `LicenseRef-`.
const REFERENCE_CHARS_MAX: usize = 64;

/// Names that mean one licence, as [`key`] makes them.
const NAMES: &[(&str, &str)] = &[
    ("0bsd", "0BSD"),
    ("academic free 3.0", "AFL-3.0"),
    ("apache 2", "Apache-2.0"),
    ("apache 2.0", "Apache-2.0"),
    ("apache 2.0 asl", "Apache-2.0"),
    ("apache v2", "Apache-2.0"),
    ("apache v2.0", "Apache-2.0"),
    ("apache2", "Apache-2.0"),
    ("apache2.0", "Apache-2.0"),
    ("apachev2", "Apache-2.0"),
    ("apache 1.1", "Apache-1.1"),
    ("apache 1.0", "Apache-1.0"),
    ("asl 2.0", "Apache-2.0"),
    ("asl 2", "Apache-2.0"),
    ("asl 1.1", "Apache-1.1"),
    ("al2", "Apache-2.0"),
    ("artistic", "Artistic-1.0"),
    ("artistic 1", "Artistic-1.0"),
    ("artistic 1.0", "Artistic-1.0"),
    ("artistic 2", "Artistic-2.0"),
    ("artistic 2.0", "Artistic-2.0"),
    ("artistic v2.0", "Artistic-2.0"),
    ("boost", "BSL-1.0"),
    ("boost 1.0", "BSL-1.0"),
    ("boost 1.0 bsl 1.0", "BSL-1.0"),
    ("bsl 1", "BSL-1.0"),
    ("bsd 2", "BSD-2-Clause"),
    ("bsd 2 clause", "BSD-2-Clause"),
    ("2 clause bsd", "BSD-2-Clause"),
    ("bsd 2clause", "BSD-2-Clause"),
    ("bsd2", "BSD-2-Clause"),
    ("simplified bsd", "BSD-2-Clause"),
    ("freebsd", "BSD-2-Clause"),
    ("bsd 3", "BSD-3-Clause"),
    ("bsd 3 clause", "BSD-3-Clause"),
    ("3 clause bsd", "BSD-3-Clause"),
    ("bsd 3clause", "BSD-3-Clause"),
    ("bsd3", "BSD-3-Clause"),
    ("new bsd", "BSD-3-Clause"),
    ("modified bsd", "BSD-3-Clause"),
    ("revised bsd", "BSD-3-Clause"),
    ("bsd new", "BSD-3-Clause"),
    ("edl 1.0", "BSD-3-Clause"),
    ("eclipse distribution 1.0", "BSD-3-Clause"),
    ("eclipse distribution v1.0", "BSD-3-Clause"),
    ("eclipse distribution v 1.0", "BSD-3-Clause"),
    ("bsd 4 clause", "BSD-4-Clause"),
    ("4 clause bsd", "BSD-4-Clause"),
    ("cc0", "CC0-1.0"),
    ("cc0 1", "CC0-1.0"),
    ("cc0 1.0 universal", "CC0-1.0"),
    (
        "cc0 1.0 universal cc0 1.0 public domain dedication",
        "CC0-1.0",
    ),
    ("cddl 1.0", "CDDL-1.0"),
    ("cddl v1.0", "CDDL-1.0"),
    ("cddl 1.1", "CDDL-1.1"),
    ("common development and distribution 1.0", "CDDL-1.0"),
    ("common development and distribution v1.0", "CDDL-1.0"),
    ("common public 1.0", "CPL-1.0"),
    ("epl 1", "EPL-1.0"),
    ("epl 1.0", "EPL-1.0"),
    ("epl v1.0", "EPL-1.0"),
    ("eclipse public 1.0", "EPL-1.0"),
    ("eclipse public v1.0", "EPL-1.0"),
    ("eclipse public 1.0 epl 1.0", "EPL-1.0"),
    ("epl 2", "EPL-2.0"),
    ("epl 2.0", "EPL-2.0"),
    ("epl v2.0", "EPL-2.0"),
    ("eclipse public 2.0", "EPL-2.0"),
    ("eclipse public v2.0", "EPL-2.0"),
    ("eclipse public v 2.0", "EPL-2.0"),
    ("eclipse public 2.0 epl 2.0", "EPL-2.0"),
    ("expat", "MIT"),
    ("freetype", "FTL"),
    ("isc iscl", "ISC"),
    ("iscl", "ISC"),
    ("mit mit", "MIT"),
    ("mit expat", "MIT"),
    ("expat mit", "MIT"),
    ("mit 0", "MIT-0"),
    ("mit no attribution", "MIT-0"),
    ("mit no attribution mit 0", "MIT-0"),
    ("mpl 1.1", "MPL-1.1"),
    ("mplv1.1", "MPL-1.1"),
    ("mozilla public 1.1", "MPL-1.1"),
    ("mozilla public 1.1 mpl 1.1", "MPL-1.1"),
    ("mpl 2", "MPL-2.0"),
    ("mpl 2.0", "MPL-2.0"),
    ("mpl v2.0", "MPL-2.0"),
    ("mplv2", "MPL-2.0"),
    ("mplv2.0", "MPL-2.0"),
    ("mozilla public 2.0", "MPL-2.0"),
    ("mozilla public v2.0", "MPL-2.0"),
    ("mozilla public 2.0 mpl 2.0", "MPL-2.0"),
    ("ofl 1.1", "OFL-1.1"),
    ("sil ofl 1.1", "OFL-1.1"),
    ("sil open font 1.1", "OFL-1.1"),
    ("sil open font 1.1 ofl 1.1", "OFL-1.1"),
    ("perl", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("perl 5", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("same as perl", "Artistic-1.0-Perl OR GPL-1.0-or-later"),
    ("php 3.01", "PHP-3.01"),
    ("psf", "PSF-2.0"),
    ("psf 2", "PSF-2.0"),
    ("psf 2.0", "PSF-2.0"),
    ("psfl", "PSF-2.0"),
    ("psfv2", "PSF-2.0"),
    ("python foundation", "PSF-2.0"),
    ("unlicense unlicense", "Unlicense"),
    ("university of illinois ncsa open source", "NCSA"),
    ("w3c", "W3C"),
    ("zlib libpng", "Zlib"),
    ("zope public", "ZPL-2.1"),
    ("zpl 2.1", "ZPL-2.1"),
];

/// Pages that hold one licence, by what is in their address.
const PAGES: &[(&str, &str)] = &[
    ("apache.org/licenses/license-2.0", "Apache-2.0"),
    ("opensource.org/licenses/apache-2.0", "Apache-2.0"),
    ("opensource.org/license/apache-2-0", "Apache-2.0"),
    ("opensource.org/licenses/mit", "MIT"),
    ("opensource.org/license/mit", "MIT"),
    ("opensource.org/licenses/bsd-3-clause", "BSD-3-Clause"),
    ("opensource.org/licenses/bsd-2-clause", "BSD-2-Clause"),
    ("eclipse.org/legal/epl-v10", "EPL-1.0"),
    ("eclipse.org/legal/epl-2.0", "EPL-2.0"),
    ("eclipse.org/legal/epl-v20", "EPL-2.0"),
    ("eclipse.org/org/documents/epl-v10", "EPL-1.0"),
    ("eclipse.org/org/documents/epl-2.0", "EPL-2.0"),
    ("eclipse.org/org/documents/edl-v10", "BSD-3-Clause"),
    ("mozilla.org/mpl/2.0", "MPL-2.0"),
    ("creativecommons.org/publicdomain/zero/1.0", "CC0-1.0"),
    ("gnu.org/licenses/old-licenses/lgpl-2.1", "LGPL-2.1-only"),
];

/// Names that texts have in common and that tell nothing apart.
const FILLERS: &[&str] = &[
    "the", "license", "licence", "version", "software", "licensed", "under", "==",
];

/// What GNU's licences are called with.
const GNU_WORDS: &[&str] = &[
    "gnu", "affero", "lesser", "library", "general", "public", "or", "later", "newer", "any",
    "only", "at", "your", "option", "of",
];

static BY_NAME: LazyLock<HashMap<&str, &str>> = LazyLock::new(|| NAMES.iter().copied().collect());

/// Identifiers of the list that are in force, in lower case.
static BY_ID: LazyLock<HashMap<String, &str>> = LazyLock::new(|| {
    let all = spdx::identifiers::LICENSES.iter();
    let ids = all.filter_map(|license| spdx::license_id(license.name));
    let ids = ids.filter(|id| !id.is_deprecated());
    ids.map(|id| (id.name.to_ascii_lowercase(), id.name))
        .collect()
});

static EXCEPTIONS: LazyLock<HashMap<String, &str>> = LazyLock::new(|| {
    let all = spdx::identifiers::EXCEPTIONS.iter();
    let named = all.map(|exception| (exception.name.to_ascii_lowercase(), exception.name));
    let said = [
        ("classpath exception", "Classpath-exception-2.0"),
        ("classpath", "Classpath-exception-2.0"),
        ("gcc runtime library exception", "GCC-exception-3.1"),
        ("gcc-runtime-library-exception", "GCC-exception-3.1"),
        ("libtool exception", "Libtool-exception"),
        ("libtool", "Libtool-exception"),
        ("bison exception", "Bison-exception-2.2"),
        ("font exception", "Font-exception-2.0"),
        ("llvm exception", "LLVM-exception"),
        ("llvm exceptions", "LLVM-exception"),
    ];
    named
        .chain(said.map(|(name, id)| (name.to_owned(), id)))
        .collect()
});

/// The licence or licences that a text names, if it names nothing else.
pub(super) fn known(text: &str) -> Option<String> {
    let text = text.trim();
    if let Some(id) = BY_ID.get(&text.to_ascii_lowercase()) {
        return Some((*id).to_owned());
    }
    // A plus behind an identifier is part of SPDX's language; GNU's licences have names for it.
    let base = text.strip_suffix('+');
    if let Some(id) = base.and_then(|base| BY_ID.get(&base.to_ascii_lowercase()))
        && !id.contains("GPL")
        && !id.contains("GFDL")
    {
        return Some(format!("{id}+"));
    }
    if text.contains("://") || text.contains("www.") {
        let lower = text.to_ascii_lowercase();
        let mut pages = PAGES.iter();
        return pages
            .find(|(page, _)| lower.contains(page))
            .map(|(_, id)| (*id).to_owned());
    }
    let key = key(text);
    BY_NAME
        .get(key.as_str())
        .map(|id| (*id).to_owned())
        .or_else(|| BY_ID.get(&key.replace(' ', "-")).map(|id| (*id).to_owned()))
        .or_else(|| gnu(&key))
}

/// The exception that a text names.
pub(super) fn exception(text: &str) -> Option<&'static str> {
    EXCEPTIONS.get(&text.trim().to_ascii_lowercase()).copied()
}

/// A licence that is on no list, by its name.
pub(super) fn reference(text: &str) -> String {
    let mut name = String::new();
    for c in text.trim().chars() {
        if c.is_ascii_alphanumeric() || c == '.' {
            name.push(c);
        } else if !name.is_empty() && !name.ends_with('-') {
            name.push('-');
        }
        if name.len() >= REFERENCE_CHARS_MAX {
            break;
        }
    }
    let name = name.trim_end_matches('-');
    format!(
        "LicenseRef-{}",
        if name.is_empty() { "unnamed" } else { name }
    )
}

/// Words in lower case, without what stands between them and without [`FILLERS`].
fn key(text: &str) -> String {
    let lower = text.to_ascii_lowercase();
    let is_part = |c: char| c.is_alphanumeric() || matches!(c, '.' | '+' | '>' | '=');
    let words = lower.split(|c: char| !is_part(c));
    let words = words.map(|word| word.trim_end_matches('.'));
    let words = words.filter(|word| !word.is_empty() && !FILLERS.contains(word));
    words.collect::<Vec<_>>().join(" ")
}

/// One of GNU's licences with its version: `gplv2+`, `gnu lesser general public v3 or later lgplv3+`,
/// `gpl >= 2`.
fn gnu(key: &str) -> Option<String> {
    let (mut family, mut version, mut later) = (None, None, false);
    let is_lesser = key.contains("lesser") || key.contains("library");
    for word in key.split(' ') {
        let plain = word.strip_suffix('+').unwrap_or(word);
        later |= word.ends_with('+') || matches!(word, ">=" | "later" | "newer");
        let (name, rest) = ["agpl", "lgpl", "gpl", "gfdl"]
            .iter()
            .find_map(|name| Some((Some(*name), plain.strip_prefix(name)?)))
            .unwrap_or((None, plain));
        let spelled = match word {
            "affero" => Some("agpl"),
            "lesser" | "library" => Some("lgpl"),
            "general" if !is_lesser && !key.contains("affero") => Some("gpl"),
            _ => None,
        };
        if let Some(name) = name.or(spelled) {
            if family.is_some_and(|known| known != name) {
                return None;
            }
            family = Some(name);
        }
        let number = rest.trim_start_matches(">=").trim_start_matches('v');
        later |= rest.starts_with(">=");
        let is_number = number.starts_with(|c: char| c.is_ascii_digit());
        if is_number {
            let number = number.strip_suffix(".0").unwrap_or(number);
            if version.is_some_and(|known| known != number) {
                return None;
            }
            version = Some(number);
        } else if !(number.is_empty() || GNU_WORDS.contains(&word) || word == ">=") {
            return None;
        }
    }
    let version = match version? {
        short @ ("1" | "2" | "3") => format!("{short}.0"),
        long => long.to_owned(),
    };
    let end = if later { "or-later" } else { "only" };
    let id = format!("{}-{version}-{end}", family?.to_ascii_uppercase());
    BY_ID
        .get(&id.to_ascii_lowercase())
        .map(|id| (*id).to_owned())
}
