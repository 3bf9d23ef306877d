//! What records come in: zips, compressed tars, and files that are compressed by themselves.

use std::io::{self, BufRead, BufReader, Read, Seek, SeekFrom};

use anyhow::Context as _;
use archive::{Inflate, Walk, Walked};
use bzip2::bufread::MultiBzDecoder;
use model::EntryKind;
use zip::ZipArchive;

use super::{Budget, Visit, is_record};

/// The first bytes of a zip with and without files.
const ZIP: [&[u8]; 2] = [b"PK\x03\x04", b"PK\x05\x06"];
/// The first bytes of what a tar may be compressed with: gzip, zstd, bzip2.
const COMPRESSED: [&[u8]; 3] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", BZIP2];
const BZIP2: &[u8] = b"BZh";

/// Whether bytes begin as a zip of records does, or a compressed tar of them.
pub(crate) fn is_packed(bytes: &[u8]) -> bool {
    let mut starts = ZIP.iter().chain(&COMPRESSED);
    starts.any(|start| bytes.starts_with(start))
}

/// Calls `visit` with each record of a zip or a compressed tar.
pub(super) fn records(
    mut reader: impl Read + Seek,
    budget: &mut Budget,
    visit: Visit<'_>,
) -> anyhow::Result<()> {
    let mut start = [0; 4];
    let read = read_up_to(&mut reader, &mut start)?;
    reader.seek(SeekFrom::Start(0))?;
    let start = start.get(..read).unwrap_or_default();
    if COMPRESSED.iter().any(|magic| start.starts_with(magic)) {
        return tar_records(BufReader::new(reader), budget, visit);
    }
    zip_records(reader, budget, visit)
}

/// Inflates a file, if it is compressed at all.
pub(crate) fn inflate(bytes: &[u8], bytes_max: u64) -> anyhow::Result<Vec<u8>> {
    let mut plain = Vec::new();
    let mut inflated = inflated(bytes, bytes_max)?;
    // One byte more than allowed tells what is too large from what just fits.
    inflated
        .by_ref()
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut plain)?;
    anyhow::ensure!(
        plain.len() as u64 <= bytes_max,
        "it has more than {bytes_max} bytes"
    );
    Ok(plain)
}

/// What a compressed stream holds, up to somewhat more than a limit; one that is not compressed as it
/// is.
fn inflated<'a>(
    mut source: impl BufRead + 'a,
    bytes_max: u64,
) -> anyhow::Result<Box<dyn BufRead + 'a>> {
    if source.fill_buf()?.starts_with(BZIP2) {
        let plain = MultiBzDecoder::new(source).take(bytes_max.saturating_add(1));
        return Ok(Box::new(BufReader::new(plain)));
    }
    let limits = archive::Limits {
        uncompressed_bytes_max: bytes_max,
        // Documents that are generated repeat themselves.
        ratio_max: 2_000,
        ..archive::Limits::default()
    };
    Ok(Box::new(BufReader::new(Inflate::open(source, &limits)?)))
}

fn tar_records(source: impl BufRead, budget: &mut Budget, visit: Visit<'_>) -> anyhow::Result<()> {
    // Headers and padding beside the records.
    let most = budget.bytes.saturating_mul(2);
    let inflated = inflated(source, most)?;
    let mut walk = Walk::new(inflated, &archive::Limits::default());
    let mut bytes = Vec::new();
    while let Some(walked) = walk.next_entry().context("it is not a tar of records")? {
        let Walked::Entry(entry) = walked else {
            continue;
        };
        if entry.kind != EntryKind::File || !is_record(&entry.path) {
            continue;
        }
        bytes.clear();
        while let Some(chunk) = walk.chunk()? {
            // One byte more than allowed: the parser refuses a record that is too large.
            let left = (budget.file_bytes_max + 1).saturating_sub(bytes.len() as u64);
            let taken = chunk.len().min(usize::try_from(left).unwrap_or(usize::MAX));
            bytes.extend_from_slice(chunk.get(..taken).unwrap_or_default());
        }
        budget.spend(bytes.len())?;
        visit(&entry.path, &bytes);
    }
    Ok(())
}

fn zip_records(
    reader: impl Read + Seek,
    budget: &mut Budget,
    visit: Visit<'_>,
) -> anyhow::Result<()> {
    let mut archive = ZipArchive::new(reader).context("it is not a zip")?;
    let mut bytes = Vec::new();
    for index in 0..archive.len() {
        let entry = archive.by_index(index)?;
        let name = String::from_utf8_lossy(entry.name_raw()).into_owned();
        if !entry.is_file() || !is_record(&name) {
            continue;
        }
        bytes.clear();
        // One byte more than allowed: the parser refuses a record that is too large, and says so.
        entry
            .take(budget.file_bytes_max + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("reading `{}`", name.escape_debug()))?;
        budget.spend(bytes.len())?;
        visit(&name, &bytes);
    }
    Ok(())
}

fn read_up_to(reader: &mut impl Read, out: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while let Some(rest) = out.get_mut(filled..).filter(|rest| !rest.is_empty()) {
        match reader.read(rest)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}
