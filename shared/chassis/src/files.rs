//! Reading files with a limit.

use std::{fs::File, io, io::Read as _, path::Path};

/// Reads a file of at most `bytes_max` bytes; a larger one is an error, not cut off.
pub fn read_bounded(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(bytes_max.saturating_add(1))
        .read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max {
        let text = format!("`{}` has more than {bytes_max} bytes", path.display());
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, text));
    }
    Ok(bytes)
}

/// Reads a text file of at most `bytes_max` bytes; one that is not UTF-8 is an error.
pub fn read_text_bounded(path: &Path, bytes_max: u64) -> io::Result<String> {
    String::from_utf8(read_bounded(path, bytes_max)?).map_err(|error| {
        let text = format!(
            "`{}` is not UTF-8 text: {}",
            path.display(),
            error.utf8_error()
        );
        io::Error::new(io::ErrorKind::InvalidData, text)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_at_the_limit_is_read_and_a_larger_one_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, b"12345").unwrap();
        assert_eq!(read_bounded(&path, 5).unwrap(), b"12345");
        let error = read_bounded(&path, 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::FileTooLarge);
        std::fs::write(&path, b"\xff").unwrap();
        assert!(read_text_bounded(&path, 5).is_err());
        assert!(read_bounded(&folder.path().join("none"), 5).is_err());
    }
}
