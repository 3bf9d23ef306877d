//! Keys of the view. A zero byte ends each text, so none is the beginning of another; digests
//! stand at the end as 32 bytes.

use std::net::IpAddr;

use jiff::Timestamp;
use model::{Digest, Slug};

const DIGEST_BYTES: usize = 32;
/// Names from advisories and package managers are from outside.
const NAME_CHARS_MAX: usize = 256;

/// A row of the index of names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NameKey {
    /// The key itself: where a page ends.
    pub(crate) key: Vec<u8>,
    /// `registry/repository`.
    pub(crate) repository: String,
    /// The tag; `None` for images named by digest only.
    pub(crate) tag: Option<String>,
    /// The image.
    pub(crate) image: Digest,
}

// === impl NameKey ===

impl NameKey {
    /// Reads what [`name`] wrote.
    pub(super) fn parse(key: Vec<u8>) -> Option<Self> {
        let image = digest_at_end(&key)?;
        let texts = key.get(..key.len().checked_sub(DIGEST_BYTES)?)?;
        let mut texts = texts.split(|byte| *byte == 0).skip(1);
        let mut text = || Some(String::from_utf8_lossy(texts.next()?).into_owned());
        let (repository, tag) = (text()?, text()?);
        Some(Self {
            key,
            repository,
            tag: (!tag.is_empty()).then_some(tag),
            image,
        })
    }
}

/// How names are compared: without regard to case, and never longer than a key should be.
pub(crate) fn folded(name: &str) -> String {
    let fold = |c: char| {
        if c == '\0' {
            ' '
        } else {
            c.to_ascii_uppercase()
        }
    };
    name.chars().take(NAME_CHARS_MAX).map(fold).collect()
}

/// What all keys of a tenant begin with.
pub(crate) fn tenant(tenant: &Slug) -> Vec<u8> {
    joined(&[tenant.as_str()])
}

pub(super) fn image(tenant: &Slug, image: Digest) -> Vec<u8> {
    ending(&[tenant.as_str()], image)
}

/// Reads what [`image`] wrote.
pub(super) fn image_of(key: &[u8]) -> Option<(Slug, Digest)> {
    let tenant = key.split(|byte| *byte == 0).next()?;
    let tenant = std::str::from_utf8(tenant).ok()?.parse().ok()?;
    Some((tenant, digest_at_end(key)?))
}

pub(super) fn name(tenant: &Slug, repository: &str, tag: Option<&str>, image: Digest) -> Vec<u8> {
    ending(
        &[tenant.as_str(), repository, tag.unwrap_or_default()],
        image,
    )
}

pub(super) fn names_of(tenant: &Slug, repository: &str, tag: Option<&str>) -> Vec<u8> {
    joined(&[tenant.as_str(), repository, tag.unwrap_or_default()])
}

pub(super) fn lead(tenant: &Slug, from: Digest, image: Digest) -> Vec<u8> {
    let mut key = ending(&[tenant.as_str()], from);
    key.extend_from_slice(image.as_bytes());
    key
}

/// The key of an image's part of an index.
pub(crate) fn of_image(tenant: &Slug, name: &str, image: Digest) -> Vec<u8> {
    ending(&[tenant.as_str(), name], image)
}

pub(super) fn images_of(tenant: &Slug, name: &str) -> Vec<u8> {
    joined(&[tenant.as_str(), name])
}

pub(super) fn alias(tenant: &Slug, alias: &str, name: &str) -> Vec<u8> {
    let mut key = joined(&[tenant.as_str(), alias]);
    key.extend_from_slice(name.as_bytes());
    key
}

pub(super) fn aliases_of(tenant: &Slug, alias: &str) -> Vec<u8> {
    joined(&[tenant.as_str(), alias])
}

pub(super) fn indexed(tenant: &Slug, image: Digest, family: &str) -> Vec<u8> {
    let mut key = ending(&[tenant.as_str()], image);
    key.extend_from_slice(family.as_bytes());
    key
}

/// Of a node, and what the keys of its containers begin with.
pub(super) fn node(tenant: &Slug, node: &Slug) -> Vec<u8> {
    joined(&[tenant.as_str(), node.as_str()])
}

/// Reads what [`node`] wrote.
pub(super) fn node_of(key: &[u8]) -> Option<(Slug, Slug)> {
    let mut texts = key.split(|byte| *byte == 0);
    let mut slug = || -> Option<Slug> { std::str::from_utf8(texts.next()?).ok()?.parse().ok() };
    Some((slug()?, slug()?))
}

pub(crate) fn container(tenant: &Slug, node: &Slug, id: &str) -> Vec<u8> {
    joined(&[tenant.as_str(), node.as_str(), id])
}

/// Leads from an id to its node; without the last zero it is the beginning of all ids that begin so.
pub(super) fn container_id(tenant: &Slug, id: &str, node: &Slug) -> Vec<u8> {
    joined(&[tenant.as_str(), id, node.as_str()])
}

pub(super) fn container_ids_of(tenant: &Slug, beginning: &str) -> Vec<u8> {
    let mut key = joined(&[tenant.as_str()]);
    key.extend_from_slice(beginning.as_bytes());
    key
}

/// Of what holds an image: a container of a node, or the node's disk where `id` is empty.
pub(super) fn holder(tenant: &Slug, image: Digest, node: &Slug, id: &str) -> Vec<u8> {
    let mut key = ending(&[tenant.as_str()], image);
    key.extend(joined(&[node.as_str(), id]));
    key
}

/// Of a container that runs under a name.
pub(super) fn running(tenant: &Slug, name: &str, node: &Slug, id: &str) -> Vec<u8> {
    joined(&[tenant.as_str(), name, node.as_str(), id])
}

/// What the keys of all that runs under a name begin with.
pub(crate) fn running_of(tenant: &Slug, name: &str) -> Vec<u8> {
    joined(&[tenant.as_str(), name])
}

/// The first key after all that runs under a name.
pub(super) fn after_running(tenant: &Slug, name: &str) -> Vec<u8> {
    let mut key = running_of(tenant, name);
    key.pop();
    key.push(1);
    key
}

/// Of a container that has an address; without node and id it is the beginning of all that have it.
pub(super) fn address(tenant: &Slug, address: IpAddr, node: &Slug, id: &str) -> Vec<u8> {
    joined(&[tenant.as_str(), &address.to_string(), node.as_str(), id])
}

pub(super) fn address_of(tenant: &Slug, address: IpAddr) -> Vec<u8> {
    joined(&[tenant.as_str(), &address.to_string()])
}

pub(super) fn address_at(tenant: &Slug, address: IpAddr, node: &Slug) -> Vec<u8> {
    joined(&[tenant.as_str(), &address.to_string(), node.as_str()])
}

/// Node and container of what [`holder`] or [`address`] wrote.
pub(super) fn holder_of<'a>(key: &'a [u8], prefix: &[u8]) -> Option<(Slug, &'a str)> {
    let mut texts = key.strip_prefix(prefix)?.split(|byte| *byte == 0);
    let mut text = || std::str::from_utf8(texts.next()?).ok();
    Some((text()?.parse().ok()?, text()?))
}

/// Of what has a place in an order.
pub(super) fn row(tenant: &Slug, id: &str) -> Vec<u8> {
    joined(&[tenant.as_str(), id])
}

/// The place itself: what happened last is first.
pub(super) fn order(tenant: &Slug, at: Timestamp, id: &str) -> Vec<u8> {
    dated(joined(&[tenant.as_str()]), at, id)
}

/// The place among what happened to one container.
pub(super) fn place((tenant, node): (&Slug, &Slug), of: &str, at: Timestamp, id: &str) -> Vec<u8> {
    dated(container(tenant, node, of), at, id)
}

/// The id of what [`place`] wrote.
pub(super) fn id_of_place<'a>(key: &'a [u8], prefix: &[u8]) -> Option<&'a str> {
    let dated = key.strip_prefix(prefix)?;
    std::str::from_utf8(dated.get(size_of::<u64>()..)?).ok()
}

fn dated(mut key: Vec<u8>, at: Timestamp, id: &str) -> Vec<u8> {
    // Microseconds of all times that there are fit, and none is below zero here.
    let since = i128::from(at.as_microsecond()) - i128::from(i64::MIN);
    let until = u64::MAX - u64::try_from(since).unwrap_or(u64::MAX);
    key.extend_from_slice(&until.to_be_bytes());
    key.extend_from_slice(id.as_bytes());
    key
}

/// The id of what [`order`] wrote.
pub(super) fn id_of_order(key: &[u8]) -> Option<&str> {
    let zero = key.iter().position(|byte| *byte == 0)?;
    let id = key.get(zero.checked_add(1 + size_of::<u64>())?..)?;
    std::str::from_utf8(id).ok()
}

/// The first key after this one.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

pub(super) fn digest_at_end(key: &[u8]) -> Option<Digest> {
    key.last_chunk::<DIGEST_BYTES>()
        .map(|bytes| Digest::from_bytes(*bytes))
}

fn joined(texts: &[&str]) -> Vec<u8> {
    let mut key = Vec::with_capacity(64);
    for text in texts {
        key.extend_from_slice(text.as_bytes());
        key.push(0);
    }
    key
}

fn ending(texts: &[&str], digest: Digest) -> Vec<u8> {
    let mut key = joined(texts);
    key.extend_from_slice(digest.as_bytes());
    key
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn name_keys_round_trip(repository in "[a-z./:]{1,40}", tag in "[a-z0-9.]{0,20}", seed: u64) {
            let image = Digest::of(&seed.to_be_bytes());
            let tag = (!tag.is_empty()).then_some(tag);
            let slug = Slug::default_tenant();
            let key = name(&slug, &repository, tag.as_deref(), image);
            let parsed = NameKey::parse(key.clone()).unwrap();
            prop_assert_eq!(parsed, NameKey { key, repository, tag, image });
        }
    }

    #[test]
    fn a_repository_is_not_the_beginning_of_another() {
        let slug = Slug::default_tenant();
        let key = name(&slug, "r/app-two", None, Digest::of(b"x"));
        assert!(!key.starts_with(&names_of(&slug, "r/app", None)));
    }

    #[test]
    fn what_happened_last_is_first() {
        let slug = Slug::default_tenant();
        let at = |second| Timestamp::from_second(second).unwrap();
        let mut ordered = [-5, 0, 7, 1_800_000_000].map(|n| order(&slug, at(n), "i1"));
        let newest_first: Vec<_> = ordered.iter().rev().cloned().collect();
        ordered.sort();
        assert_eq!(ordered.to_vec(), newest_first);
        assert_eq!(id_of_order(&ordered[0]), Some("i1"));
    }

    #[test]
    fn names_are_folded_and_bounded() {
        assert_eq!(folded("ghsa-abcd\0"), "GHSA-ABCD ");
        assert_eq!(folded(&"x".repeat(1000)).len(), 256);
    }
}
