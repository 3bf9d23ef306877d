//! Package URLs as documents write them (package-url/purl-spec, "How to parse").

use std::borrow::Cow;

/// Bytes of one; real ones have a few hundred.
pub(super) const BYTES_MAX: usize = 8192;

/// The parts of a package URL.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PackageUrl {
    /// Lower case.
    pub(super) kind: String,
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) version: String,
    qualifiers: Vec<(String, String)>,
}

impl PackageUrl {
    /// `pkg:type/namespace/name@version?key=value#subpath`; `None` for what is none.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if text.len() > BYTES_MAX {
            return None;
        }
        let rest = text.strip_prefix("pkg:")?.trim_start_matches('/');
        let rest = rest.split_once('#').map_or(rest, |(rest, _)| rest);
        let (rest, qualifiers) = rest.split_once('?').unwrap_or((rest, ""));
        let (kind, rest) = rest.split_once('/')?;
        let rest = rest.trim_matches('/');
        let (path, version) = match rest.rsplit_once('@') {
            // `@scope/name` without a version.
            Some((path, version)) if !path.is_empty() && !version.contains('/') => (path, version),
            _ => (rest, ""),
        };
        let (namespace, name) = path.rsplit_once('/').unwrap_or(("", path));
        let qualifiers = qualifiers.split('&').filter_map(|pair| {
            let (key, value) = pair.split_once('=')?;
            Some((key.to_ascii_lowercase(), decoded(value)))
        });
        let name = decoded(name);
        (!kind.is_empty() && !name.is_empty()).then(|| Self {
            kind: kind.to_ascii_lowercase(),
            namespace: decoded(namespace),
            name,
            version: decoded(version),
            qualifiers: qualifiers.collect(),
        })
    }

    /// A qualifier that is not empty.
    pub(super) fn qualifier(&self, key: &str) -> Option<&str> {
        let mut all = self.qualifiers.iter();
        let (_, value) = all.find(|(name, value)| name == key && !value.is_empty())?;
        Some(value)
    }
}

/// `%40` and the like as what they mean.
fn decoded(text: &str) -> String {
    if !text.contains('%') {
        return text.to_owned();
    }
    let mut bytes = Vec::with_capacity(text.len());
    let mut parts = text.split('%');
    bytes.extend(parts.next().unwrap_or_default().bytes());
    for part in parts {
        let digits = part
            .get(..2)
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        if let (Some(byte), Some(rest)) = (digits, part.get(2..)) {
            bytes.push(byte);
            bytes.extend(rest.bytes());
        } else {
            bytes.push(b'%');
            bytes.extend(part.bytes());
        }
    }
    match String::from_utf8_lossy(&bytes) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expected: [&str; 4]) {
        let purl = PackageUrl::parse(text).unwrap();
        let parts = [&purl.kind, &purl.namespace, &purl.name, &purl.version];
        assert_eq!(parts.map(String::as_str), expected, "{text}");
    }

    #[test]
    fn parts_are_taken_apart() {
        check(
            "pkg:deb/debian/libc6@2.36-9%2Bdeb12u4?arch=amd64",
            ["deb", "debian", "libc6", "2.36-9+deb12u4"],
        );
        check(
            "pkg:npm/%40scope/name@1.0.0",
            ["npm", "@scope", "name", "1.0.0"],
        );
        check("pkg:npm/@scope/name", ["npm", "@scope", "name", ""]);
        check(
            "pkg:golang/github.com/a/b@v1.0.0#cmd",
            ["golang", "github.com/a", "b", "v1.0.0"],
        );
        check("pkg:PyPI/x@1%zz", ["pypi", "", "x", "1%zz"]);
        check("pkg://gem/rack@3.0.9", ["gem", "", "rack", "3.0.9"]);
    }

    #[test]
    fn qualifiers_are_found_by_name() {
        let purl =
            PackageUrl::parse("pkg:rpm/a/b@1?Epoch=2&upstream=c%2Bd-1-2.src.rpm&arch=").unwrap();
        assert_eq!(purl.qualifier("epoch"), Some("2"));
        assert_eq!(purl.qualifier("upstream"), Some("c+d-1-2.src.rpm"));
        assert_eq!(purl.qualifier("arch"), None);
    }

    #[test]
    fn what_is_none_is_refused() {
        for text in ["", "pkg:", "pkg:npm", "pkg:npm/", "npm/a@1", "pkg:/a"] {
            assert_eq!(PackageUrl::parse(text), None, "{text}");
        }
        let long = |name: usize| format!("pkg:npm/{}", "a".repeat(name));
        assert!(PackageUrl::parse(&long(BYTES_MAX - 8)).is_some());
        assert!(PackageUrl::parse(&long(BYTES_MAX - 7)).is_none());
    }
}
