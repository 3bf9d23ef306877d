//! Version orders: vectors, laws, and the ecosystems' own programs as oracles.

use std::{
    cmp::Ordering,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use proptest::{prelude::*, strategy::ValueTree as _, test_runner::TestRunner};

use super::{Ecosystem, apk::Apk, deb::Deb, npm::Npm, pypi::Pypi, version};

const DEB: &str = r"([0-2]:)?[0-9]{1,2}([.+~a-zA-Z-]{0,2}[0-9]{0,3}){0,4}(-[0-9]{1,2}([+~.a-z]{1,3}[0-9]{0,2})?)?";
const APK: &str = r"[0-9]{1,2}(\.([1-9][0-9]{0,2}|0)){0,3}[a-c]?(_(alpha|beta|pre|rc|cvs|svn|git|hg|p)[0-9]{0,2}){0,2}-r[0-9]{1,2}";
const PYPI: &str = r"(1!)?[0-9]{1,2}(\.[0-9]{1,2}){0,3}((a|b|rc)[0-9]{1,2})?(\.post[0-9])?(\.dev[0-9])?(\+[a-z0-9]{1,3}(\.[0-9]{1,2})?)?";
const NPM: &str = r"(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)\.(0|[1-9][0-9]?)(-(alpha|beta|rc|[1-9][0-9]?|x-1)(\.([1-9][0-9]?|a)){0,2})?(\+b1)?";

fn compare(family: &dyn Ecosystem, a: &str, b: &str) -> Ordering {
    let read =
        |text: &str| version(family, text).unwrap_or_else(|| panic!("`{text}` is a version"));
    read(a).cmp(&read(b))
}

/// Each line: versions in ascending order; `=` joins equal ones.
fn check(family: &dyn Ecosystem, chain: &str) {
    let groups: Vec<Vec<&str>> = chain
        .split(" < ")
        .map(|group| group.split(" = ").collect())
        .collect();
    let flat = groups
        .iter()
        .enumerate()
        .flat_map(|(rank, group)| group.iter().map(move |v| (rank, *v)));
    let flat: Vec<_> = flat.collect();
    for (rank_a, a) in &flat {
        for (rank_b, b) in &flat {
            assert_eq!(
                compare(family, a, b),
                rank_a.cmp(rank_b),
                "`{a}` against `{b}`"
            );
        }
    }
}

#[test]
fn dpkg_orders_tildes_epochs_and_missing_parts() {
    check(
        &Deb,
        "1.0~~ < 1.0~~a < 1.0~ < 1.0~rc1 < 1.0 = 1.0-0 = 0:1.0 < 1.0-1~bpo1 < 1.0-1 < 1.0-1+b1 < 1.0a < 1.0+b1 < 1.0.1 < 1:0.1",
    );
    check(&Deb, "9.11. = 9.11.0 < 9.11.1");
    check(&Deb, "49a-01a = 49a-01a0 < 49a-1b");
    check(&Deb, "0 = 00 < 0a = 0a0 < 1");
    for text in [
        "",
        "1-",
        ":1",
        "a:1",
        "<end-of-life>",
        "1 2",
        &"1".repeat(300),
    ] {
        assert_eq!(version(&Deb, text), None, "{text}");
    }
}

#[test]
fn apk_orders_suffixes_letters_and_revisions() {
    check(
        &Apk,
        "1.0_alpha < 1.0_alpha1 < 1.0_beta < 1.0_pre < 1.0_rc1 < 1.0_rc2 < 1.0 < 1.0-r0 < 1.0-r10 < 1.0_git20200101 < 1.0_p < 1.0_p0 < 1.0_p1 < 1.0_p1_git1 < 1.0a < 1.0b < 1.0.1 < 1.1",
    );
    check(&Apk, "1.01 < 1.1 < 1.2 < 1.10");
    check(&Apk, "1.2.3~a1 < 1.2.3~b2 < 1.2.3_p1");
    for text in ["", "a", "1.", "1.0_x", "1.0-1", "1.0-r", "1.0~", "1.0 "] {
        assert_eq!(Apk.parse(text), None, "{text}");
    }
}

#[test]
fn python_orders_as_pep_440_says() {
    check(
        &Pypi,
        "1.0.dev1 < 1.0a1.dev1 < 1.0a1 = 1.0.0alpha1 < 1.0b2 < 1.0rc1 = 1.0-c1 < 1.0 = 1 = v1.0.0 < 1.0+abc < 1.0+1 < 1.0.post1.dev1 < 1.0.post1 = 1.0-1 < 1.1 < 1!0.1",
    );
    for text in ["", "0.1-bulbasaur", "x", "1.0.*", "99999999999999999999999"] {
        assert_eq!(version(&Pypi, text), None, "{text}");
    }
}

#[test]
fn npm_orders_by_precedence_and_reads_leniently() {
    check(
        &Npm,
        "1.0.0-0 < 1.0.0-alpha = v1.0.0alpha < 1.0.0-alpha.1 < 1.0.0-alpha.beta < 1.0.0-beta.2 < 1.0.0-beta.11 < 1.0.0-rc.1 < 1.0.0 = 1.0.0+build = =v1 = 1.0 < 1.0.1 < 1.0.99999999999999999999999",
    );
    for text in ["", "x", "1..2", "1.2.3.4", "1.2.3-", "1.2.3-a..b", "latest"] {
        assert_eq!(version(&Npm, text), None, "{text}");
    }
}

#[test]
fn python_names_are_normalized_by_pep_503() {
    assert_eq!(Pypi.normalize("Friendly-._.Bard"), "friendly-bard");
    assert_eq!(Npm.normalize("@Scope/Name"), "@Scope/Name");
}

fn laws(family: &dyn Ecosystem, a: &str, b: &str, c: &str) {
    let (Some(a), Some(b), Some(c)) = (version(family, a), version(family, b), version(family, c))
    else {
        return;
    };
    assert_eq!(a.cmp(&b), b.cmp(&a).reverse(), "antisymmetry");
    assert_eq!(a == b, a.cmp(&b) == Ordering::Equal, "equality");
    if a <= b && b <= c {
        assert!(a <= c, "transitivity");
    }
}

proptest! {
    #[test]
    fn orders_are_total(
        deb in [DEB, DEB, DEB], apk in [APK, APK, APK],
        pypi in [PYPI, PYPI, PYPI], npm in [NPM, NPM, NPM],
    ) {
        laws(&Deb, &deb[0], &deb[1], &deb[2]);
        laws(&Apk, &apk[0], &apk[1], &apk[2]);
        laws(&Pypi, &pypi[0], &pypi[1], &pypi[2]);
        laws(&Npm, &npm[0], &npm[1], &npm[2]);
    }

    #[test]
    fn no_text_makes_a_parser_panic(text in ".{0,300}") {
        for family in super::ECOSYSTEMS {
            let _version = version(*family, &text);
            let _name = family.normalize(&text);
        }
    }
}

/// Pairs of texts that look like versions, near each other half of the time.
fn pairs(pattern: &str, count: usize) -> Vec<(String, String)> {
    let mut runner = TestRunner::deterministic();
    let strategy = proptest::string::string_regex(pattern).expect("a valid pattern");
    let mut draw = || strategy.new_tree(&mut runner).expect("a value").current();
    let mut found = Vec::new();
    for index in 0..count {
        let a = draw();
        let b = if index % 2 == 0 {
            draw()
        } else {
            let mut near = a.clone();
            near.pop();
            near.push_str(["", "0", "1", ".0"][index / 2 % 4]);
            near
        };
        found.push((a, b));
    }
    found
}

fn feed_lines(command: &mut Command, pairs: &[(String, String)]) -> Option<Vec<String>> {
    let lines: Vec<String> = pairs.iter().map(|(a, b)| format!("{a}\t{b}")).collect();
    let input = lines.join("\n") + "\n";
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
    let output = child.wait_with_output().ok()?;
    let written = writer.join().unwrap_or(false);
    (written && output.status.success()).then(|| {
        String::from_utf8_lossy(&output.stdout)
            .lines()
            .map(ToOwned::to_owned)
            .collect()
    })
}

/// Compares with an oracle that answers `<`, `=`, `>`, or `?` where a text is no version.
fn agree(family: &dyn Ecosystem, pairs: &[(String, String)], answers: &[String]) {
    assert_eq!(pairs.len(), answers.len());
    let mut compared = 0;
    for ((a, b), answer) in pairs.iter().zip(answers) {
        let (Some(left), Some(right)) = (version(family, a), version(family, b)) else {
            continue;
        };
        let ours = match left.cmp(&right) {
            Ordering::Less => "<",
            Ordering::Equal => "=",
            Ordering::Greater => ">",
        };
        if answer != "?" {
            assert_eq!(ours, answer, "`{a}` against `{b}`");
            compared += 1;
        }
    }
    println!("{compared} pairs agree");
    assert!(
        compared * 2 > pairs.len(),
        "too few of the pairs are versions: {compared}"
    );
}

#[test]
fn dpkg_itself_agrees() {
    if Command::new("dpkg").arg("--version").output().is_err() {
        println!("skipped: no dpkg");
        return;
    }
    let script = r#"while IFS="$(printf '\t')" read -r a b; do
        if dpkg --compare-versions "$a" lt "$b" 2>/dev/null; then echo '<'
        elif dpkg --compare-versions "$a" eq "$b" 2>/dev/null; then echo '='
        elif dpkg --compare-versions "$a" gt "$b" 2>/dev/null; then echo '>'
        else echo '?'; fi; done"#;
    let pairs = pairs(DEB, 1000);
    let answers = feed_lines(Command::new("sh").args(["-c", script]), &pairs).expect("sh runs");
    agree(&Deb, &pairs, &answers);
}

#[test]
fn packaging_agrees() {
    let script = "
import sys
try:
    from packaging.version import Version, InvalidVersion
except ImportError:
    from pip._vendor.packaging.version import Version, InvalidVersion
for line in sys.stdin:
    try:
        a, b = (Version(v) for v in line.rstrip('\\n').split('\\t'))
        print('<' if a < b else '>' if a > b else '=')
    except InvalidVersion:
        print('?')
";
    let pairs = pairs(PYPI, 5000);
    match feed_lines(Command::new("python3").args(["-c", script]), &pairs) {
        Some(answers) => agree(&Pypi, &pairs, &answers),
        None => println!("skipped: no python3 with packaging"),
    }
}

#[test]
fn node_semver_agrees() {
    let script = r"
const { execSync } = require('child_process');
const root = execSync('npm root -g').toString().trim();
const semver = require(root + '/npm/node_modules/semver');
for (const line of require('fs').readFileSync(0, 'utf8').trimEnd().split('\n')) {
    const [a, b] = line.split('\t');
    const ok = semver.valid(a, true) && semver.valid(b, true);
    console.log(ok ? '<=>'[semver.compare(a, b, true) + 1] : '?');
}";
    let pairs = pairs(NPM, 5000);
    match feed_lines(Command::new("node").args(["-e", script]), &pairs) {
        Some(answers) => agree(&Npm, &pairs, &answers),
        None => println!("skipped: no node with npm's semver"),
    }
}

/// An Alpine root of apk 2: made from the image in the test data.
fn unpack_alpine(data: &Path, root: &Path) -> bool {
    let script = r#"for blob in "$1"/blobs/sha256/*; do
        tar -xzf "$blob" -C "$2" 2>/dev/null && test -e "$2/sbin/apk" && exit 0
    done; exit 1"#;
    let status = Command::new("sh")
        .args(["-c", script, "sh"])
        .arg(data)
        .arg(root)
        .status();
    status.is_ok_and(|status| status.success())
}

#[test]
fn apk_itself_agrees() {
    let Some(data) = std::env::var_os("TIDEWAITER_TEST_DATA") else {
        println!("skipped: TIDEWAITER_TEST_DATA is not set");
        return;
    };
    let root = tempfile::tempdir().expect("a temporary directory");
    if !unpack_alpine(&Path::new(&data).join("images/alpine-3.15"), root.path()) {
        println!("skipped: no image `images/alpine-3.15` in TIDEWAITER_TEST_DATA");
        return;
    }
    let script = r#"while IFS="$(printf '\t')" read -r a b; do
        "$1/lib/ld-musl-x86_64.so.1" --library-path "$1/lib" "$1/sbin/apk" version -t "$a" "$b" 2>/dev/null || echo '?'
        done"#;
    // Components with leading zeros are left out: apk 3 changed their order.
    let pairs = pairs(APK, 1500);
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(root.path());
    match feed_lines(&mut command, &pairs) {
        Some(answers) if answers.iter().any(|answer| answer != "?") => {
            agree(&Apk, &pairs, &answers);
        }
        _ => println!("skipped: the image's apk does not run here"),
    }
}
