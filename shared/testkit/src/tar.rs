//! A tar writer that writes what it is told, be it a lie.

use std::io::{self, Write};

use crate::layer::{Content, TarEntry};

const BLOCK: usize = 512;

/// Writes an entry: PAX header where one is needed, ustar header, content, padding.
pub(crate) fn write_entry(out: &mut impl Write, entry: &TarEntry) -> io::Result<()> {
    let mut pax = Vec::new();
    // A name that does not fit, or that holds a NUL, can only stand in a PAX header.
    if entry.path.len() > 100 || entry.path.contains(&0) {
        pax_record(&mut pax, "path", &entry.path);
    }
    if entry.link.len() > 100 {
        pax_record(&mut pax, "linkpath", &entry.link);
    }
    for (key, value) in &entry.pax {
        pax_record(&mut pax, key, value);
    }
    if !pax.is_empty() {
        let size = pax.len() as u64;
        out.write_all(&header(b"PaxHeaders/entry", b"", b'x', size, entry))?;
        out.write_all(&pax)?;
        pad(out, size)?;
    }
    let size = entry.content.len();
    out.write_all(&header(&entry.path, &entry.link, entry.kind, size, entry))?;
    match &entry.content {
        Content::Bytes(bytes) => out.write_all(bytes)?,
        Content::Zeros(count) => write_zeros(out, *count)?,
    }
    pad(out, size)
}

/// The header of a file that needs no more than that.
pub(crate) fn head(entry: &TarEntry) -> Vec<u8> {
    header(
        &entry.path,
        &entry.link,
        entry.kind,
        entry.content.len(),
        entry,
    )
    .to_vec()
}

/// Writes the two blocks of zeros at an archive's end.
pub(crate) fn write_end(out: &mut impl Write) -> io::Result<()> {
    out.write_all(&[0; 2 * BLOCK])
}

fn write_zeros(out: &mut impl Write, count: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    let mut left = count;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
        out.write_all(&zeros[..part])?;
        left -= part as u64;
    }
    Ok(())
}

fn pad(out: &mut impl Write, size: u64) -> io::Result<()> {
    let rest = usize::try_from(size % BLOCK as u64).expect("below 512");
    if rest > 0 {
        out.write_all(&[0; BLOCK][rest..])?;
    }
    Ok(())
}

fn header(path: &[u8], link: &[u8], kind: u8, size: u64, entry: &TarEntry) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let cut = |text: &[u8]| text[..text.len().min(100)].to_vec();
    put(&mut header, 0, &cut(path));
    put(
        &mut header,
        100,
        format!("{:07o}", entry.mode & 0o7777).as_bytes(),
    );
    put(
        &mut header,
        108,
        format!("{:07o}", entry.uid & 0o7_777_777).as_bytes(),
    );
    put(
        &mut header,
        116,
        format!("{:07o}", entry.gid & 0o7_777_777).as_bytes(),
    );
    put(&mut header, 124, &octal_size(size));
    put(&mut header, 136, b"00000000000");
    put(&mut header, 156, &[kind]);
    put(&mut header, 157, &cut(link));
    put(&mut header, 257, b"ustar\x0000");
    put(&mut header, 148, b"        ");
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    put(&mut header, 148, format!("{sum:06o}\0 ").as_bytes());
    header
}

/// Sizes from 8 GiB on do not fit in octal digits: base 256, as GNU tar and PAX writers do.
fn octal_size(size: u64) -> Vec<u8> {
    if size < 1 << 33 {
        return format!("{size:011o}").into_bytes();
    }
    let mut bytes = vec![0x80, 0, 0, 0];
    bytes.extend(size.to_be_bytes());
    bytes
}

fn put(header: &mut [u8; BLOCK], at: usize, bytes: &[u8]) {
    header[at..at + bytes.len()].copy_from_slice(bytes);
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
fn pax_record(out: &mut Vec<u8>, key: &str, value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let mut length = rest + 1;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    out.extend(format!("{length} {key}=").bytes());
    out.extend(value);
    out.push(b'\n');
}
