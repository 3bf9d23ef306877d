//! Secrets in archives of an image, and in archives of those.

use std::io::Write as _;

use archive::Limits;
use flate2::{Compression, write::GzEncoder};
use model::{GapCode, Hides, ImageConfig};

use super::{
    super::{
        candidates::{TEXT_BYTES_MAX, is_wanted_member},
        samples::expand,
    },
    image::image,
    planted::layer,
};
use crate::{Archives, Found, PreparedLayer, unpack::Room};

/// How many members are handed on, and what was unpacked for that.
fn look(path: &str, bytes: &[u8], room: u64) -> (usize, u64, Vec<GapCode>) {
    let limits = Limits::default();
    let archives = Archives::new(&limits, Hides::Secrets, TEXT_BYTES_MAX, is_wanted_member);
    let (mut found, mut texts) = (Found::new(1 << 20), 0);
    let mut count = |_: &str, _: &[u8], _: &mut Found| texts += 1;
    let room = archives.read_within(Room::new(room), (path, bytes), &mut count, &mut found);
    let codes = found.gaps.iter().map(|gap| gap.code).collect();
    (texts, room.taken(), codes)
}

fn tar(files: &[(&str, &[u8])]) -> Vec<u8> {
    let mut builder = tar::Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o644);
        header.set_size(content.len() as u64);
        builder.append_data(&mut header, path, *content).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// A ZIP archive whose members are stored as they are.
fn zip(files: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut out, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in files {
        let at = u32::try_from(out.len()).unwrap().to_le_bytes();
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        let sum = crc32fast::hash(content).to_le_bytes();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        let common = [
            &[20, 0, 0, 0, 0, 0, 0, 0, 0, 0][..],
            &sum,
            &size,
            &size,
            &length,
            &[0, 0],
        ]
        .concat();
        out.extend([b"PK\x03\x04", &common[..], name.as_bytes(), content].concat());
        directory.extend(
            [
                b"PK\x01\x02\x14\x00",
                &common[..],
                &[0; 10],
                &at,
                name.as_bytes(),
            ]
            .concat(),
        );
    }
    let count = u16::try_from(files.len()).unwrap().to_le_bytes();
    let at = u32::try_from(out.len()).unwrap().to_le_bytes();
    let length = u32::try_from(directory.len()).unwrap().to_le_bytes();
    out.extend(directory);
    out.extend(
        [
            b"PK\x05\x06",
            &[0; 4][..],
            &count,
            &count,
            &length,
            &at,
            &[0, 0],
        ]
        .concat(),
    );
    out
}

fn paths(layers: &[PreparedLayer]) -> Vec<(String, bool)> {
    let report = image(layers, &ImageConfig::default());
    let secrets = report.findings.secrets.iter();
    secrets
        .map(|one| (one.path.clone(), one.deleted_later))
        .collect()
}

#[test]
fn archives_are_looked_into_whatever_they_are_packed_in() {
    let secret = expand("token: glpat-{b:20}\n", 1);
    let inner = [
        ("etc/app.conf", secret.as_bytes()),
        ("a.css", secret.as_bytes()),
    ];
    let check = |name: &str, bytes: &[u8], expected: &str| {
        let found = paths(&[layer(&[(name, bytes)])]);
        assert_eq!(found, [(expected.to_owned(), false)], "{name}");
    };
    check("app/a.tar", &tar(&inner), "app/a.tar!/etc/app.conf");
    check("app/a.tgz", &gzip(&tar(&inner)), "app/a.tgz!/etc/app.conf");
    check("app/a.zip", &zip(&inner), "app/a.zip!/etc/app.conf");
    let war = zip(&[(
        "WEB-INF/lib/b.jar",
        &zip(&[("application.properties", secret.as_bytes())]),
    )]);
    check(
        "app/a.war",
        &war,
        "app/a.war!/WEB-INF/lib/b.jar!/application.properties",
    );
    let backup = gzip(&tar(&[("b.zip", &zip(&inner))]));
    check(
        "app/backup.tar.gz",
        &backup,
        "app/backup.tar.gz!/b.zip!/etc/app.conf",
    );
}

#[test]
fn an_archive_that_is_deleted_later_is_marked() {
    let secret = expand("token: glpat-{b:20}\n", 1);
    let archive = zip(&[("a.conf", secret.as_bytes())]);
    let layers = [
        layer(&[("app/a.zip", &archive)]),
        layer(&[("app/.wh.a.zip", b"")]),
    ];
    assert_eq!(paths(&layers), [("app/a.zip!/a.conf".to_owned(), true)]);
}

#[test]
fn depth_and_damage_are_gaps() {
    let secret = expand("token: glpat-{b:20}\n", 1);
    let gaps = |bytes: &[u8]| {
        let report = image(&[layer(&[("app/a.zip", bytes)])], &ImageConfig::default());
        assert_eq!(report.findings.secrets, []);
        let hidden = report
            .gaps
            .into_iter()
            .filter(|gap| gap.hides == Hides::Secrets);
        hidden.map(|gap| gap.code).collect::<Vec<_>>()
    };
    let mut deep = zip(&[("a.conf", secret.as_bytes())]);
    for _ in 0..4 {
        deep = zip(&[("b.zip", &deep)]);
    }
    assert_eq!(gaps(&deep), [GapCode::LimitNesting]);
    assert_eq!(gaps(b"PK\x03\x04 and nothing more"), [GapCode::Malformed]);
    let whole = zip(&[("a.conf", secret.as_bytes())]);
    assert_eq!(gaps(&whole[..whole.len() - 30]), [GapCode::Malformed]);
}

#[test]
fn all_that_an_archive_unpacks_to_takes_of_one_room() {
    let look = |bytes: &[u8], room: u64| look("a.tgz", bytes, room);
    // What nobody wants is unpacked as well; so is what is packed again, on each level.
    let unwanted = vec![0; 100_000];
    let inner = gzip(&tar(&[("a.conf", b"a"), ("b.png", &unwanted)]));
    let outer = tar(&[("b.png", &unwanted), ("b.tgz", &inner), ("c.tgz", &inner)]);
    let inner_bytes = tar(&[("a.conf", b"a"), ("b.png", &unwanted)]).len() as u64;
    let all = outer.len() as u64 + 2 * inner_bytes;
    assert_eq!(look(&gzip(&outer), all), (2, all, vec![]));
    let (texts, taken, codes) = look(&gzip(&outer), all - 1);
    assert_eq!((texts, taken), (2, all - 1));
    assert!(!codes.is_empty() && codes.iter().all(|code| *code == GapCode::LimitUncompressed));
    let stored = zip(&[("b.zip", &zip(&[("a.conf", b"a"), ("b.conf", b"bb")]))]);
    let all = zip(&[("a.conf", b"a"), ("b.conf", b"bb")]).len() as u64 + 3;
    assert_eq!(look(&stored, all), (2, all, vec![]));
    assert_eq!(
        look(&stored, all - 1),
        (1, all - 2, vec![GapCode::LimitUncompressed])
    );
}

#[test]
fn members_that_are_no_text_by_their_name_are_not_unpacked() {
    let texts_and_bytes = |name: &str| {
        let (texts, taken, gaps) = look("a.jar", &zip(&[(name, b"token")]), 1 << 20);
        assert_eq!(gaps, []);
        (texts, taken)
    };
    assert_eq!(texts_and_bytes("org/example/Tide.class"), (0, 0));
    assert_eq!(texts_and_bytes("static/logo.png"), (0, 0));
    assert_eq!(texts_and_bytes("org/example/Tide.java"), (1, 5));
    assert_eq!(texts_and_bytes("tide.conf"), (1, 5));
}

#[test]
fn a_text_that_is_too_large_is_a_gap_and_one_that_is_not_is_read() {
    let secret = expand("token: glpat-{b:20}\n", 1);
    let of_size = |size: usize| {
        let text = [
            vec![b'\n'; size - secret.len()],
            secret.clone().into_bytes(),
        ]
        .concat();
        let report = image(&[layer(&[("app/a.conf", &text)])], &ImageConfig::default());
        let hidden = report.gaps.iter().filter(|gap| gap.hides == Hides::Secrets);
        let codes: Vec<_> = hidden.map(|gap| gap.code).collect();
        (report.findings.secrets.len(), codes)
    };
    assert_eq!(of_size(16 << 20), (1, vec![]));
    assert_eq!(of_size((16 << 20) + 1), (0, vec![GapCode::LimitFile]));
}
