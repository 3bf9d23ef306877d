use std::io::Write as _;

use super::*;

/// An archive of stored members.
pub(crate) fn archive(members: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut bytes, mut directory) = (Vec::new(), Vec::new());
    for (name, content) in members {
        let at = u32::try_from(bytes.len()).unwrap();
        let size = u32::try_from(content.len()).unwrap().to_le_bytes();
        let length = u16::try_from(name.len()).unwrap().to_le_bytes();
        bytes.write_all(b"PK\x03\x04").unwrap();
        bytes.write_all(&[0; 14]).unwrap();
        for part in [&size[..], &size, &length, &[0, 0], name.as_bytes(), content] {
            bytes.write_all(part).unwrap();
        }
        directory.write_all(b"PK\x01\x02").unwrap();
        directory.write_all(&[0; 16]).unwrap();
        for part in [
            &size[..],
            &size,
            &length,
            &[0; 12],
            &at.to_le_bytes(),
            name.as_bytes(),
        ] {
            directory.write_all(part).unwrap();
        }
    }
    let at = u32::try_from(bytes.len()).unwrap().to_le_bytes();
    let length = u32::try_from(directory.len()).unwrap().to_le_bytes();
    bytes.append(&mut directory);
    bytes.write_all(b"PK\x05\x06").unwrap();
    for part in [&[0; 8][..], &length, &at, &[0, 0]] {
        bytes.write_all(part).unwrap();
    }
    bytes
}

fn look(bytes: Vec<u8>, name: &str, room: u64) -> (Vec<String>, Vec<Gap>) {
    let mut found = Found::new(1 << 20);
    let mut look = Look {
        path: name,
        depth_max: DEPTH_MAX,
        room: Room::new(room),
        found: &mut found,
    };
    look.archive(&mut Cursor::new(bytes), name, None).unwrap();
    let packages = found.packages.iter().map(|package| {
        let within = package.within.as_deref().unwrap_or("-");
        format!(
            "{} {} {within} {:?}",
            package.name, package.version, package.confidence
        )
    });
    (packages.collect(), found.gaps)
}

fn properties(group: &str, artifact: &str, version: &str) -> Vec<u8> {
    let text = format!("#Generated\ngroupId={group}\nartifactId={artifact}\nversion={version}\n");
    text.into_bytes()
}

#[test]
fn an_archive_carries_others() {
    let pom = properties("org.example", "tide", "1.2");
    let inner = archive(&[("META-INF/maven/org.example/tide/pom.properties", &pom)]);
    let war = archive(&[("WEB-INF/lib/tide-1.2.jar", &inner)]);
    let script = [b"#!/bin/sh\nexec java -jar $0\n", &war[..]].concat();
    for bytes in [war, script] {
        let (packages, gaps) = look(bytes, "app/shop-3.1.war", u64::MAX);
        assert_eq!(
            packages,
            [
                "shop 3.1 - Low",
                "org.example:tide 1.2 WEB-INF/lib/tide-1.2.jar High"
            ]
        );
        assert!(gaps.is_empty());
    }
}

#[test]
fn depth_and_bytes_of_inner_archives_are_limited() {
    let mut bytes = archive(&[]);
    for _ in 0..=DEPTH_MAX {
        bytes = archive(&[("a-1.jar", &bytes)]);
    }
    let (packages, gaps) = look(bytes.clone(), "a-1.jar", u64::MAX);
    assert_eq!(packages.len(), 1 + DEPTH_MAX as usize);
    assert_eq!(
        gaps.iter().map(|gap| gap.code).collect::<Vec<_>>(),
        [GapCode::LimitNesting]
    );
    let (packages, gaps) = look(bytes, "a-1.jar", 10);
    assert_eq!(
        (packages.len(), gaps[0].code),
        (1, GapCode::LimitUncompressed)
    );
}

#[test]
fn what_is_unpacked_of_one_file_is_limited() {
    // The same member again and again, as an archive may name it.
    let pom = properties("org.example", "tide", "1.2");
    let members: Vec<String> = (0..3)
        .map(|at| format!("{MAVEN}{at}{PROPERTIES}"))
        .collect();
    let members: Vec<(&str, &[u8])> = members.iter().map(|of| (of.as_str(), &pom[..])).collect();
    let bytes = archive(&members);
    let all = 3 * pom.len() as u64;
    assert_eq!(look(bytes.clone(), "tide-1.2.jar", all).0.len(), 3);
    let mut found = Found::new(1 << 20);
    let mut short = Look {
        path: "tide-1.2.jar",
        depth_max: DEPTH_MAX,
        room: Room::new(all - 1),
        found: &mut found,
    };
    let looked = short.archive(&mut Cursor::new(bytes), "tide-1.2.jar", None);
    assert_eq!(looked.unwrap_err().gap_code(), GapCode::LimitUncompressed);
}

/// An archive of one member, deflated, that says it has ten bytes.
fn lying(name: &str, content: &[u8]) -> Vec<u8> {
    let mut packed = flate2::write::DeflateEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(content).unwrap();
    let mut bytes = archive(&[(name, &packed.finish().unwrap())]);
    let directory = memchr::memmem::find(&bytes, b"PK\x01\x02").unwrap();
    bytes[8] = 8;
    bytes[directory + 10] = 8;
    bytes[directory + 24..directory + 28].copy_from_slice(&10_u32.to_le_bytes());
    bytes
}

#[test]
fn what_a_lying_member_is_unpacked_to_takes_room() {
    let mut source = Cursor::new(lying("lib/a-1.jar", &vec![0; 5000]));
    let members = zip::members(&mut source, &|_| true).unwrap();
    let mut read = |bytes_max: u64, room: u64| {
        let mut room = Room::new(room);
        let read = members[0].read(&mut source, bytes_max, &mut room);
        let read = read.map(|bytes| bytes.len());
        (read.map_err(|error| error.gap_code()), room.taken())
    };
    assert_eq!(read(5000, 5000), (Ok(5000), 5000));
    assert_eq!(read(4999, 9000), (Err(GapCode::LimitFile), 5000));
    assert_eq!(read(5000, 4999), (Err(GapCode::LimitUncompressed), 4999));
    assert_eq!(read(5000, 9), (Err(GapCode::LimitUncompressed), 0));
}

#[test]
fn a_damaged_inner_archive_does_not_hide_the_next() {
    let good = archive(&[]);
    let bytes = archive(&[("lib/bad-1.jar", b"no archive"), ("lib/good-2.jar", &good)]);
    let (packages, gaps) = look(bytes, "a-1.ear", u64::MAX);
    assert_eq!(packages, ["a 1 - Low", "good 2 lib/good-2.jar Low"]);
    assert_eq!(gaps.len(), 1);
    assert!(gaps[0].detail.contains("lib/bad-1.jar"));
}

#[test]
fn names_say_artifact_and_version() {
    let check = |name, artifact, version| {
        let found = of_name(name);
        assert_eq!(
            (found.artifact.as_str(), found.version.as_str()),
            (artifact, version),
            "{name}"
        );
    };
    check("lib/log4j-core-2.14.1.jar", "log4j-core", "2.14.1");
    check("guava-31.0-jre.jar", "guava", "31.0-jre");
    check("log4j-1.2-api-2.14.jar", "log4j-1.2-api", "2.14");
    check(
        "tide-1.0-20260101.120000-7.jar",
        "tide",
        "1.0-20260101.120000-7",
    );
    check("tide-1.0-harbor.jar", "tide", "1.0-harbor");
    check("app.jar", "app", "");
    check("-1.jar", "", "1");
}

#[test]
fn manifests_add_to_what_the_name_says() {
    let check = |manifest: &str, name: &str, expected: Option<(&str, &str, Confidence)>| {
        let (identity, confidence) = of_manifest(&main_section(manifest), &of_name(name));
        let found = identity.map(|one| {
            let group = one
                .group
                .map(|group| format!("{group}:"))
                .unwrap_or_default();
            (format!("{group}{}", one.artifact), one.version, confidence)
        });
        let expected =
            expected.map(|(name, version, sure)| (name.to_owned(), version.to_owned(), sure));
        assert_eq!(found, expected, "{manifest} {name}");
    };
    let full = "Manifest-Version: 1.0\r\nImplementation-Vendor-Id: org.ex\r\n ample\r\nImplementation-Version: 4.5\r\n\r\nName: x\r\nImplementation-Version: 9\r\n";
    check(
        full,
        "tide.jar",
        Some(("org.example:tide", "4.5", Confidence::Medium)),
    );
    check(
        full,
        "tide-4.6.jar",
        Some(("org.example:tide", "4.6", Confidence::Low)),
    );
    let bundle = "Bundle-SymbolicName: org.example.tide;singleton:=true\nBundle-Version: 2.0\n";
    check(
        bundle,
        "tide.jar",
        Some(("org.example:tide", "2.0", Confidence::Medium)),
    );
    check("Implementation-Version: ${v}\n", "tide.jar", None);
    check("", "tide.jar", None);
}
