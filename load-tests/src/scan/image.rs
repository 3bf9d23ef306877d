//! What is read: a layout's first image, or one layer.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use archive::{Inflate, Limits};

use crate::layout;

/// An image on this machine.
#[derive(Clone, Debug)]
pub(super) struct Image {
    pub(super) path: PathBuf,
    /// The layout, if it is one.
    pub(super) layout: Option<PathBuf>,
    /// The files of its layers.
    pub(super) layers: Vec<PathBuf>,
    pub(super) packing: Packing,
    pub(super) compressed_bytes: u64,
    pub(super) uncompressed_bytes: u64,
}

/// How its first layer is compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Packing {
    Gzip,
    Zstd,
    Plain,
}

// === impl Image ===

impl Image {
    /// Looks at it; reads every layer once, so that none comes from the disk later.
    pub(super) fn find(path: &Path) -> anyhow::Result<Self> {
        let is_layout = path.is_dir();
        let layers = if is_layout {
            layout::layer_files(path)?
        } else {
            vec![path.to_owned()]
        };
        let first = layers.first().context("the image has no layers")?;
        let packing = packing(first)?;
        let (mut compressed_bytes, mut uncompressed_bytes) = (0, 0);
        for layer in &layers {
            compressed_bytes += layer.metadata()?.len();
            uncompressed_bytes += unpacked(layer)?;
        }
        Ok(Self {
            path: path.to_owned(),
            layout: is_layout.then(|| path.to_owned()),
            layers,
            packing,
            compressed_bytes,
            uncompressed_bytes,
        })
    }
}

fn packing(file: &Path) -> anyhow::Result<Packing> {
    let mut head = Vec::new();
    let opened = File::open(file).with_context(|| format!("opening `{}`", file.display()))?;
    opened.take(4).read_to_end(&mut head)?;
    Ok(match head.as_slice() {
        [0x1f, 0x8b, ..] => Packing::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Packing::Zstd,
        _ => Packing::Plain,
    })
}

/// How many bytes a layer has, or how many we are willing to read of it.
fn unpacked(file: &Path) -> anyhow::Result<u64> {
    let mut inflate = Inflate::open(File::open(file)?, &Limits::default())?;
    let mut buffer = vec![0; 1 << 18];
    while inflate.fill(&mut buffer).is_ok_and(|read| read > 0) {}
    Ok(inflate.uncompressed_bytes())
}
