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

#[test]
fn sparse_files_are_listed_with_a_gap_and_nothing_slips() {
    let mut old = TarHeader::new_gnu();
    old.as_mut_bytes()[..3].copy_from_slice(b"old");
    old.set_entry_type(EntryType::GNUSparse);
    old.set_size(600);
    old.set_mode(0o755);
    old.set_uid(0);
    old.set_gid(0);
    old.as_mut_bytes()[482] = 1;
    old.as_mut_bytes()[483..495].copy_from_slice(b"00000010000\0");
    old.set_cksum();
    let mut map = vec![0; 512];
    map[504] = 1;
    let archive = [
        old.as_bytes().to_vec(),
        map,
        vec![0; 512],
        vec![b'x'; 600],
        vec![0; 424],
        pax(&[
            ("GNU.sparse.major", b"1"),
            ("GNU.sparse.minor", b"0"),
            ("GNU.sparse.name", b"new"),
            ("GNU.sparse.realsize", b"99999"),
        ]),
        entry(b'0', b"GNUSparseFile.1/new", b"1\n0\n4\ndata"),
        entry(b'0', b"after", b"y"),
    ]
    .concat();
    let (entries, gaps, error) = walk(&archive, &Limits::default());
    assert!(error.is_none());
    let sizes: Vec<_> = entries
        .iter()
        .map(|(entry, _)| (&entry.path[..], entry.size))
        .collect();
    assert_eq!(sizes, [("old", 4096), ("new", 99999), ("after", 1)]);
    assert_eq!(gaps.len(), 2);
    assert!(gaps.iter().all(|gap| gap.hides == Hides::Entries));
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
