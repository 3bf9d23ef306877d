use std::io::{BufReader, Read};

use proptest::prelude::*;
use tar::{Builder, EntryType, Header as TarHeader};

use super::*;

/// All of an archive: entries with their content, gaps, and the error at the end.
type Found = (Vec<(LayerEntry, Vec<u8>)>, Vec<Gap>, Option<ArchiveError>);

fn walk(bytes: &[u8], limits: &Limits) -> Found {
    // A small, odd buffer, so that every structure is cut somewhere.
    let mut walk = Walk::new(BufReader::with_capacity(97, bytes), limits);
    let (mut entries, mut gaps) = (Vec::new(), Vec::new());
    loop {
        let entry = match walk.next_entry() {
            Ok(Some(Walked::Entry(entry))) => entry,
            Ok(Some(Walked::Unread(entry, gap))) => {
                gaps.push(gap);
                entry
            }
            Ok(Some(Walked::Ignored(gap))) => {
                gaps.push(gap);
                continue;
            }
            Ok(None) => return (entries, gaps, None),
            Err(error) => return (entries, gaps, Some(error)),
        };
        let mut content = Vec::new();
        loop {
            match walk.chunk() {
                Ok(Some(chunk)) => content.extend_from_slice(chunk),
                Ok(None) => break,
                Err(error) => {
                    entries.push((entry, content));
                    return (entries, gaps, Some(error));
                }
            }
        }
        entries.push((entry, content));
    }
}

fn header(kind: u8, name: &[u8], size: u64) -> TarHeader {
    let mut header = TarHeader::new_ustar();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.as_mut_bytes()[156] = kind;
    header.set_mode(0o644);
    header.set_uid(1);
    header.set_gid(2);
    header.set_size(size);
    header.set_cksum();
    header
}

fn entry(kind: u8, name: &[u8], content: &[u8]) -> Vec<u8> {
    let mut bytes = header(kind, name, content.len() as u64).as_bytes().to_vec();
    bytes.extend_from_slice(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn pax(records: &[(&str, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let length = (1..5)
            .map(|digits| rest + digits)
            .find(|n| n.to_string().len() + rest == *n);
        body.extend_from_slice(format!("{} {key}=", length.unwrap()).as_bytes());
        body.extend_from_slice(value);
        body.push(b'\n');
    }
    entry(b'x', b"pax", &body)
}

fn paths(bytes: &[u8]) -> String {
    let (entries, gaps, error) = walk(bytes, &Limits::default());
    let mut lines: Vec<String> = entries
        .iter()
        .map(|(entry, content)| {
            let link = entry
                .link
                .as_ref()
                .map(|link| format!(" -> {link}"))
                .unwrap_or_default();
            format!(
                "{:?} {}{link} [{}]",
                entry.kind,
                entry.path,
                content.escape_ascii()
            )
        })
        .collect();
    lines.extend(gaps.iter().map(|gap| {
        format!(
            "gap {:?} {}: {}",
            gap.code,
            gap.path.as_deref().unwrap_or("-"),
            gap.detail
        )
    }));
    lines.extend(error.map(|error| format!("error: {error}")));
    lines.join("\n")
}

#[test]
fn every_kind_of_entry_is_labelled() {
    let mut link = header(b'2', b"link", 0);
    link.set_link_name("../target").unwrap();
    link.set_cksum();
    let mut hard = header(b'1', b"hard", 700);
    hard.set_link_name("./a/file").unwrap();
    hard.set_cksum();
    let archive = [
        entry(b'5', b"./", b""),
        entry(b'5', b"a/", b""),
        entry(b'0', b"a/file", b"content"),
        entry(0, b"old/", b""),
        link.as_bytes().to_vec(),
        hard.as_bytes().to_vec(),
        entry(b'3', b"dev/null", b""),
        entry(b'0', b"a/.wh.gone", b""),
        entry(b'0', b".wh.top", b""),
        entry(b'0', b"b/.wh..wh..opq", b""),
        entry(b'0', b".wh..wh..opq", b""),
        entry(b'Z', b"unknown", b"x"),
        vec![0; 1024],
        b"what follows is nobody's".to_vec(),
    ]
    .concat();
    insta::assert_snapshot!(paths(&archive), @r"
    Directory  []
    Directory a []
    File a/file [content]
    Directory old []
    Symlink link -> ../target []
    Hardlink hard -> ./a/file []
    Special dev/null []
    Whiteout a/gone []
    Whiteout top []
    Opaque b []
    Opaque  []
    File unknown [x]
    ");
}

#[test]
fn unsafe_paths_are_ignored_and_the_walk_goes_on() {
    let archive = [
        entry(b'0', b"/", b"1"),
        entry(b'0', b"../up", b"2"),
        entry(b'0', b"/../up", b"2"),
        entry(b'0', b"a/../../up", b"3"),
        entry(b'0', b"", b"4"),
        entry(b'0', b"./", b"5"),
        entry(b'0', b".wh.", b""),
        entry(b'0', b"a/.wh...", b""),
        entry(b'5', b".wh..wh.plnk", b""),
        pax(&[("path", b"a\0b")]),
        entry(b'0', b"x", b"6"),
        entry(b'1', b"hard", b""),
        entry(b'0', b"fine", b"7"),
    ]
    .concat();
    insta::assert_snapshot!(paths(&archive), @r"
    File fine [7]
    gap UnsafePath /: the path is that of the root
    gap UnsafePath ../up: the path has a `..` segment
    gap UnsafePath /../up: the path has a `..` segment
    gap UnsafePath a/../../up: the path has a `..` segment
    gap UnsafePath : the path is empty
    gap UnsafePath ./: the path is that of the root
    gap UnsafePath .wh.: the whiteout names no file
    gap UnsafePath a/.wh...: the whiteout names no file
    gap UnsafePath .wh..wh.plnk: the name is one of AUFS's own books
    gap UnsafePath a�00b: the path has a NUL byte
    gap UnsafePath hard: the link has no usable target
    ");
}

#[test]
fn paths_from_the_root_of_a_file_system_are_below_the_images_root() {
    let archive = [
        entry(b'5', b"/", b""),
        entry(b'5', b"/.", b""),
        entry(b'0', b"/etc/passwd", b"1"),
        entry(b'0', b"/etc/.wh.shadow", b""),
    ]
    .concat();
    insta::assert_snapshot!(paths(&archive), @r"
    Directory  []
    Directory  []
    File etc/passwd [1]
    Whiteout etc/shadow []
    ");
}

#[test]
fn the_last_extended_header_wins_and_gnu_names_win_over_pax() {
    let archive = [
        pax(&[("path", b"first")]),
        pax(&[("path", b"second"), ("size", b"3")]),
        entry(b'0', b"plain", b""),
        b"abc".to_vec(),
        vec![0; 509],
        entry(b'L', b"././@LongLink", b"gnu name\0"),
        pax(&[("path", b"pax name")]),
        entry(b'0', b"plain", b""),
        pax(&[("path", b"forgotten")]),
        entry(b'g', b"global", b"17 path=everyone\n"),
        entry(b'0', b"plain", b"z"),
    ]
    .concat();
    insta::assert_snapshot!(paths(&archive), @r"
    File second [abc]
    File gnu name []
    File plain [z]
    ");
}

/// An old GNU sparse header with places of its map, and the file's size; `more`: a block follows.
fn old_sparse(name: &[u8], map: &[(u64, u64)], size: u64, stored: u64, more: bool) -> TarHeader {
    let mut header = TarHeader::new_gnu();
    header.as_mut_bytes()[..name.len()].copy_from_slice(name);
    header.set_entry_type(EntryType::GNUSparse);
    header.set_size(stored);
    header.set_mode(0o755);
    header.set_uid(0);
    header.set_gid(0);
    header.as_mut_bytes()[386..386 + 24 * map.len()].copy_from_slice(&places(map));
    header.as_mut_bytes()[482] = u8::from(more);
    header.as_mut_bytes()[483..495].copy_from_slice(format!("{size:011o}\0").as_bytes());
    header.set_cksum();
    header
}

fn places(map: &[(u64, u64)]) -> Vec<u8> {
    let places = map
        .iter()
        .map(|(offset, length)| format!("{offset:011o}\0{length:011o}\0"));
    places.collect::<String>().into_bytes()
}

/// Content with its padding.
fn padded(content: &[u8]) -> Vec<u8> {
    let mut content = content.to_vec();
    content.resize(content.len().next_multiple_of(512), 0);
    content
}

#[test]
fn sparse_files_of_every_form_have_zeros_where_their_holes_are() {
    let mut more = places(&[(2000, 2)]);
    more.resize(512, 0);
    let in_content = [padded(b"2\n3\n4\n1020\n1\n"), b"datad".to_vec()].concat();
    let archive = [
        old_sparse(b"old", &[(0, 3), (1000, 3)], 4096, 8, true)
            .as_bytes()
            .to_vec(),
        more,
        padded(b"abcdefgh"),
        pax(&[
            ("GNU.sparse.size", b"10"),
            ("GNU.sparse.numblocks", b"2"),
            ("GNU.sparse.offset", b"1"),
            ("GNU.sparse.numbytes", b"2"),
            ("GNU.sparse.offset", b"8"),
            ("GNU.sparse.numbytes", b"1"),
        ]),
        entry(b'0', b"zero", b"xyz"),
        pax(&[
            ("GNU.sparse.major", b"0"),
            ("GNU.sparse.minor", b"1"),
            ("GNU.sparse.name", b"one"),
            ("GNU.sparse.size", b"9"),
            ("GNU.sparse.map", b"2,3,9,0"),
        ]),
        entry(b'0', b"GNUSparseFile.1/one", b"xyz"),
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"new"),
            ("GNU.sparse.realsize", b"1021"),
        ]),
        entry(b'0', b"GNUSparseFile.1/new", &in_content),
        entry(b'0', b"after", b"y"),
    ]
    .concat();
    let (entries, gaps, error) = walk(&archive, &Limits::default());
    assert!(error.is_none(), "{error:?}");
    assert!(gaps.is_empty(), "{gaps:?}");
    let mut old = vec![0; 4096];
    old[..3].copy_from_slice(b"abc");
    old[1000..1003].copy_from_slice(b"def");
    old[2000..2002].copy_from_slice(b"gh");
    let mut new = vec![0; 1021];
    new[3..7].copy_from_slice(b"data");
    new[1020] = b'd';
    let expected = [
        ("old", old),
        ("zero", b"\0xy\0\0\0\0\0z\0".to_vec()),
        ("one", b"\0\0xyz\0\0\0\0".to_vec()),
        ("new", new),
        ("after", b"y".to_vec()),
    ];
    for ((entry, content), (path, wanted)) in entries.iter().zip(&expected) {
        assert_eq!((&entry.path[..], entry.size), (*path, wanted.len() as u64));
        assert_eq!(content, wanted, "{path}");
    }
    assert_eq!(entries.len(), expected.len());
}

#[test]
fn a_sparse_map_that_lies_is_a_gap_and_nothing_slips() {
    let maps: [&[(u64, u64)]; 5] = [
        &[(0, 7)],
        &[(0, 9)],
        &[(4, 4), (0, 4)],
        &[(0, 4), (2, 4)],
        &[(4090, 8)],
    ];
    for map in maps {
        let archive = [
            old_sparse(b"old", map, 4096, 8, false).as_bytes().to_vec(),
            padded(b"abcdefgh"),
            entry(b'0', b"after", b"y"),
        ]
        .concat();
        let (entries, gaps, error) = walk(&archive, &Limits::default());
        assert!(error.is_none(), "{map:?}: {error:?}");
        let paths: Vec<_> = entries.iter().map(|(entry, _)| &entry.path[..]).collect();
        assert_eq!(paths, ["old", "after"], "{map:?}");
        assert_eq!(gaps.len(), 1, "{map:?}");
        assert_eq!(
            (gaps[0].code, gaps[0].hides),
            (GapCode::BadArchive, Hides::Entries)
        );
    }
    for content in [
        &b"x\n"[..],
        b"1\n0\n",
        b"9999999999999999999999\n",
        b"1\n0\n5\n",
    ] {
        let archive = [
            pax(&[
                ("GNU.sparse.major", b"1"),
                ("GNU.sparse.minor", b"0"),
                ("GNU.sparse.realsize", b"5"),
            ]),
            entry(b'0', b"new", &padded(content)),
            entry(b'0', b"after", b"y"),
        ]
        .concat();
        let (entries, gaps, error) = walk(&archive, &Limits::default());
        assert!(error.is_none(), "{error:?}");
        assert_eq!(
            (entries.len(), gaps.len()),
            (2, 1),
            "{}",
            content.escape_ascii()
        );
    }
}

#[test]
fn holes_cost_nothing_unless_they_are_read_and_then_they_have_a_limit() {
    let size = 1_u64 << 32;
    let archive = [
        old_sparse(b"lastlog", &[], size, 0, false)
            .as_bytes()
            .to_vec(),
        entry(b'0', b"after", b"y"),
    ]
    .concat();
    let limits = Limits {
        uncompressed_bytes_max: 1 << 20,
        ..Limits::default()
    };
    let mut entries = Walk::new(&archive[..], &limits);
    assert!(matches!(entries.next_entry(), Ok(Some(Walked::Entry(entry))) if entry.size == size));
    assert!(
        matches!(entries.next_entry(), Ok(Some(Walked::Entry(entry))) if entry.path == "after")
    );
    let (_, _, error) = walk(&archive, &limits);
    assert!(
        matches!(error, Some(ArchiveError::UncompressedBytes(_))),
        "{error:?}"
    );
}

#[test]
fn capabilities_and_owners_come_from_pax() {
    let archive = [
        pax(&[
            ("SCHILY.xattr.security.capability", b"\x01\0\0\x02"),
            ("uid", b"4000000000"),
            ("linkpath", b"ignored for files"),
        ]),
        entry(b'0', b"ping", b""),
    ]
    .concat();
    let (entries, ..) = walk(&archive, &Limits::default());
    let (entry, _) = &entries[0];
    assert_eq!(entry.capabilities.as_deref(), Some("01000002"));
    assert_eq!(
        (entry.uid, entry.gid, entry.mode),
        (4_000_000_000, 2, 0o644)
    );
    assert_eq!(entry.link, None);
}

#[test]
fn what_stands_before_the_damage_is_delivered() {
    let mut archive = [entry(b'0', b"a", b"1"), entry(b'0', b"b", b"2")].concat();
    archive[512 * 2 + 3] ^= 1;
    insta::assert_snapshot!(paths(&archive), @r"
    File a [1]
    error: the tar archive is damaged: the checksum of a header does not fit
    ");
    let mut archive = entry(b'0', b"a", &[b'x'; 600]);
    archive.truncate(512 + 10);
    insta::assert_snapshot!(paths(&archive), @r"
    File a [xxxxxxxxxx]
    error: the tar archive ends too early
    ");
    let archive = [entry(b'0', b"a", b""), vec![0; 512], entry(b'0', b"b", b"")].concat();
    insta::assert_snapshot!(paths(&archive), @r"
    File a []
    error: the tar archive is damaged: a block of zeros stands between entries
    ");
    insta::assert_snapshot!(paths(b"this is no tar archive"), @"error: the tar archive ends too early");
}

#[test]
fn every_limit_has_its_own_name() {
    let two = [entry(b'0', b"a", b""), entry(b'0', b"b", b"")].concat();
    let limits = Limits {
        entries_max: 1,
        ..Limits::default()
    };
    let (entries, _, error) = walk(&two, &limits);
    assert_eq!(entries.len(), 1);
    assert_eq!(error.unwrap().gap_code(), GapCode::LimitEntries);
    let limits = Limits {
        name_bytes_max: 1,
        ..Limits::default()
    };
    assert_eq!(
        walk(&two, &limits).2.unwrap().gap_code(),
        GapCode::LimitEntries
    );
    let long = [
        pax(&[("path", &[b'x'; 200])]),
        entry(b'0', b"a", b""),
        entry(b'0', b"b", b""),
    ];
    let limits = Limits {
        pax_bytes_max: 100,
        ..Limits::default()
    };
    assert_eq!(
        walk(&long.concat(), &limits).2.unwrap().gap_code(),
        GapCode::LimitPax
    );
    let limits = Limits {
        path_bytes_max: 100,
        ..Limits::default()
    };
    let (entries, gaps, error) = walk(&long.concat(), &limits);
    assert_eq!((entries.len(), error.is_none()), (1, true));
    assert_eq!(gaps[0].code, GapCode::LimitPath);
}

#[derive(Clone, Debug)]
struct Made {
    kind: EntryKind,
    path: String,
    content: Vec<u8>,
}

fn made() -> impl Strategy<Value = Made> {
    let kind = prop_oneof![
        4 => Just(EntryKind::File),
        1 => Just(EntryKind::Directory),
        1 => Just(EntryKind::Symlink),
        1 => Just(EntryKind::Hardlink),
    ];
    // Short names, and long ones that need GNU or PAX headers.
    let path = "[a-c]{1,3}(/[a-cé]{1,9}){0,40}";
    (kind, path, prop::collection::vec(any::<u8>(), 0..1600)).prop_map(|(kind, path, content)| {
        Made {
            kind,
            path,
            content,
        }
    })
}

fn build(entries: &[Made]) -> Vec<u8> {
    let mut builder = Builder::new(Vec::new());
    for entry in entries {
        let mut header = TarHeader::new_gnu();
        header.set_mode(0o755);
        header.set_uid(0);
        header.set_gid(0);
        header.set_size(0);
        match entry.kind {
            EntryKind::Symlink | EntryKind::Hardlink => {
                let symlink = entry.kind == EntryKind::Symlink;
                header.set_entry_type(if symlink {
                    EntryType::Symlink
                } else {
                    EntryType::Link
                });
                let target = format!("{}/target", entry.path);
                builder
                    .append_link(&mut header, &entry.path, &target)
                    .unwrap();
            }
            EntryKind::Directory => {
                header.set_entry_type(EntryType::Directory);
                builder
                    .append_data(&mut header, &entry.path, io::empty())
                    .unwrap();
            }
            _ => {
                header.set_size(entry.content.len() as u64);
                builder
                    .append_data(&mut header, &entry.path, &entry.content[..])
                    .unwrap();
            }
        }
    }
    builder.into_inner().unwrap()
}

proptest! {
    #[test]
    fn another_reader_sees_the_same(entries in prop::collection::vec(made(), 0..8)) {
        let archive = build(&entries);
        let (found, gaps, error) = walk(&archive, &Limits::default());
        prop_assert!(error.is_none() && gaps.is_empty());
        let mut other = Vec::new();
        for entry in tar::Archive::new(&archive[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            let link = entry.link_name().unwrap().map(|link| link.to_str().unwrap().to_owned());
            other.push((entry.path().unwrap().to_str().unwrap().to_owned(), link, content));
        }
        let found: Vec<_> = found
            .into_iter()
            .map(|(entry, content)| (entry.path, entry.link, content))
            .collect();
        prop_assert_eq!(found, other);
    }

    #[test]
    fn damaged_archives_never_panic(
        entries in prop::collection::vec(made(), 1..4),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        fix_sums in any::<bool>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut archive = build(&entries);
        for (at, with) in damage {
            let at = at.index(archive.len());
            archive[at] = with;
            if fix_sums {
                let start = at - at % 512;
                let sum: u32 = archive[start..start + 512]
                    .iter()
                    .enumerate()
                    .map(|(at, byte)| if (148..156).contains(&at) { 32 } else { u32::from(*byte) })
                    .sum();
                archive[start + 148..start + 156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            }
        }
        archive.truncate(cut.index(archive.len()) + 1);
        let limits = Limits { path_bytes_max: 64, pax_bytes_max: 600, ..Limits::default() };
        let (found, ..) = walk(&archive, &limits);
        for (entry, content) in found {
            prop_assert!(content.len() as u64 <= entry.size);
            let unsafe_path = entry.path.starts_with('/') || entry.path.split('/').any(|s| s == "..");
            prop_assert!(!unsafe_path);
        }
    }
}
