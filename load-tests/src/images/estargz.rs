//! eStargz (containerd/stargz-snapshotter, `docs/estargz.md`): every file is a gzip member of its
//! own, and the last one lists them.

use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::Path,
};

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use model::{Digest, Hasher};
use serde_json::{Value, json};

const LIST: &str = "stargz.index.json";
const BLOCK: u64 = 512;

/// Members behind each other, and the digest of what they unpack to.
struct Members<W> {
    out: W,
    written: u64,
    plain: Hasher,
}

/// Packs an archive again; gives the digest of the archive that has the list in it.
pub(super) fn write(tar: &Path, out: &Path) -> anyhow::Result<Digest> {
    let mut members = Members {
        out: BufWriter::new(File::create(out)?),
        written: 0,
        plain: Hasher::default(),
    };
    let mut source = BufReader::new(File::open(tar)?);
    let mut list = Vec::new();
    let mut archive = tar::Archive::new(File::open(tar)?);
    let mut at = 0;
    for entry in archive.entries_with_seek()? {
        let entry = entry.context("reading the archive")?;
        let (header, size) = (entry.header(), entry.size());
        let is_file = header.entry_type().is_file();
        let end = entry.raw_file_position() + size.div_ceil(BLOCK) * BLOCK;
        list.push(json!({
            "name": String::from_utf8_lossy(&entry.path_bytes()),
            "type": kind(header),
            "size": size,
            "mode": header.mode()?,
            "offset": members.written,
        }));
        // What stands before the content, long names too, is one member, and the content another.
        let head = entry.raw_file_position() - at;
        members.copy(&mut source, head)?;
        if is_file && size > 0 {
            members.copy(&mut source, end - entry.raw_file_position())?;
        }
        at = if is_file {
            end
        } else {
            entry.raw_file_position()
        };
    }
    let offset = members.written;
    members.add(&listing(&list)?)?;
    members.end(offset)?;
    Ok(members.plain.finish())
}

/// The list as the archive's last entry, and the archive's end.
fn listing(list: &[Value]) -> anyhow::Result<Vec<u8>> {
    let text = serde_json::to_vec(&json!({"version": 1, "entries": list}))?;
    let mut header = tar::Header::new_ustar();
    header.set_path(LIST)?;
    header.set_size(text.len() as u64);
    header.set_mode(0o644);
    header.set_cksum();
    let mut archive = tar::Builder::new(Vec::new());
    archive.append(&header, text.as_slice())?;
    Ok(archive.into_inner()?)
}

fn kind(header: &tar::Header) -> &'static str {
    match header.entry_type() {
        tar::EntryType::Directory => "dir",
        tar::EntryType::Symlink => "symlink",
        tar::EntryType::Link => "hardlink",
        _ => "reg",
    }
}

// === impl Members ===

impl<W: Write> Members<W> {
    fn copy(&mut self, source: &mut impl Read, bytes: u64) -> anyhow::Result<()> {
        let mut content = Vec::new();
        source.take(bytes).read_to_end(&mut content)?;
        anyhow::ensure!(content.len() as u64 == bytes, "the archive is short");
        self.add(&content)
    }

    fn add(&mut self, content: &[u8]) -> anyhow::Result<()> {
        let mut gzip = GzEncoder::new(Vec::new(), Compression::new(6));
        gzip.write_all(content)?;
        self.plain.update(content);
        self.put(&gzip.finish()?)?;
        Ok(())
    }

    /// The footer: an empty member of 51 bytes whose extra field says where the list is.
    fn end(&mut self, offset: u64) -> anyhow::Result<()> {
        let subfield = format!("{offset:016x}STARGZ");
        let mut footer = vec![
            0x1f, 0x8b, 8, 4, 0, 0, 0, 0, 0, 0xff, 26, 0, b'S', b'G', 22, 0,
        ];
        footer.extend_from_slice(subfield.as_bytes());
        // An empty stored block, and the sum and length of nothing.
        footer.extend_from_slice(&[1, 0, 0, 0xff, 0xff]);
        footer.extend_from_slice(&[0; 8]);
        self.put(&footer)?;
        self.out.flush()?;
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}
