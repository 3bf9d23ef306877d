//! The text of an image reference, taken apart as Docker does.
//!
//! By hand: the usual regular expression has a tag of up to 128 letters of any script in it, and
//! compiling that takes longer than scanning an image whose layers are known.

use std::borrow::Cow;

/// Bytes of a repository's name.
const REPOSITORY_BYTES_MAX: usize = 255;
const TAG_BYTES_MAX: usize = 128;

const HUB: &str = "docker.io";
const HUB_OF_OLD: &str = "index.docker.io";

/// The parts of a reference. The digest is not looked at yet.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Parts<'a> {
    pub(crate) registry: &'a str,
    pub(crate) repository: Cow<'a, str>,
    pub(crate) tag: Option<&'a str>,
    pub(crate) digest: Option<&'a str>,
}

/// Takes a reference apart; without tag and digest it means `latest`.
pub(crate) fn parse(text: &str) -> Result<Parts<'_>, &'static str> {
    const FORM: &str = "invalid reference format";
    let (rest, digest) = match text.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest)),
        None => (text, None),
    };
    // A colon before the last slash is that of a port.
    let (name, tag) = match rest.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
        _ => (rest, None),
    };
    if name.is_empty() {
        return Err("repository name must have at least one component");
    }
    if !is_name(name) || tag.is_some_and(|tag| !is_tag(tag)) {
        return Err(FORM);
    }
    let (registry, repository) = divide(name);
    if repository.len() > REPOSITORY_BYTES_MAX {
        return Err("repository name must not be more than 255 characters");
    }
    let tag = match (tag, digest) {
        (None, None) => Some("latest"),
        _ => tag,
    };
    Ok(Parts {
        registry,
        repository,
        tag,
        digest,
    })
}

/// A registry is told from the first part of a name by a dot, a port, or being `localhost`.
fn divide(name: &str) -> (&str, Cow<'_, str>) {
    let (registry, repository) = match name.split_once('/') {
        Some((first, rest)) if first.contains(['.', ':']) || first == "localhost" => (first, rest),
        _ => (HUB, name),
    };
    let registry = if registry == HUB_OF_OLD {
        HUB
    } else {
        registry
    };
    if registry == HUB && !repository.contains('/') {
        return (registry, Cow::Owned(format!("library/{repository}")));
    }
    (registry, Cow::Borrowed(repository))
}

fn is_name(name: &str) -> bool {
    let is_path = |path: &str| path.split('/').all(is_component);
    is_path(name)
        || name
            .split_once('/')
            .is_some_and(|(host, path)| is_host(host) && is_path(path))
}

fn is_host(host: &str) -> bool {
    let (host, port) = match host.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (host, None),
    };
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let is_port = |port: &str| !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    host.split('.').all(is_label) && port.is_none_or(is_port)
}

/// Lower-case letters and digits, with `.`, `_`, `__` or hyphens between.
fn is_component(component: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let mut between = component.split(is_plain).filter(|part| !part.is_empty());
    let is_separator =
        |part: &str| matches!(part, "." | "_" | "__") || part.bytes().all(|byte| byte == b'-');
    component.starts_with(is_plain) && component.ends_with(is_plain) && between.all(is_separator)
}

fn is_tag(tag: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let mut bytes = tag.bytes();
    tag.len() <= TAG_BYTES_MAX
        && bytes.next().is_some_and(is_word)
        && bytes.all(|byte| is_word(byte) || matches!(byte, b'.' | b'-'))
}

#[cfg(test)]
mod tests {
    use oci_spec::distribution::Reference;

    use super::*;

    /// Compares with another reader of the same format.
    fn check(text: &str) {
        let theirs: Result<Reference, _> = text.parse();
        let ours = parse(text);
        let (Ok(theirs), Ok(ours)) = (&theirs, &ours) else {
            assert_eq!(theirs.is_ok(), ours.is_ok(), "{text}: {theirs:?} {ours:?}");
            return;
        };
        assert_eq!(theirs.registry(), ours.registry, "{text}");
        assert_eq!(theirs.repository(), ours.repository, "{text}");
        assert_eq!(theirs.tag(), ours.tag, "{text}");
        assert_eq!(theirs.digest(), ours.digest, "{text}");
    }

    const NAMES: &str = "a a/b library/a A/b a/B a.b a..b a._b a_b a__b a___b a-b a----b -a a- .a a. \
        a//b /a a/ a/b/c/d é";
    const HOSTS: &str = "docker.io/ index.docker.io/ localhost/ localhost:5000/ r.example/ R.example/ \
        r.example:443/ r.example:/ r.example:x/ r..example/ -r.example/ r-.example/ r_.example/ \
        127.0.0.1:5000/ [::1]:5000/ host/ host:1/";
    const TAGS: &str = ": :1 :v1.0-rc_1 :A :_a :.a :-a :a/b :a:b";

    #[test]
    fn references_are_read_as_others_read_them() {
        let long = "a".repeat(255);
        let tag = format!(":{}", "t".repeat(128));
        let too_long = format!("{tag}t");
        let digest = format!("@sha256:{}", "0f".repeat(32));
        let tags = TAGS.split(' ').chain(["", &tag, &too_long]);
        let tags: Vec<&str> = tags.collect();
        for host in HOSTS.split_whitespace().chain([""]) {
            for name in NAMES.split_whitespace().chain(["", "a b", &long]) {
                for tag in &tags {
                    check(&format!("{host}{name}{tag}"));
                    check(&format!("{host}{name}{tag}{digest}"));
                }
            }
        }
        check(&format!("{long}a"));
        check(&format!("r.example/{long}a"));
    }
}
