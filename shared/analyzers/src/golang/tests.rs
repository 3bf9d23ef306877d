use super::*;

/// Where the programs of these tests have their build information, in the file and in memory.
const AT: usize = 0x400;
const ADDRESS: u64 = 0x1_0000_0400;

#[test]
fn a_replaced_module_is_the_one_that_was_built_in() {
    let modules = "path\texample.org/a\nmod\texample.org/a\t(devel)\t\n\
                   dep\texample.org/b\tv1.0.0\th1:x=\n\
                   =>\texample.org/fork\tv1.0.1\th1:y=\n\
                   dep\texample.org/c\tv0.0.0\n=>\t./staging/c\t\t\nbuild\t-compiler=gc\n";
    let info = BuildInfo {
        toolchain: "devel go1.26-abc Mon".to_owned(),
        modules: modules.to_owned(),
    };
    let mut found = Found::new(1 << 20);
    info.read("bin/a", &mut found);
    let packages = found.packages.iter();
    let packages: Vec<_> = packages
        .map(|one| format!("{} {} {:?}", one.name, one.version, one.confidence))
        .collect();
    assert_eq!(
        packages,
        [
            "example.org/a (devel) High",
            "example.org/fork v1.0.1 High",
            "example.org/c v0.0.0 Medium",
            "stdlib go1.26-abc High",
        ]
    );
}

#[test]
fn a_program_without_modules_has_its_name_and_a_gap() {
    let check = |modules: &str, name: Option<&str>, gaps: usize| {
        let info = BuildInfo {
            toolchain: "go1.19.8".to_owned(),
            modules: modules.to_owned(),
        };
        let mut found = Found::new(1 << 20);
        info.read("bin/a", &mut found);
        let packages = found.packages.iter();
        let packages: Vec<_> = packages
            .map(|one| (&*one.name, &*one.version, one.confidence))
            .collect();
        let own = name.map(|name| (name, "(devel)", Confidence::Medium));
        let all: Vec<_> = own
            .into_iter()
            .chain([("stdlib", "go1.19.8", Confidence::High)])
            .collect();
        assert_eq!(packages, all, "{modules:?}");
        assert_eq!(found.gaps.len(), gaps, "{modules:?}");
    };
    let built = "build\t-trimpath=true\n";
    check(
        &format!("path\texample.org/a\n{built}"),
        Some("example.org/a"),
        1,
    );
    check("path\tcmd/compile\n", None, 0);
    check("path\tcommand-line-arguments\n", None, 1);
    check("path\t_/srv/a\n", None, 1);
    check("path\t\n", None, 1);
    check(built, None, 1);
    check("", None, 1);
}

#[test]
fn a_program_with_modules_has_its_module_and_not_its_package() {
    let info = BuildInfo {
        toolchain: "go1.25.1".to_owned(),
        modules: "path\texample.org/a/cmd/a\nmod\texample.org/a\tv1.0.0\n".to_owned(),
    };
    let mut found = Found::new(1 << 20);
    info.read("bin/a", &mut found);
    let names: Vec<_> = found.packages.iter().map(|one| &*one.name).collect();
    assert_eq!(names, ["example.org/a", "stdlib"]);
    assert!(found.gaps.is_empty());
}

#[test]
fn a_version_that_go_does_not_state_is_what_the_build_states() {
    let check = |own: &str, flags: &str, expected: (&str, Confidence)| {
        let info = BuildInfo {
            toolchain: "go1.22.1".to_owned(),
            modules: format!("path\texample.org/a/cmd/a\n{own}build\t-ldflags=\"{flags}\"\n"),
        };
        let mut found = Found::new(1 << 20);
        info.read("bin/a", &mut found);
        let own = &found.packages[0];
        assert_eq!((&*own.version, own.confidence), expected, "{own:?}");
    };
    let (stated, high) = ("-s -X main.version=1.2.3", Confidence::High);
    let (medium, low) = (Confidence::Medium, Confidence::Low);
    let untagged = "v0.0.0-20240601000000-daa7c04131f5";
    let of = |version: &str| format!("mod\texample.org/a\t{version}\t\n");
    check(&of("(devel)"), stated, ("v1.2.3", medium));
    check(&of("(devel)"), "-s", ("(devel)", high));
    check(&of(untagged), stated, ("v1.2.3", medium));
    check(&of(untagged), "-s", (untagged, low));
    check(&of("v1.0.0"), stated, ("v1.0.0", high));
    // Built without modules.
    check("", stated, ("v1.2.3", medium));
    check("", "-s", ("(devel)", medium));
}

#[test]
fn a_list_stands_between_marks() {
    let marked = [&[1; 16][..], b"path\ta\n", &[2; 16]].concat();
    assert_eq!(unmarked(&marked), b"path\ta\n");
    assert_eq!(unmarked(b"short"), b"");
    assert_eq!(unmarked(&[7; 40]), b"");
}

/// Build information as Go writes it since 1.18.
fn information() -> Vec<u8> {
    let modules = "path\texample.org/a\nmod\texample.org/a\tv1.0.0\th1:x=\n";
    let marked = [&[1; MARK_BYTES][..], modules.as_bytes(), &[2; MARK_BYTES]].concat();
    let mut bytes = [MAGIC, &[8, 2], &[0; 16]].concat();
    for text in [b"go1.25.1", &marked[..]] {
        bytes.push(u8::try_from(text.len()).unwrap());
        bytes.extend_from_slice(text);
    }
    bytes
}

/// A program of these heads, with build information.
fn program(head: &[u8]) -> Vec<u8> {
    let mut bytes = head.to_vec();
    bytes.resize(AT, 0);
    bytes.extend(information());
    bytes.resize(20 << 10, 0);
    bytes
}

fn name<const N: usize>(text: &str) -> [u8; N] {
    let mut name = [0; N];
    name[..text.len()].copy_from_slice(text.as_bytes());
    name
}

/// For macOS: a head, and a segment with one section (`mach-o/loader.h`).
fn mach_o() -> Vec<u8> {
    let mut head = Vec::new();
    let words = |words: &[u32], head: &mut Vec<u8>| {
        head.extend(words.iter().flat_map(|word| word.to_le_bytes()));
    };
    let length = u64::try_from(information().len()).unwrap();
    words(&[0xfeed_facf, 0x0100_0007, 3, 2, 1, 152, 0, 0], &mut head);
    words(&[0x19, 152], &mut head);
    head.extend(name::<16>("__DATA"));
    for number in [ADDRESS, length, AT as u64, length] {
        head.extend(number.to_le_bytes());
    }
    words(&[3, 3, 1, 0], &mut head);
    head.extend(name::<16>("__go_buildinfo"));
    head.extend(name::<16>("__DATA"));
    head.extend(ADDRESS.to_le_bytes());
    head.extend(length.to_le_bytes());
    words(
        &[u32::try_from(AT).unwrap(), 4, 0, 0, 0, 0, 0, 0],
        &mut head,
    );
    program(&head)
}

/// For Windows: an old head, a new one, and one section (Microsoft, "PE Format").
fn pe() -> Vec<u8> {
    let mut head = vec![0; 0x40 + 24 + 240 + 40];
    let mut put = |at: usize, bytes: &[u8]| head[at..at + bytes.len()].copy_from_slice(bytes);
    put(0, b"MZ");
    put(0x3c, &0x40_u32.to_le_bytes());
    put(0x40, b"PE\0\0\x64\x86\x01\0");
    put(0x40 + 20, &[240, 0, 0x22, 0]);
    let optional = 0x40 + 24;
    put(optional, &[0x0b, 0x02]);
    put(optional + 24, &0x1_0000_0000_u64.to_le_bytes());
    put(optional + 108, &[16]);
    let section = optional + 240;
    put(section, &name::<8>(".data"));
    let length = u32::try_from(information().len()).unwrap();
    let at = u32::try_from(AT).unwrap();
    for (place, number) in [(8, length), (12, 0x400), (16, length), (20, at)] {
        put(section + place, &number.to_le_bytes());
    }
    program(&head)
}

fn modules(bytes: &[u8]) -> Vec<String> {
    let file = File::of("bin/a", bytes);
    let entry = Entry::from(&*file.entry);
    assert!(Golang::is_wanted(&entry, &bytes[..1024]));
    let mut found = Found::new(1 << 20);
    Golang::read(&file, &mut found).unwrap();
    let packages = found.packages.iter();
    packages
        .map(|one| format!("{} {}", one.name, one.version))
        .collect()
}

#[test]
fn programs_for_other_systems_have_the_same_information() {
    let expected = ["example.org/a v1.0.0", "stdlib go1.25.1"];
    assert_eq!(modules(&mach_o()), expected);
    assert_eq!(modules(&pe()), expected);
}
