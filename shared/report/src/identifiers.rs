//! Package URLs of images, and digests, as bills of materials name them.

use std::fmt::Write as _;

use model::{Digest, ImageRef};

/// Algorithm and value of a digest that every format knows, written as we write it; `None` for others.
pub(crate) fn digest(text: &str) -> Option<(&str, &str)> {
    let (algorithm, content) = text.split_once(':')?;
    let digits = match algorithm {
        "md5" => 32,
        "sha1" => 40,
        "sha256" => 64,
        "sha384" => 96,
        "sha512" => 128,
        _ => return None,
    };
    let is_hex = content.len() == digits && content.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hex.then_some((algorithm, content))
}

/// `pkg:oci/app@sha256%3A…?arch=amd64&repository_url=registry.example%2Fteam%2Fapp&tag=1.0`; only
/// what a registry has.
pub(crate) fn oci_purl(
    reference: &str,
    digest: Option<Digest>,
    arch: Option<&str>,
) -> Option<String> {
    let (reference, digest) = (reference.parse::<ImageRef>().ok()?, digest?);
    let name = reference.repository.rsplit('/').next()?;
    let mut purl = format!("pkg:oci/{name}@sha256%3A{}?", digest.hex());
    if let Some(arch) = arch {
        let _written = write!(purl, "arch={}&", percent(arch));
    }
    let _written = write!(purl, "repository_url={}", percent(&reference.name()));
    if let Some(tag) = &reference.tag {
        let _written = write!(purl, "&tag={}", percent(tag));
    }
    Some(purl)
}

fn percent(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                encoded.push(char::from(byte));
            }
            _ => write!(encoded, "%{byte:02X}").expect("writing to a String cannot fail"),
        }
        encoded
    })
}

/// A UUID of version 8 (RFC 9562), which is for those who make it of content in their own way.
pub(crate) fn uuid(content: &Digest) -> String {
    let mut bytes = [0; 16];
    let from = content.as_bytes().iter();
    bytes
        .iter_mut()
        .zip(from)
        .for_each(|(to, from)| *to = *from);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = model::hex(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|digits| &hex[digits]);
    parts.join("-")
}
