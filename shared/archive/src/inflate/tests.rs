use std::io::Write as _;

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(bytes, 1).unwrap()
}

fn pack(format: Format, bytes: &[u8]) -> Vec<u8> {
    match format {
        Format::Plain => bytes.to_vec(),
        Format::Gzip => gzip(bytes),
        Format::Zstd => zstd(bytes),
    }
}

/// A source that gives few bytes at a time.
struct Drip<'a>(&'a [u8], usize);

impl Read for Drip<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = buffer.len().min(self.1);
        self.0.read(&mut buffer[..length])
    }
}

fn unpack(source: impl Read, limits: &Limits) -> (Vec<u8>, Option<ArchiveError>) {
    let mut bytes = Vec::new();
    let mut inflate = match Inflate::open(source, limits) {
        Ok(inflate) => inflate,
        Err(error) => return (bytes, Some(error)),
    };
    let mut buffer = vec![0; 1000];
    loop {
        match inflate.fill(&mut buffer) {
            Ok(0) => return (bytes, None),
            Ok(length) => bytes.extend_from_slice(&buffer[..length]),
            Err(error) => return (bytes, Some(error)),
        }
    }
}

fn code(packed: &[u8], limits: &Limits) -> Option<model::GapCode> {
    unpack(packed, limits).1.map(|error| error.gap_code())
}

#[test]
fn empty_input_is_an_empty_plain_stream() {
    let (bytes, error) = unpack(&b""[..], &Limits::default());
    assert!(bytes.is_empty() && error.is_none());
}

#[test]
fn media_types_are_compared_with_the_bytes() {
    let packed = gzip(b"x");
    let inflate = Inflate::open(&packed[..], &Limits::default()).unwrap();
    assert!(
        inflate
            .check("application/vnd.oci.image.layer.v1.tar+gzip")
            .is_ok()
    );
    assert!(inflate.check("application/octet-stream").is_ok());
    let error = inflate
        .check("application/vnd.oci.image.layer.v1.tar+zstd")
        .unwrap_err();
    insta::assert_snapshot!(error, @"media type `application/vnd.oci.image.layer.v1.tar+zstd` promises other bytes than the gzip ones that came");
    assert_eq!(error.gap().hides, model::Hides::Nothing);
}

#[test]
fn a_cut_stream_is_truncated_after_what_it_held() {
    let content: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    for format in [Format::Gzip, Format::Zstd] {
        let packed = pack(format, &content);
        let cut = &packed[..packed.len() - 5];
        let (bytes, error) = unpack(cut, &Limits::default());
        assert!(matches!(error, Some(ArchiveError::TruncatedStream(found)) if found == format));
        assert!(content.starts_with(&bytes) && bytes.len() > content.len() / 2);
    }
}

#[test]
fn a_damaged_stream_is_named_as_such() {
    let mut packed = gzip(&[7; 1000]);
    let crc = packed.len() - 6;
    packed[crc] ^= 1;
    assert_eq!(
        code(&packed, &Limits::default()),
        Some(model::GapCode::BadCompression)
    );
    let mut trailing = gzip(b"x");
    trailing.extend_from_slice(b"garbage");
    let (bytes, error) = unpack(&trailing[..], &Limits::default());
    assert_eq!(bytes, b"x");
    assert!(matches!(
        error,
        Some(ArchiveError::BadStream(Format::Gzip, _))
    ));
    let mut packed = zstd(&[7; 1000]);
    packed[5] ^= 0xff;
    assert!(unpack(&packed[..], &Limits::default()).1.is_some());
}

#[test]
fn other_compressions_are_refused_by_name() {
    let unsupported = Some(model::GapCode::UnsupportedMediaType);
    assert_eq!(code(b"BZh91AY&SY", &Limits::default()), unsupported);
    assert_eq!(code(b"\xfd7zXZ\0....", &Limits::default()), unsupported);
}

#[test]
fn every_limit_has_its_own_name() {
    let limits = Limits {
        uncompressed_bytes_max: 10_000,
        ..Limits::default()
    };
    for format in [Format::Plain, Format::Gzip, Format::Zstd] {
        let packed = pack(format, &vec![0; 20_000]);
        let (bytes, error) = unpack(&packed[..], &limits);
        assert!(
            matches!(error, Some(ArchiveError::UncompressedBytes(10_000))),
            "{format}"
        );
        assert!(bytes.len() >= 10_000 && bytes.len() <= 11_000);
    }
    let limits = Limits {
        ratio_free_bytes: 10_000,
        ratio_max: 50,
        ..Limits::default()
    };
    assert_eq!(
        code(&gzip(&vec![0; 1_000_000]), &limits),
        Some(model::GapCode::LimitRatio)
    );
    assert_eq!(code(&gzip(&[0; 9_000]), &limits), None);
    let limits = Limits {
        compressed_bytes_max: 100,
        ..Limits::default()
    };
    assert_eq!(
        code(&[b'x'; 101], &limits),
        Some(model::GapCode::LimitCompressed)
    );
    assert_eq!(code(&[b'x'; 100], &limits), None);
}

#[test]
fn a_zstd_window_beyond_the_limit_is_refused() {
    let mut encoder = zstd::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(22).unwrap();
    encoder.include_contentsize(false).unwrap();
    encoder.write_all(&vec![1; 9 << 20]).unwrap();
    let packed = encoder.finish().unwrap();
    let limits = Limits {
        zstd_window_log_max: 20,
        ..Limits::default()
    };
    assert!(matches!(
        unpack(&packed[..], &limits).1,
        Some(ArchiveError::Window(20))
    ));
    assert!(unpack(&packed[..], &Limits::default()).1.is_none());
}

#[test]
fn a_failing_source_says_nothing_about_the_content() {
    struct Broken;
    impl Read for Broken {
        fn read(&mut self, _: &mut [u8]) -> io::Result<usize> {
            Err(io::ErrorKind::ConnectionReset.into())
        }
    }
    let packed = gzip(b"hello");
    let (_, error) = unpack(packed[..packed.len() - 1].chain(Broken), &Limits::default());
    assert!(error.unwrap().is_transient());
}

proptest! {
    #[test]
    fn members_and_frames_are_one_stream(
        parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..3000), 1..5),
        drip in 1_usize..4000,
        format in prop_oneof![Just(Format::Gzip), Just(Format::Zstd)],
    ) {
        let packed: Vec<u8> = parts.iter().flat_map(|part| pack(format, part)).collect();
        let (bytes, error) = unpack(Drip(&packed, drip), &Limits::default());
        prop_assert!(error.is_none(), "{:?}", error);
        prop_assert_eq!(bytes, parts.concat());
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        mut head in prop_oneof![
            Just(vec![0x1f, 0x8b, 8, 0]),
            Just(vec![0x28, 0xb5, 0x2f, 0xfd]),
            Just(vec![0x50, 0x2a, 0x4d, 0x18]),
            Just(Vec::new()),
        ],
        tail in prop::collection::vec(any::<u8>(), 0..2000),
    ) {
        head.extend(tail);
        let limits = Limits { uncompressed_bytes_max: 1 << 20, ..Limits::default() };
        let _ = unpack(&head[..], &limits);
    }

    #[test]
    fn mutated_streams_never_panic(
        content in prop::collection::vec(any::<u8>(), 0..2000),
        format in prop_oneof![Just(Format::Gzip), Just(Format::Zstd)],
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let mut packed = pack(format, &content);
        let at = at.index(packed.len());
        packed[at] = with;
        let limits = Limits { uncompressed_bytes_max: 1 << 20, ..Limits::default() };
        let _ = unpack(&packed[..], &limits);
    }
}
