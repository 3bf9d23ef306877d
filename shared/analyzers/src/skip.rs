//! Paths that nobody is to look into.

use std::{fmt, str::FromStr};

use globset::{GlobBuilder, GlobMatcher};
use serde::{Deserialize, Serialize};

/// Bytes of one pattern.
const PATTERN_BYTES_MAX: usize = 1024;

/// Directories and files whose content is left out; what there is, with name and mode, is listed all
/// the same.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Skip {
    /// Directories, with all below them.
    pub dirs: Vec<PathGlob>,
    /// Files.
    pub files: Vec<PathGlob>,
}

/// A path from the root of an image on, in which `*` stands for any part of a name and `**` for any
/// number of directories: `usr/share/doc`, `/opt/*/cache`, `**/node_modules`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PathGlob {
    text: String,
    matcher: GlobMatcher,
}

/// The text is not a pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not a pattern like `usr/share/doc` or `**/node_modules`: {why}")]
pub struct PathGlobError {
    text: String,
    why: String,
}

// === impl Skip ===

impl Skip {
    /// Whether a file is left out: by its own name, or with a directory above it.
    pub fn file(&self, path: &str) -> bool {
        self.files.iter().any(|glob| glob.matches(path)) || self.below(path)
    }

    /// Whether a directory is left out, with all that is below it.
    pub fn dir(&self, path: &str) -> bool {
        self.dirs.iter().any(|glob| glob.matches(path)) || self.below(path)
    }

    fn below(&self, path: &str) -> bool {
        if self.dirs.is_empty() {
            return false;
        }
        let ends = path.match_indices('/').map(|(at, _)| at);
        let mut parents = ends.filter_map(|at| path.get(..at));
        parents.any(|parent| self.dirs.iter().any(|glob| glob.matches(parent)))
    }
}

// === impl PathGlob ===

impl PathGlob {
    fn matches(&self, path: &str) -> bool {
        self.matcher.is_match(path)
    }
}

impl FromStr for PathGlob {
    type Err = PathGlobError;

    fn from_str(text: &str) -> Result<Self, PathGlobError> {
        let wrong = |why: String| PathGlobError {
            text: text.chars().take(100).collect(),
            why,
        };
        if text.len() > PATTERN_BYTES_MAX {
            return Err(wrong(format!("it has more than {PATTERN_BYTES_MAX} bytes")));
        }
        // People write paths as they see them in a container.
        let pattern = text.strip_prefix("./").unwrap_or(text);
        let pattern = pattern.trim_matches('/');
        if pattern.is_empty() || pattern == "." {
            return Err(wrong("it would leave out everything".to_owned()));
        }
        let glob = GlobBuilder::new(pattern).literal_separator(true).build();
        Ok(Self {
            text: text.to_owned(),
            matcher: glob
                .map_err(|error| wrong(error.kind().to_string()))?
                .compile_matcher(),
        })
    }
}

impl TryFrom<String> for PathGlob {
    type Error = PathGlobError;

    fn try_from(text: String) -> Result<Self, PathGlobError> {
        text.parse()
    }
}

impl From<PathGlob> for String {
    fn from(glob: PathGlob) -> Self {
        glob.text
    }
}

impl PartialEq for PathGlob {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for PathGlob {}

impl fmt::Display for PathGlob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn skip(dirs: &[&str], files: &[&str]) -> Skip {
        let globs = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Skip {
            dirs: globs(dirs),
            files: globs(files),
        }
    }

    #[test]
    fn directories_are_left_out_with_all_below_them() {
        let skip = skip(&["/usr/share/doc/", "**/node_modules", "opt/*/cache"], &[]);
        for path in [
            "usr/share/doc/a/copyright",
            "app/node_modules/x/package.json",
            "node_modules/x",
            "opt/tool/cache/y",
        ] {
            assert!(skip.file(path), "{path}");
        }
        for path in [
            "usr/share/docs/a",
            "opt/a/b/cache/y",
            "node_modules",
            "x/opt/a/cache/y",
        ] {
            assert!(!skip.file(path), "{path}");
        }
        assert!(skip.dir("app/node_modules") && !skip.dir("app"));
    }

    #[test]
    fn files_are_left_out_by_name() {
        let skip = skip(&[], &["./srv/*.jar", "**/package.json"]);
        assert!(
            skip.file("srv/a.jar") && skip.file("package.json") && skip.file("a/b/package.json")
        );
        assert!(!skip.file("srv/lib/a.jar") && !skip.dir("package.json.d"));
    }

    #[test]
    fn what_is_no_pattern_says_why() {
        for text in ["", "/", ".", "a[", &"a".repeat(2000)] {
            assert!(text.parse::<PathGlob>().is_err(), "{text}");
        }
    }
}
