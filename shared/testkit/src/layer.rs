//! Layers: tar archives, packed in one of the ways that builders use.

use std::io::{self, Write};

use flate2::{Compression as Level, write::GzEncoder};
use model::{Digest, Hasher};

use crate::tar;

/// How a layer is packed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    Plain,
    /// gzip, one member, as `docker build` does.
    #[default]
    Gzip,
    /// gzip, a new member every so many bytes of the archive, as pigz and eStargz do.
    GzipMembers(usize),
    /// zstd.
    Zstd,
}

/// A layer as an image names it. Every field may be changed into a lie before the image is built.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The bytes that a source holds.
    pub blob: Vec<u8>,
    /// The digest that the manifest names.
    pub digest: Digest,
    /// The size that the manifest names.
    pub size: u64,
    /// The diffID that the config names.
    pub diff_id: Digest,
    /// How it is packed.
    pub compression: Compression,
    /// The media type that the manifest names; by the compression where `None`.
    pub media_type: Option<String>,
}

/// Puts a layer together, entry after entry.
#[derive(Clone, Debug, Default)]
pub struct LayerBuilder {
    parts: Vec<Part>,
    compression: Compression,
    without_end: bool,
}

/// One tar entry, as raw as it gets.
#[derive(Clone, Debug)]
pub struct TarEntry {
    /// The path as it stands in the archive; in a PAX header where it is long or holds a NUL.
    pub path: Vec<u8>,
    /// The link's target.
    pub link: Vec<u8>,
    /// The type flag: `b'0'` file, `b'1'` hard link, `b'2'` symbolic link, `b'5'` directory, …
    pub kind: u8,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Further PAX records, as `SCHILY.xattr.security.capability`.
    pub pax: Vec<(String, Vec<u8>)>,
    pub(crate) content: Content,
}

#[derive(Clone, Debug)]
pub(crate) enum Content {
    Bytes(Vec<u8>),
    Zeros(u64),
}

#[derive(Clone, Debug)]
enum Part {
    Entry(TarEntry),
    Raw(Vec<u8>),
    /// So many empty files.
    Flood(u64),
}

/// Counts and hashes what passes through.
struct Tee<W> {
    inner: W,
    hasher: Hasher,
}

/// gzip in members of a given size.
struct Members {
    out: Vec<u8>,
    open: GzEncoder<Vec<u8>>,
    written: usize,
    size: usize,
}

// === impl Layer ===

impl Layer {
    /// A layer from the bytes of its blob; the diffID must be known.
    pub fn from_blob(blob: Vec<u8>, diff_id: Digest, compression: Compression) -> Self {
        let (digest, size) = (Digest::of(&blob), blob.len() as u64);
        Self {
            blob,
            digest,
            size,
            diff_id,
            compression,
            media_type: None,
        }
    }

    /// The media type as OCI or as Docker writes it.
    pub fn media_type(&self, docker: bool) -> String {
        if let Some(media_type) = &self.media_type {
            return media_type.clone();
        }
        let suffix = match (self.compression, docker) {
            (Compression::Plain, _) => "",
            (Compression::Gzip | Compression::GzipMembers(_), true) => ".gzip",
            (Compression::Gzip | Compression::GzipMembers(_), false) => "+gzip",
            (Compression::Zstd, true) => ".zstd",
            (Compression::Zstd, false) => "+zstd",
        };
        if docker {
            format!("application/vnd.docker.image.rootfs.diff.tar{suffix}")
        } else {
            format!("application/vnd.oci.image.layer.v1.tar{suffix}")
        }
    }
}

// === impl LayerBuilder ===

impl LayerBuilder {
    /// An empty layer, to be packed with gzip.
    pub fn new() -> Self {
        Self::default()
    }

    /// Packs it in another way.
    #[must_use]
    pub fn compression(mut self, compression: Compression) -> Self {
        self.compression = compression;
        self
    }

    /// A directory, mode 0755.
    #[must_use]
    pub fn dir(self, path: &str) -> Self {
        let path = format!("{}/", path.trim_end_matches('/'));
        self.entry(TarEntry {
            kind: b'5',
            mode: 0o755,
            ..TarEntry::file(&path, "")
        })
    }

    /// A file, mode 0644.
    #[must_use]
    pub fn file(self, path: &str, content: impl AsRef<[u8]>) -> Self {
        self.entry(TarEntry::file(path, content))
    }

    /// A file with its mode.
    #[must_use]
    pub fn file_mode(self, path: &str, mode: u32, content: impl AsRef<[u8]>) -> Self {
        self.entry(TarEntry {
            mode,
            ..TarEntry::file(path, content)
        })
    }

    /// A file of so many zeros, which take no memory.
    #[must_use]
    pub fn zeros(self, path: &str, count: u64) -> Self {
        self.entry(TarEntry {
            content: Content::Zeros(count),
            ..TarEntry::file(path, "")
        })
    }

    /// A symbolic link.
    #[must_use]
    pub fn symlink(self, path: &str, target: &str) -> Self {
        let link = target.as_bytes().to_vec();
        self.entry(TarEntry {
            kind: b'2',
            mode: 0o777,
            link,
            ..TarEntry::file(path, "")
        })
    }

    /// A hard link to another path of the layer or of one below.
    #[must_use]
    pub fn hardlink(self, path: &str, target: &str) -> Self {
        let link = target.as_bytes().to_vec();
        self.entry(TarEntry {
            kind: b'1',
            link,
            ..TarEntry::file(path, "")
        })
    }

    /// Removes a path of a lower layer.
    #[must_use]
    pub fn whiteout(self, path: &str) -> Self {
        let marker = match path.rsplit_once('/') {
            Some((folder, name)) => format!("{folder}/.wh.{name}"),
            None => format!(".wh.{path}"),
        };
        self.file(&marker, "")
    }

    /// Hides what lower layers hold in a directory.
    #[must_use]
    pub fn opaque(self, dir: &str) -> Self {
        self.file(&format!("{dir}/.wh..wh..opq"), "")
    }

    /// Any entry.
    #[must_use]
    pub fn entry(mut self, entry: TarEntry) -> Self {
        self.parts.push(Part::Entry(entry));
        self
    }

    /// Bytes as they are, in the middle of the archive.
    #[must_use]
    pub fn raw(mut self, bytes: impl AsRef<[u8]>) -> Self {
        self.parts.push(Part::Raw(bytes.as_ref().to_vec()));
        self
    }

    /// So many empty files `flood/0`, `flood/1`, …
    #[must_use]
    pub fn flood(mut self, count: u64) -> Self {
        self.parts.push(Part::Flood(count));
        self
    }

    /// Leaves out the blocks of zeros at the end.
    #[must_use]
    pub fn without_end(mut self) -> Self {
        self.without_end = true;
        self
    }

    /// The bytes of the tar archive.
    pub fn tar(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.write(&mut bytes).expect("writing to memory");
        bytes
    }

    /// The layer.
    pub fn build(&self) -> Layer {
        let (blob, diff_id) = match self.compression {
            Compression::Plain => self.pack(Vec::new(), Ok),
            Compression::Gzip => {
                self.pack(GzEncoder::new(Vec::new(), Level::new(6)), GzEncoder::finish)
            }
            Compression::GzipMembers(size) => self.pack(Members::new(size), Members::finish),
            Compression::Zstd => {
                let encoder = zstd::stream::write::Encoder::new(Vec::new(), 3);
                self.pack(
                    encoder.expect("level 3 exists"),
                    zstd::stream::write::Encoder::finish,
                )
            }
        };
        Layer::from_blob(blob, diff_id, self.compression)
    }

    fn pack<W: Write>(
        &self,
        encoder: W,
        finish: impl FnOnce(W) -> io::Result<Vec<u8>>,
    ) -> (Vec<u8>, Digest) {
        let mut tee = Tee {
            inner: encoder,
            hasher: Hasher::default(),
        };
        self.write(&mut tee).expect("writing to memory");
        let blob = finish(tee.inner).expect("writing to memory");
        (blob, tee.hasher.finish())
    }

    fn write(&self, out: &mut impl Write) -> io::Result<()> {
        for part in &self.parts {
            match part {
                Part::Entry(entry) => tar::write_entry(out, entry)?,
                Part::Raw(bytes) => out.write_all(bytes)?,
                Part::Flood(count) => {
                    for number in 0..*count {
                        tar::write_entry(out, &TarEntry::file(&format!("flood/{number}"), ""))?;
                    }
                }
            }
        }
        if self.without_end {
            Ok(())
        } else {
            tar::write_end(out)
        }
    }
}

// === impl TarEntry ===

impl TarEntry {
    /// A file of root's, mode 0644.
    pub fn file(path: &str, content: impl AsRef<[u8]>) -> Self {
        Self {
            path: path.as_bytes().to_vec(),
            link: Vec::new(),
            kind: b'0',
            mode: 0o644,
            uid: 0,
            gid: 0,
            pax: Vec::new(),
            content: Content::Bytes(content.as_ref().to_vec()),
        }
    }
}

// === impl Content ===

impl Content {
    pub(crate) fn len(&self) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes.len() as u64,
            Self::Zeros(count) => *count,
        }
    }
}

// === impl Tee ===

impl<W: Write> Write for Tee<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let count = self.inner.write(bytes)?;
        self.hasher.update(&bytes[..count]);
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

// === impl Members ===

impl Members {
    fn new(size: usize) -> Self {
        Self {
            out: Vec::new(),
            open: Self::member(),
            written: 0,
            size: size.max(1),
        }
    }

    fn member() -> GzEncoder<Vec<u8>> {
        GzEncoder::new(Vec::new(), Level::new(6))
    }

    fn next(&mut self) -> io::Result<()> {
        let full = std::mem::replace(&mut self.open, Self::member());
        self.out.extend(full.finish()?);
        self.written = 0;
        Ok(())
    }

    fn finish(mut self) -> io::Result<Vec<u8>> {
        self.next()?;
        Ok(self.out)
    }
}

impl Write for Members {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.written == self.size {
            self.next()?;
        }
        let count = bytes.len().min(self.size - self.written);
        self.open.write_all(&bytes[..count])?;
        self.written += count;
        Ok(count)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
