//! The version that a program's builder wrote into one of its variables (`-ldflags "-X
//! main.version=1.2.3"`): what is known of programs whose version Go itself does not state.
//!
//! It is a claim of the build and no fact of Go's, so only what is plainly meant counts: a variable of
//! the program itself, or else of a package of the same owner, with a name that means its own version;
//! and where two of them differ, none.

use std::collections::BTreeSet;

/// Variables that hold a program's own version, in small letters.
const VARIABLES: &[&str] = &[
    "appversion",
    "buildversion",
    "gittag",
    "gitversion",
    "releaseversion",
    "semver",
    "serverversion",
    "tag",
    "version",
];

/// What Go's build information says the linker was told.
const FLAGS: &str = "build\t-ldflags=";

/// The version that the build of a module states; `None` where it states none, or several.
pub(super) fn version(information: &str, module: &str) -> Option<String> {
    let flags = information
        .lines()
        .find_map(|line| line.strip_prefix(FLAGS))?;
    let flags = unquoted(flags);
    let (mut own, mut owners) = (BTreeSet::new(), BTreeSet::new());
    for (package, value) in assignments(&flags) {
        let Some(release) = release(value) else {
            continue;
        };
        if package == "main" || is_below(package, module) {
            own.insert(release);
        } else if is_below(package, owner(module)) {
            owners.insert(release);
        }
    }
    let mut stated = if own.is_empty() { owners } else { own }.into_iter();
    stated.next().filter(|_| stated.next().is_none())
}

/// A value as it was before Go wrote it in quotes, which it does where it has blanks.
fn unquoted(text: &str) -> String {
    let quoted = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'));
    let Some(quoted) = quoted else {
        return text.to_owned();
    };
    let mut plain = String::with_capacity(quoted.len());
    let mut is_escaped = false;
    for character in quoted.chars() {
        is_escaped = character == '\\' && !is_escaped;
        if !is_escaped {
            plain.push(character);
        }
    }
    plain
}

/// The package and the value of each variable with such a name.
fn assignments(flags: &str) -> impl Iterator<Item = (&str, &str)> {
    let mut words = Words(flags);
    std::iter::from_fn(move || {
        loop {
            let word = words.next()?;
            let Some(rest) = word.strip_prefix("--X").or_else(|| word.strip_prefix("-X")) else {
                continue;
            };
            let assignment = match rest.strip_prefix('=') {
                Some(assignment) => assignment,
                None if rest.is_empty() => words.next()?,
                None => continue,
            };
            let Some((variable, value)) = assignment.split_once('=') else {
                continue;
            };
            let Some((package, name)) = variable.rsplit_once('.') else {
                continue;
            };
            if VARIABLES.contains(&name.to_ascii_lowercase().as_str()) {
                return Some((package, value.trim_matches(['"', '\''])));
            }
        }
    })
}

/// Flags as Go splits them: at blanks, and a word that begins with a quote ends with it.
struct Words<'a>(&'a str);

// === impl Words ===

impl<'a> Iterator for Words<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<&'a str> {
        let text = self.0.trim_start();
        let quote = text.chars().next().filter(|c| matches!(c, '\'' | '"'));
        let (word, rest) = match quote {
            Some(quote) => text.strip_prefix(quote)?.split_once(quote)?,
            None if text.is_empty() => return None,
            None => text.split_once(char::is_whitespace).unwrap_or((text, "")),
        };
        self.0 = rest;
        Some(word)
    }
}

/// A release as Go's advisories write it: two or three numbers, and what follows them in `SemVer`.
/// Of `git describe` the tag counts: what follows it has what the tag has.
fn release(text: &str) -> Option<String> {
    let text = text.strip_prefix('v').unwrap_or(text);
    let text = text.strip_suffix("-dirty").unwrap_or(text);
    let text = described(text).unwrap_or(text);
    let numbers = text.split(['-', '+']).next()?;
    let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    let is_release = (2..=3).contains(&numbers.split('.').count())
        && numbers.split('.').all(is_number)
        && numbers.bytes().any(|b| matches!(b, b'1'..=b'9'));
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'+');
    (is_release && text.bytes().all(is_plain)).then(|| format!("v{text}"))
}

/// The tag in `TAG-COMMITS-gHASH`.
fn described(text: &str) -> Option<&str> {
    let (rest, hash) = text.rsplit_once("-g")?;
    let (tag, commits) = rest.rsplit_once('-')?;
    let is_hash = hash.len() >= 7 && hash.bytes().all(|b| b.is_ascii_hexdigit());
    let is_count = !commits.is_empty() && commits.bytes().all(|b| b.is_ascii_digit());
    (is_hash && is_count).then_some(tag)
}

/// The host and the first part of a module's path.
fn owner(module: &str) -> &str {
    let second = module.match_indices('/').nth(1);
    second
        .and_then(|(at, _)| module.get(..at))
        .unwrap_or(module)
}

fn is_below(package: &str, path: &str) -> bool {
    let rest = package.strip_prefix(path);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODULE: &str = "github.com/acme/app";

    fn check(flags: &str, expected: Option<&str>) {
        let information =
            format!("path\tx\nmod\t{MODULE}\t(devel)\t\n{FLAGS}{flags}\nbuild\tGOOS=linux\n");
        assert_eq!(
            version(&information, MODULE).as_deref(),
            expected,
            "{flags}"
        );
    }

    #[test]
    fn a_version_that_the_linker_was_told_is_the_programs() {
        check("-X=main.version=v1.2.3", Some("v1.2.3"));
        check(r#""-s -w -X main.Version=1.2.3""#, Some("v1.2.3"));
        check(
            r#""-X 'main.version=1.2' -X 'main.date=a \"b'""#,
            Some("v1.2"),
        );
        check(
            r#""-X github.com/acme/app/internal/build.GitVersion=1.2.3-rc.1""#,
            Some("v1.2.3-rc.1"),
        );
        check(
            r#""-X github.com/acme/common/version.Version=2.45.0""#,
            Some("v2.45.0"),
        );
        check(
            r#""-X github.com/acme/common/version.Version=9.9.9 -X main.version=1.2.3""#,
            Some("v1.2.3"),
        );
    }

    #[test]
    fn of_a_described_commit_the_tag_counts() {
        check(r#""-X main.version=v1.2.3-14-g2414721""#, Some("v1.2.3"));
        check(r#""-X main.version=v1.2.3-dirty""#, Some("v1.2.3"));
        check(
            r#""-X main.version=v1.2.3-rc.1-2-g2414721-dirty""#,
            Some("v1.2.3-rc.1"),
        );
    }

    #[test]
    fn what_is_not_plainly_its_version_is_none() {
        check("", None);
        check(r#""-s -w""#, None);
        check(r#""-X main.version=dev""#, None);
        check(r#""-X main.version=0.0.0""#, None);
        check(r#""-X main.version=1""#, None);
        check(r#""-X main.version=1.2.3.4""#, None);
        check(r#""-X main.version=1.2.3;x""#, None);
        check(r#""-X main.goVersion=1.2.3 -X main.commit=1.2.3""#, None);
        check(r#""-X github.com/other/lib.Version=1.2.3""#, None);
        check(r#""-X github.com/acmeother/lib.Version=1.2.3""#, None);
        check(r#""-X main.version=1.2.3 -X main.gitVersion=1.2.4""#, None);
        check(r#""-X 'main.version=1.2.3""#, None);
        check(r#""-X""#, None);
    }

    #[test]
    fn the_same_version_may_be_written_twice() {
        check(
            r#""-X main.version=1.2.3 -X main.tag=v1.2.3""#,
            Some("v1.2.3"),
        );
    }
}
