//! The ecosystems' own programs and libraries as oracles: random versions, and real ones with small
//! changes. What is not installed is skipped, with a word about it.
//!
//! `TIDEWAITER_ORACLE_PAIRS` sets how many pairs a program answers that has to be started for each.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use proptest::{strategy::Strategy, strategy::ValueTree as _, test_runner::TestRunner};

use super::{of_type, real, shape, version};
use crate::Ecosystem;

/// How many pairs a program answers that reads them all.
const PAIRS: usize = 12_000;

/// What a version may end with instead of its last character.
const ENDS: &[&str] = &[
    "", "0", "1", ".0", ".1", "a", "-1", "-rc1", "b2", ".a", "~", "+x", "_1", "-0", ".0.0",
];

type Pairs = Vec<(String, String)>;

/// Which versions an oracle is asked about.
type Asked = fn(&str) -> bool;

fn draw<S: Strategy>(strategy: &S, runner: &mut TestRunner) -> S::Value {
    strategy.new_tree(runner).expect("a value").current()
}

/// Pairs of a family: of its shape, and real ones where there are; near each other half of the time.
fn pairs(family: &dyn Ecosystem, count: usize) -> Pairs {
    let mut runner = TestRunner::deterministic();
    let shape = proptest::string::string_regex(shape(family)).expect("a valid pattern");
    let packages = real::versions(family.names());
    let mut found = Pairs::new();
    for index in 0..count {
        let is_real = index % 2 == 0 && !packages.is_empty();
        let (a, other) = if is_real {
            let versions = packages[draw(&(0..packages.len()), &mut runner)];
            let mut one = || versions[draw(&(0..versions.len()), &mut runner)].clone();
            (one(), one())
        } else {
            (draw(&shape, &mut runner), draw(&shape, &mut runner))
        };
        let b = if index % 4 < 2 {
            other
        } else {
            let mut near = a.clone();
            if index % 8 < 4 {
                near.pop();
            }
            near + ENDS[draw(&(0..ENDS.len()), &mut runner)]
        };
        // A tab separates, and a blank is no part of a version.
        let is_clean = |text: &String| !text.is_empty() && !text.contains(char::is_whitespace);
        if is_clean(&a) && is_clean(&b) {
            found.push((a, b));
        }
    }
    found
}

fn slow_pairs() -> usize {
    let given = std::env::var_os("TIDEWAITER_ORACLE_PAIRS");
    let given = given.and_then(|text| text.to_str()?.parse().ok());
    given.unwrap_or(1_000)
}

/// The lines that a command answers to pairs; `None` where it does not run.
fn ask(command: &mut Command, pairs: &Pairs) -> Option<Vec<String>> {
    let lines: Vec<String> = pairs.iter().map(|(a, b)| format!("{a}\t{b}\n")).collect();
    let input = lines.concat();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .ok()?;
    let mut stdin = child.stdin.take()?;
    let writer = std::thread::spawn(move || stdin.write_all(input.as_bytes()).is_ok());
    let output = child.wait_with_output().ok()?;
    let is_written = writer.join().unwrap_or(false);
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text.lines().filter(|line| !line.is_empty());
    let lines: Vec<String> = lines.map(ToOwned::to_owned).collect();
    (is_written && output.status.success() && lines.len() == pairs.len()).then_some(lines)
}

/// Compares with an oracle that answers `<`, `=`, `>`, or `?` where a text is no version. What we
/// cannot compare and the oracle can is wrong, too; what we read more leniently is only counted.
fn agree(name: &str, family: &dyn Ecosystem, pairs: &Pairs, answers: Option<Vec<String>>) {
    let Some(answers) = answers else {
        println!("skipped: {name} does not run here");
        return;
    };
    assert_eq!(pairs.len(), answers.len());
    let (mut right, mut lenient, mut wrong) = (0_usize, 0_usize, Vec::new());
    for ((a, b), answer) in pairs.iter().zip(answers) {
        let ours = match (version(family, a), version(family, b)) {
            (Some(a), Some(b)) => sign(a.cmp(&b)),
            _ => "?",
        };
        match answer.as_str() {
            answer if answer == ours => right += 1,
            "?" => lenient += 1,
            answer => wrong.push(format!("`{a}` {ours} `{b}`, not {answer}")),
        }
    }
    let tried = right + wrong.len();
    println!("{name}: {right} of {tried} pairs right, {lenient} read more leniently");
    assert!(
        wrong.is_empty(),
        "{} wrong: {:#?}",
        wrong.len(),
        &wrong[..wrong.len().min(40)]
    );
    assert!(right * 2 > pairs.len(), "too few of the pairs are versions");
}

fn sign(ordering: Ordering) -> &'static str {
    match ordering {
        Ordering::Less => "<",
        Ordering::Equal => "=",
        Ordering::Greater => ">",
    }
}

/// A shell's loop around a program that is started for each pair.
fn loop_of(body: &str) -> String {
    format!("while IFS=\"$(printf '\\t')\" read -r a b; do {body}; done")
}

#[test]
fn dpkg_agrees() {
    let family = of_type("deb");
    let script = loop_of(
        r#"if dpkg --compare-versions "$a" lt "$b" 2>/dev/null; then echo '<'
        elif dpkg --compare-versions "$a" eq "$b" 2>/dev/null; then echo '='
        elif dpkg --compare-versions "$a" gt "$b" 2>/dev/null; then echo '>'
        else echo '?'; fi"#,
    );
    if Command::new("dpkg").arg("--version").output().is_err() {
        println!("skipped: no dpkg");
        return;
    }
    let pairs = pairs(family, slow_pairs());
    agree(
        "dpkg",
        family,
        &pairs,
        ask(Command::new("sh").args(["-c", &script]), &pairs),
    );
}

/// An Alpine root of apk 2: made from the image in the test data.
fn unpack_alpine(data: &Path, root: &Path) -> bool {
    let script = r#"for blob in "$1"/blobs/sha256/*; do
        tar -xzf "$blob" -C "$2" 2>/dev/null && test -e "$2/sbin/apk" && exit 0
    done; exit 1"#;
    let mut command = Command::new("sh");
    command.args(["-c", script, "sh"]).arg(data).arg(root);
    command.status().is_ok_and(|status| status.success())
}

#[test]
fn apk_agrees() {
    let family = of_type("apk");
    let Some(data) = std::env::var_os("TIDEWAITER_TEST_DATA") else {
        println!("skipped: TIDEWAITER_TEST_DATA is not set");
        return;
    };
    let root = tempfile::tempdir().expect("a temporary directory");
    if !unpack_alpine(&Path::new(&data).join("images/alpine-3.15"), root.path()) {
        println!("skipped: no image `images/alpine-3.15` in TIDEWAITER_TEST_DATA");
        return;
    }
    let script = loop_of(
        r#""$1/lib/ld-musl-x86_64.so.1" --library-path "$1/lib" "$1/sbin/apk" version -t "$a" "$b" 2>/dev/null || echo '?'"#,
    );
    let mut pairs = pairs(family, slow_pairs() * 2);
    let invalid = invalid_to_apk(root.path(), &pairs);
    // It answers something for them, too.
    let is_compared = |text: &String| !invalid.contains(text) && !is_changed_by_apk_3(text);
    pairs.retain(|(a, b)| is_compared(a) && is_compared(b));
    pairs.truncate(slow_pairs());
    let mut command = Command::new("sh");
    command.args(["-c", &script, "sh"]).arg(root.path());
    agree("apk", family, &pairs, ask(&mut command, &pairs));
}

/// Which texts are no versions to it.
fn invalid_to_apk(root: &Path, pairs: &Pairs) -> BTreeSet<String> {
    let lib = root.join("lib");
    let texts: BTreeSet<&String> = pairs.iter().flat_map(|(a, b)| [a, b]).collect();
    let output = Command::new(lib.join("ld-musl-x86_64.so.1"))
        .arg("--library-path")
        .arg(&lib)
        .arg(root.join("sbin/apk"))
        .args(["version", "--check", "--"])
        .args(texts)
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.lines().map(ToOwned::to_owned).collect()
}

/// Components with leading zeros, of which apk 3 changed the order; a letter behind a dot and a
/// revision without number, which it takes for mistakes.
fn is_changed_by_apk_3(text: &str) -> bool {
    let is_number = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
    let mut components = text.split('.').skip(1);
    text.ends_with("-r")
        || components.any(|part| !is_number(part) || part.strip_prefix('0').is_some_and(is_number))
}

#[test]
fn rpm_agrees() {
    let family = of_type("rpm");
    let script = r#"%{lua:
        for line in io.lines() do
            local a, b = line:match("^(.-)\t(.*)$")
            print(({[-1] = "<", [0] = "=", [1] = ">"})[rpm.vercmp(a, b)] .. "\n")
        end}"#;
    let mut pairs = pairs(family, PAIRS);
    // It compares texts that have a release and no version, too.
    pairs.retain(|(a, b)| !has_no_version(a) && !has_no_version(b));
    let answers = ask(Command::new("rpm").args(["--eval", script]), &pairs);
    agree("rpm", family, &pairs, answers);
}

fn has_no_version(text: &str) -> bool {
    let rest = text.split_once(':').map_or(text, |(_, rest)| rest);
    rest.is_empty() || rest.starts_with('-')
}

#[test]
fn packaging_agrees() {
    let family = of_type("pypi");
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
    let pairs = pairs(family, PAIRS);
    let answers = ask(Command::new("python3").args(["-c", script]), &pairs);
    agree("packaging", family, &pairs, answers);
}

/// The families whose order is `SemVer`'s, and the versions of others for which theirs is.
#[test]
fn node_semver_agrees() {
    let script = r"
const { execSync } = require('child_process');
const root = execSync('npm root -g').toString().trim();
const semver = require(root + '/npm/node_modules/semver');
for (const line of require('fs').readFileSync(0, 'utf8').trimEnd().split('\n')) {
    const [a, b] = line.split('\t');
    const ok = semver.valid(a) && semver.valid(b);
    console.log(ok ? '<=>'[semver.compare(a, b) + 1] : '?');
}";
    let all = |_: &str| true;
    let is_module = |text: &str| !text.starts_with("go");
    let has_no_build = |text: &str| !text.contains('+');
    let is_whole = |text: &str| !text.contains('+') && text.split('.').count() > 2;
    let is_plain = |text: &str| text.split('.').count() == 3 && text == text.to_lowercase();
    let families: [(&str, Asked); 10] = [
        ("npm", all),
        ("cargo", all),
        ("hex", all),
        ("swift", all),
        ("github", all),
        ("bitnami", all),
        ("golang", is_module),
        ("pub", has_no_build),
        ("julia", is_whole),
        ("nuget", is_plain),
    ];
    for (purl_type, is_asked) in families {
        let family = of_type(purl_type);
        let mut pairs = pairs(family, PAIRS * 4);
        pairs.retain(|(a, b)| is_asked(a) && is_asked(b));
        pairs.truncate(PAIRS);
        let answers = ask(Command::new("node").args(["-e", script]), &pairs);
        agree(
            &format!("node-semver as {purl_type}"),
            family,
            &pairs,
            answers,
        );
    }
}

/// Maven's library, where a distribution puts it.
fn maven_jars() -> Option<String> {
    let dirs = ["/usr/share/maven/lib", "/usr/share/java"].map(Path::new);
    let found =
        dirs.map(|dir| ["maven-artifact-3.x.jar", "commons-lang3.jar"].map(|name| dir.join(name)));
    let [maven, lang] = found
        .into_iter()
        .find(|jars| jars.iter().all(|jar| jar.exists()))?;
    Some(format!("{}:{}", maven.display(), lang.display()))
}

/// What Maven says of texts that follow each other; it prints a line for each two of them.
fn maven(texts: &[&str]) -> Option<Vec<String>> {
    let output = Command::new("java")
        .args(["-cp", &maven_jars()?])
        .arg("org.apache.maven.artifact.versioning.ComparableVersion")
        .args(texts)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let lines = text.lines().filter(|line| line.starts_with("   "));
    let words = lines.flat_map(|line| line.split(' '));
    let signs = words.filter(|word| matches!(*word, "<" | ">" | "=="));
    Some(signs.map(|sign| sign.replace("==", "=")).collect())
}

/// What it says of many texts, in runs that fit a command line.
fn maven_on(texts: &[&str]) -> Option<Vec<String>> {
    let mut signs = Vec::new();
    // Runs share their ends, so that none of the comparisons is lost.
    for start in (0..texts.len().saturating_sub(1)).step_by(4_000) {
        let run = &texts[start..texts.len().min(start + 4_001)];
        signs.extend(maven(run).filter(|signs| signs.len() + 1 == run.len())?);
    }
    Some(signs)
}

#[test]
fn maven_agrees_where_it_agrees_with_itself() {
    let family = of_type("maven");
    let mut pairs = pairs(family, PAIRS);
    let is_readable = |text: &str| !text.contains(['<', '>', '=']);
    pairs.retain(|(a, b)| is_readable(a) && is_readable(b));
    let texts: Vec<&str> = pairs.iter().flat_map(|(a, b)| [a.as_str(), b]).collect();
    let Some(signs) = maven_on(&texts) else {
        println!("skipped: no java with Maven's library");
        return;
    };
    let answers: Vec<String> = signs.into_iter().step_by(2).collect();
    let is_other = |((a, b), answer): &(&(String, String), &String)| {
        let ours = version(family, a).zip(version(family, b));
        ours.is_none_or(|(a, b)| sign(a.cmp(&b)) != answer.as_str())
    };
    let others: Vec<_> = pairs.iter().zip(&answers).filter(is_other).collect();
    let contradicted = contradicted(&others);
    println!(
        "Maven contradicts itself about {} pairs",
        contradicted.len()
    );
    let kept = pairs.iter().cloned().zip(answers.iter().cloned());
    let kept = kept.filter(|(pair, _)| !contradicted.contains(pair));
    let (kept, answers): (Pairs, Vec<String>) = kept.unzip();
    agree("maven", family, &kept, Some(answers));
}

/// The pairs between which Maven puts a version on the way that is opposite to its answer.
fn contradicted(answered: &[(&(String, String), &String)]) -> BTreeSet<(String, String)> {
    let mut tried = Vec::new();
    for ((a, b), answer) in answered {
        for middle in between(a, b) {
            tried.push((a, middle, b, answer));
        }
    }
    let texts: Vec<&str> = tried
        .iter()
        .flat_map(|(a, middle, b, _)| [a.as_str(), middle, b])
        .collect();
    let signs = maven_on(&texts).unwrap_or_default();
    let is_opposite = |signs: &[String], answer: &str| match (answer, signs) {
        // `a` < `b`, but `b` <= `middle` <= `a`, and so on.
        ("<", [first, second, ..]) => first != "<" && second != "<",
        (">", [first, second, ..]) => first != ">" && second != ">",
        (_, [first, second, ..]) => first == second && first != "=",
        _ => false,
    };
    let found = tried.iter().zip(signs.chunks(3));
    let found = found.filter(|((_, _, _, answer), signs)| is_opposite(signs, answer));
    found
        .map(|((a, _, b, _), _)| ((*a).clone(), (*b).clone()))
        .collect()
}

/// Versions that two begin with, and little more.
fn between(a: &str, b: &str) -> Vec<String> {
    let mut found = Vec::new();
    for text in [a, b] {
        for (at, _) in text
            .char_indices()
            .filter(|(at, c)| *at > 0 && matches!(c, '.' | '-'))
        {
            let ends = ["", "-", "-alpha", "-sp", ".1"];
            found.extend(ends.map(|end| format!("{}{end}", &text[..at])));
        }
    }
    found
}

#[test]
fn ruby_agrees() {
    let family = of_type("gem");
    let script = r"
STDIN.each_line do |line|
  begin
    a, b = line.chomp.split(%(\t)).map { |text| Gem::Version.new(text) }
    puts %w[< = >][(a <=> b) + 1]
  rescue ArgumentError
    puts '?'
  end
end";
    let pairs = pairs(family, PAIRS);
    let answers = ask(Command::new("ruby").args(["-e", script]), &pairs);
    agree("ruby", family, &pairs, answers);
}

#[test]
fn composer_agrees() {
    let family = of_type("composer");
    let script = r"
require '/usr/share/php/Composer/Semver/autoload.php';
$parser = new Composer\Semver\VersionParser();
while (($line = fgets(STDIN)) !== false) {
    try {
        [$a, $b] = array_map([$parser, 'normalize'], explode(chr(9), rtrim($line, chr(10))));
        $branch = strpos($a, 'dev-') === 0 || strpos($b, 'dev-') === 0;
        echo $branch ? '?' : ['<', '=', '>'][version_compare($a, $b) + 1], chr(10);
    } catch (UnexpectedValueException $e) {
        echo '?', chr(10);
    }
}";
    let pairs = pairs(family, PAIRS);
    let answers = ask(Command::new("php").args(["-r", script]), &pairs);
    agree("composer", family, &pairs, answers);
}

#[test]
fn r_agrees() {
    let family = of_type("cran");
    let script = r#"
for (line in readLines(file("stdin"))) {
    pair <- strsplit(line, "\t")[[1]]
    # It compares whatever it is given.
    is_valid <- !anyNA(numeric_version(pair, strict = FALSE))
    sign <- if (is_valid) c("<", "=", ">")[compareVersion(pair[1], pair[2]) + 2] else "?"
    cat(sign, "\n", sep = "")
}"#;
    let pairs = pairs(family, PAIRS);
    let answers = ask(Command::new("Rscript").args(["-e", script]), &pairs);
    agree("R", family, &pairs, answers);
}

#[test]
fn elixir_agrees() {
    let family = of_type("hex");
    let script = r#"
for line <- IO.stream(:stdio, :line) do
  [a, b] = line |> String.trim_trailing("\n") |> String.split("\t")
  sign =
    with {:ok, a} <- Version.parse(a), {:ok, b} <- Version.parse(b) do
      %{lt: "<", eq: "=", gt: ">"}[Version.compare(a, b)]
    else
      _ -> "?"
    end
  IO.puts(sign)
end"#;
    let pairs = pairs(family, PAIRS);
    let answers = ask(Command::new("elixir").args(["-e", script]), &pairs);
    agree("Elixir", family, &pairs, answers);
}

/// Go's own library for versions of modules, of which a Go installation has a copy.
fn go_program(root: &Path) -> Option<PathBuf> {
    let output = Command::new("go").args(["env", "GOROOT"]).output().ok()?;
    let goroot = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let library = Path::new(&goroot).join("src/cmd/vendor/golang.org/x/mod/semver/semver.go");
    let folder = root.join("semver");
    std::fs::create_dir(&folder).ok()?;
    std::fs::copy(library, folder.join("semver.go")).ok()?;
    std::fs::write(root.join("go.mod"), "module oracle\n").ok()?;
    let main = r#"package main

import (
	"bufio"
	"fmt"
	"os"
	"strings"

	"oracle/semver"
)

func main() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		a, b, _ := strings.Cut(lines.Text(), "\t")
		a, b = "v"+strings.TrimPrefix(a, "v"), "v"+strings.TrimPrefix(b, "v")
		if semver.IsValid(a) && semver.IsValid(b) {
			fmt.Println("<=>"[semver.Compare(a, b)+1 : semver.Compare(a, b)+2])
		} else {
			fmt.Println("?")
		}
	}
}
"#;
    std::fs::write(root.join("main.go"), main).ok()?;
    let mut build = Command::new("go");
    build.current_dir(root).args(["build", "-o", "oracle", "."]);
    let is_built = build.status().is_ok_and(|status| status.success());
    is_built.then(|| root.join("oracle"))
}

#[test]
fn go_agrees() {
    let family = of_type("golang");
    let root = tempfile::tempdir().expect("a temporary directory");
    let Some(program) = go_program(root.path()) else {
        println!("skipped: no Go with golang.org/x/mod");
        return;
    };
    let mut pairs = pairs(family, PAIRS * 2);
    // Releases of Go itself, of which it knows nothing: `go1.21rc2`, and `1.21rc2`.
    let is_module = |text: &str| {
        let is_release = |c: char| c.is_ascii_digit() || c == '.';
        !text.starts_with("go")
            && !text
                .trim_matches(is_release)
                .starts_with(char::is_alphabetic)
            || text.starts_with('v')
    };
    pairs.retain(|(a, b)| is_module(a) && is_module(b));
    pairs.truncate(PAIRS);
    let answers = ask(&mut Command::new(program), &pairs);
    agree("golang.org/x/mod", family, &pairs, answers);
}

#[test]
fn conan_agrees() {
    let family = of_type("conan");
    let script = "
import sys
try:
    from conan.internal.model.version import Version
except ImportError:
    from conans.model.version import Version
for line in sys.stdin:
    a, b = (Version(v) for v in line.rstrip('\\n').split('\\t'))
    print('<' if a < b else '>' if a > b else '=')
";
    // A number and a mixture it compares as texts, which is no order: `2` < `10` < `1a` < `2`.
    let is_ordered = |text: &str| {
        let is_plain = |item: &str| {
            let mut bytes = item.bytes();
            !item.is_empty()
                && (bytes.all(|b| b.is_ascii_digit())
                    || item.bytes().all(|b| b.is_ascii_alphabetic()))
        };
        let (version, build) = text.split_once('+').unwrap_or((text, "0"));
        let (release, prerelease) = version.split_once('-').unwrap_or((version, "0"));
        let mut parts = [release, prerelease, build].into_iter();
        parts.all(|part| part.split('.').all(is_plain))
    };
    let mut pairs = pairs(family, PAIRS * 8);
    pairs.retain(|(a, b)| is_ordered(a) && is_ordered(b));
    pairs.truncate(PAIRS);
    let answers = ask(Command::new("python3").args(["-c", script]), &pairs);
    agree("Conan", family, &pairs, answers);
}

#[test]
fn ghc_agrees() {
    let family = of_type("hackage");
    let script = r#"interact (unlines . map (\line -> let { (a, b) = break (== '\t') line; whole text = [v | (v, "") <- Text.ParserCombinators.ReadP.readP_to_S Data.Version.parseVersion text, null (Data.Version.versionTags v)] } in case (whole a, whole (drop 1 b)) of { ([v], [w]) -> case compare v w of { LT -> "<"; EQ -> "="; GT -> ">" }; _ -> "?" }) . lines)"#;
    let pairs = pairs(family, PAIRS);
    let answers = ask(Command::new("ghc").args(["-e", script]), &pairs);
    agree("Data.Version of GHC", family, &pairs, answers);
}
