//! What the targets share: the same bytes under every name that a family of parsers reads, as a layer.

use std::sync::OnceLock;

use analyzers::{Analyzers, Config, LayerBlob, LayerRead, Subject, coalesce, read_layer};
use archive::Limits;
use model::{Digest, ImageConfig, ImageReport, Platform};

/// Bytes of a block of a tar archive.
const BLOCK_BYTES: usize = 512;

/// Limits that end soon.
pub fn limits() -> Limits {
    Limits {
        entries_max: 10_000,
        name_bytes_max: 1 << 20,
        file_memory_bytes_max: 4 << 20,
        file_bytes_max: 16 << 20,
        held_bytes_max: 32 << 20,
        spill_bytes_max: 32 << 20,
        result_bytes_max: 4 << 20,
        uncompressed_bytes_max: 64 << 20,
        ratio_free_bytes: 8 << 20,
        zstd_window_log_max: 20,
        ..Limits::default()
    }
}

/// The analyzers of a family, made once. With none of these names: all of them.
pub fn family(names: &[&str], cell: &'static OnceLock<Analyzers>) -> &'static Analyzers {
    cell.get_or_init(|| {
        let all = Analyzers::of_directory(&Config::default(), &limits());
        let ids = all.ids().into_iter();
        let of_family = ids.filter(|id| names.is_empty() || names.contains(&id.name.as_str()));
        let of_family: Vec<_> = of_family.collect();
        assert!(of_family.len() >= names.len(), "{names:?}");
        all.subset(&of_family)
    })
}

/// A tar archive in which each of these paths has the same content.
pub fn archive(paths: &[&str], content: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for path in paths {
        let mut head = [0; BLOCK_BYTES];
        let mut put = |at: usize, text: &[u8]| head[at..at + text.len()].copy_from_slice(text);
        put(0, path.as_bytes());
        put(100, b"0000755");
        put(124, format!("{:011o}", content.len()).as_bytes());
        put(156, b"0");
        put(257, b"ustar\0");
        put(263, b"00");
        put(148, b"        ");
        let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
        head[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        bytes.extend_from_slice(&head);
        bytes.extend_from_slice(content);
        bytes.resize(bytes.len().next_multiple_of(BLOCK_BYTES), 0);
    }
    bytes.resize(bytes.len() + 2 * BLOCK_BYTES, 0);
    bytes
}

/// Reads a layer, and checks what has to hold of every one.
pub fn read(blob: &[u8], media_type: &str, analyzers: &Analyzers) -> LayerRead {
    let expected = LayerBlob {
        digest: Digest::of(blob),
        size: blob.len() as u64,
        media_type: media_type.to_owned(),
    };
    let read = read_layer(blob, &expected, analyzers, &limits(), None);
    let most = limits().gaps_max + 1;
    for section in &read.report.sections {
        assert!(section.gaps.len() <= most);
    }
    read
}

/// The image of which this is the only layer.
pub fn image(read: LayerRead) -> ImageReport {
    let digest = Digest::of(b"image");
    let subject = Subject {
        image: digest,
        reference: "fuzz".to_owned(),
        index_digest: None,
        manifest_digest: None,
        image_id: digest,
        platform: Platform::default(),
        layer_sizes: vec![1],
    };
    coalesce(&[read.report], &ImageConfig::default(), subject, &limits())
}

/// Reads the same content under every path, and puts together the image that has it.
pub fn read_as(paths: &[&str], content: &[u8], analyzers: &Analyzers) {
    let blob = archive(paths, content);
    let read = read(&blob, "application/vnd.oci.image.layer.v1.tar", analyzers);
    assert!(read.complete, "{:?}", read.report.transient_gaps);
    image(read);
}
