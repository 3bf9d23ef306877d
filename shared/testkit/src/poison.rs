//! Images that lie, break or are too much, one per way.

use model::{Digest, GapCode};

use crate::{
    image::{Image, ImageBuilder},
    layer::{Compression, Layer, LayerBuilder, TarEntry},
    samples::{debian_layer, python_layer},
};

const GIB: u64 = 1 << 30;

/// A way in which an image is poisonous. Its last layer carries the poison, on a clean base.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Poison {
    /// The packed layer ends in the middle; its digest is that of what is left.
    Truncated,
    /// The source holds only the first half of the layer that the manifest names.
    ShortBlob,
    /// The source holds other bytes than those with the digest that the manifest names.
    WrongDigest,
    /// The manifest names a larger size.
    WrongSize,
    /// The config names another diffID.
    WrongDiffId,
    /// The config names one layer less.
    MissingDiffId,
    /// 1 GiB of zeros in gzip.
    Bomb,
    /// 1 GiB of zeros in zstd.
    ZstdBomb,
    /// A path that leads out of the root with `..`.
    DotDot,
    /// A path from the root of the file system that leads above it.
    Absolute,
    /// A path with a NUL in it.
    Nul,
    /// A path of 4,000 directories.
    DeepNesting,
    /// A PAX header of 64 MiB.
    HugePax,
    /// Two million empty files.
    EntryFlood,
    /// Bytes that are no tar header in the middle of the archive.
    BrokenTar,
    /// A gzip stream with damaged bytes.
    BrokenGzip,
    /// A media type that nobody knows.
    UnknownMediaType,
    /// A config that is no JSON.
    BrokenConfig,
}

/// The clean image whose diffIDs poison images claim: Debian and two Python packages.
pub fn clean_image() -> Image {
    ImageBuilder::new()
        .layer(debian_layer(), "ADD rootfs.tar.xz / # buildkit")
        .layer(second_layer().build(), "RUN pip install requests==2.19.0")
        .runtime(serde_json::json!({"Cmd": ["python3"]}))
        .build()
}

/// A layer with one file of so many zeros: about a thousandth of it with gzip, less with zstd.
pub fn zeros_layer(count: u64, compression: Compression) -> Layer {
    LayerBuilder::new()
        .compression(compression)
        .zeros("zeros", count)
        .build()
}

fn second_layer() -> LayerBuilder {
    python_layer(&[("requests", "2.19.0"), ("urllib3", "1.23")])
}

// === impl Poison ===

impl Poison {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::Truncated,
        Self::ShortBlob,
        Self::WrongDigest,
        Self::WrongSize,
        Self::WrongDiffId,
        Self::MissingDiffId,
        Self::Bomb,
        Self::ZstdBomb,
        Self::DotDot,
        Self::Absolute,
        Self::Nul,
        Self::DeepNesting,
        Self::HugePax,
        Self::EntryFlood,
        Self::BrokenTar,
        Self::BrokenGzip,
        Self::UnknownMediaType,
        Self::BrokenConfig,
    ];

    /// A name that may stand in a repository.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::ShortBlob => "short-blob",
            Self::WrongDigest => "wrong-digest",
            Self::WrongSize => "wrong-size",
            Self::WrongDiffId => "wrong-diffid",
            Self::MissingDiffId => "missing-diffid",
            Self::Bomb => "bomb",
            Self::ZstdBomb => "zstd-bomb",
            Self::DotDot => "dot-dot",
            Self::Absolute => "absolute",
            Self::Nul => "nul",
            Self::DeepNesting => "deep-nesting",
            Self::HugePax => "huge-pax",
            Self::EntryFlood => "entry-flood",
            Self::BrokenTar => "broken-tar",
            Self::BrokenGzip => "broken-gzip",
            Self::UnknownMediaType => "unknown-media-type",
            Self::BrokenConfig => "broken-config",
        }
    }

    /// The gaps of which a scan must name at least one. Where an image claims the diffIDs of a clean
    /// one, a layer that can be read to its end shows [`GapCode::DiffidMismatch`] as well.
    pub const fn gaps(self) -> &'static [GapCode] {
        match self {
            Self::Truncated => &[GapCode::Truncated],
            Self::ShortBlob => &[
                GapCode::DigestMismatch,
                GapCode::SizeMismatch,
                GapCode::Truncated,
            ],
            Self::WrongDigest => &[GapCode::DigestMismatch],
            Self::WrongSize => &[GapCode::SizeMismatch],
            Self::WrongDiffId => &[GapCode::DiffidMismatch],
            Self::MissingDiffId => &[GapCode::LayerCountMismatch],
            Self::Bomb | Self::ZstdBomb => &[GapCode::LimitRatio, GapCode::LimitUncompressed],
            Self::DotDot | Self::Absolute | Self::Nul => &[GapCode::UnsafePath],
            Self::DeepNesting => &[GapCode::LimitNesting, GapCode::LimitPath],
            Self::HugePax => &[GapCode::LimitPax],
            Self::EntryFlood => &[
                GapCode::LimitEntries,
                GapCode::LimitRatio,
                GapCode::LimitUncompressed,
            ],
            Self::BrokenTar => &[GapCode::BadArchive, GapCode::Truncated],
            Self::BrokenGzip => &[GapCode::BadCompression, GapCode::Truncated],
            // The bytes decide what they are, not what they are called.
            Self::UnknownMediaType => &[GapCode::UnsupportedMediaType, GapCode::BadArchive],
            Self::BrokenConfig => &[GapCode::BadConfig],
        }
    }

    /// The image. The bombs and the flood take seconds to make.
    pub fn image(self) -> Image {
        self.build(None)
    }

    /// The same image, claiming in its config to have the layers of another.
    pub fn image_claiming(self, clean: &Image) -> Image {
        self.build(Some(clean.diff_ids()))
    }

    fn build(self, claimed: Option<Vec<Digest>>) -> Image {
        let base = debian_layer();
        let layer = self.layer();
        let claims = match (self, claimed) {
            (Self::WrongDiffId, None) => Some(vec![base.diff_id, Digest::of(b"something else")]),
            (Self::MissingDiffId, None) => Some(vec![base.diff_id]),
            (Self::MissingDiffId, Some(claimed)) => Some(claimed.into_iter().take(1).collect()),
            (_, claimed) => claimed,
        };
        let mut image = ImageBuilder::new()
            .layer(base, "ADD rootfs.tar.xz / # buildkit")
            .layer(layer, &format!("RUN poison {}", self.name()));
        if let Some(claims) = claims {
            image = image.diff_ids(claims);
        }
        if self == Self::BrokenConfig {
            image = image.raw_config(r#"{"architecture": "amd64", "os": "#);
        }
        image.build()
    }

    fn layer(self) -> Layer {
        let own = |path: &[u8]| {
            let entry = TarEntry {
                path: path.to_vec(),
                ..TarEntry::file("", "evil")
            };
            second_layer().entry(entry).build()
        };
        match self {
            Self::WrongDiffId | Self::MissingDiffId | Self::BrokenConfig => second_layer().build(),
            Self::Truncated => {
                let whole = second_layer().build();
                let half = whole.blob[..whole.blob.len() / 2].to_vec();
                Layer::from_blob(half, whole.diff_id, whole.compression)
            }
            Self::ShortBlob => change(|blob| blob.truncate(blob.len() / 2)),
            Self::WrongDigest => change(|blob| {
                *blob = python_layer(&[("requests", "2.99.0"), ("idna", "3.6")])
                    .build()
                    .blob;
            }),
            Self::WrongSize => {
                let whole = second_layer().build();
                Layer {
                    size: whole.size + 1000,
                    ..whole
                }
            }
            Self::Bomb => zeros_layer(GIB, Compression::Gzip),
            Self::ZstdBomb => zeros_layer(GIB, Compression::Zstd),
            Self::DotDot => own(b"usr/../../../../etc/cron.d/evil"),
            Self::Absolute => own(b"/../../etc/cron.d/evil"),
            Self::Nul => own(b"usr/bin/good\0.evil"),
            Self::DeepNesting => own("d/"
                .repeat(4000)
                .as_bytes()
                .strip_suffix(b"/")
                .expect("one")),
            Self::HugePax => huge_pax(),
            Self::EntryFlood => second_layer().flood(2_000_000).build(),
            Self::BrokenTar => second_layer().raw([0x55; 512 * 3]).build(),
            Self::BrokenGzip => broken_gzip(),
            Self::UnknownMediaType => {
                let media_type = "application/vnd.oci.image.layer.v1.tar+lzip".to_owned();
                // Bytes that no magic number gives away.
                let blob = b"LZIP\x01 is not something that we unpack".repeat(100);
                let layer = Layer::from_blob(blob, Digest::of(b"lzip"), Compression::Plain);
                Layer {
                    media_type: Some(media_type),
                    ..layer
                }
            }
        }
    }
}

/// The second layer with other bytes than its digest says.
fn change(change: impl FnOnce(&mut Vec<u8>)) -> Layer {
    let mut layer = second_layer().build();
    change(&mut layer.blob);
    layer
}

fn huge_pax() -> Layer {
    let pax = vec![("SCHILY.xattr.user.big".to_owned(), vec![b'a'; 64 << 20])];
    second_layer()
        .entry(TarEntry {
            pax,
            ..TarEntry::file("usr/bin/big", "x")
        })
        .build()
}

/// Damaged in the middle of the compressed data; digest and size are those of the damaged bytes.
fn broken_gzip() -> Layer {
    let whole = second_layer().build();
    let mut blob = whole.blob;
    let middle = blob.len() / 2;
    for byte in &mut blob[middle..middle + 16] {
        *byte = 0xff;
    }
    Layer::from_blob(blob, whole.diff_id, whole.compression)
}
