//! A layer, of whatever compression, with every analyzer; and the image that has it.

#![no_main]

use std::sync::OnceLock;

use analyzers_fuzz::{family, image, read};
use libfuzzer_sys::fuzz_target;

static ALL: OnceLock<analyzers::Analyzers> = OnceLock::new();

fuzz_target!(|bytes: &[u8]| {
    let media_type = "application/vnd.oci.image.layer.v1.tar+gzip";
    image(read(bytes, media_type, family(&[], &ALL)));
});
