//! What fuzz targets call that nobody else can: readers of single documents and answers.

use model::{Digest, ImageRef};

use crate::{Limits, config, manifest::Document, registry};

const TYPES: &[Option<&str>] = &[
    None,
    Some("application/vnd.oci.image.index.v1+json"),
    Some("application/vnd.oci.image.manifest.v1+json"),
    Some("application/vnd.docker.distribution.manifest.list.v2+json"),
    Some("application/vnd.docker.distribution.manifest.v2+json"),
];

/// Reads it as a manifest or an index of each type, as a config, and as a reference.
pub fn document(bytes: &[u8]) {
    let limits = Limits::default();
    for content_type in TYPES {
        let document = Document::parse(bytes, *content_type, Digest::of(bytes), &limits);
        if let Ok(Document::Image(image)) = document {
            assert!(image.manifest.layers.len() <= limits.layers_max);
        }
    }
    let (_config, _gaps) = config::parse(bytes, &limits);
    if let Ok(reference) = String::from_utf8_lossy(bytes).parse::<ImageRef>() {
        let again: Result<ImageRef, _> = reference.to_string().parse();
        assert_eq!(again.ok(), Some(reference));
    }
}

/// Reads its first line as a header of a registry's answer, and the rest as the answer's body.
pub fn answer(bytes: &[u8]) {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (head, body) = bytes.split_at(end.unwrap_or(bytes.len()));
    registry::fuzz::answer(head, body);
}
