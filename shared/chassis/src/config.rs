//! Configuration: defaults, over them a YAML file, over it the environment. Flags are the caller's.
//!
//! `gateway: {listen: …}` in the file is `TIDEWAITER_GATEWAY__LISTEN` in the environment: `__`
//! separates levels. A variable without `__` counts only if it names a key of the first level, so
//! that `TIDEWAITER_PORT`, which Kubernetes sets for a service of that name, does no harm.

mod environment;
mod explain;
#[cfg(test)]
mod tests;

use std::{
    ffi::OsString,
    fmt, io,
    path::{Path, PathBuf},
};

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use self::environment::Override;
pub use self::explain::{Setting, explain, leaves};
use crate::files;

const FILE_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("reading configuration file `{file}`")]
    Read {
        /// The file.
        file: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is not YAML.
    #[error("`{file}` is not a YAML document with keys: {why}")]
    Syntax {
        /// The file.
        file: PathBuf,
        /// What and where.
        why: String,
    },
    /// A key is unknown, or its value does not fit.
    #[error("{origin}, key `{key}`: {why}")]
    Key {
        /// Where it was given.
        origin: Origin,
        /// The key, with its levels.
        key: String,
        /// What is wrong.
        why: String,
    },
    /// The defaults cannot be written as a tree of keys: a mistake in the program.
    #[error("defaults cannot be written as keys: {0}")]
    Defaults(String),
}

/// Where a key was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// In the file, at this line where it is known.
    File(PathBuf, Option<u64>),
    /// In this environment variable.
    Variable(String),
    /// Nowhere.
    Defaults,
}

/// Reads the configuration from `file` and from environment variables that start with `prefix_`.
///
/// Lists are replaced, groups of keys are merged, and an empty group in the file changes nothing.
pub fn load<T>(file: Option<&Path>, prefix: &str) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    load_from(file, prefix, variables())
}

/// The environment, as far as it is text.
fn variables() -> impl Iterator<Item = (String, String)> + Clone {
    let text = |(name, value): (OsString, OsString)| {
        Some((name.into_string().ok()?, value.into_string().ok()?))
    };
    let all: Vec<_> = std::env::vars_os().filter_map(text).collect();
    all.into_iter()
}

/// The environment variable `name`, if it is set, is text and is not empty.
#[expect(
    clippy::disallowed_methods,
    reason = "this is the one place that reads the environment"
)]
pub fn env_var(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// [`load`] with the environment as an argument.
fn load_from<T>(
    file: Option<&Path>,
    prefix: &str,
    variables: impl Iterator<Item = (String, String)>,
) -> Result<T, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let wrong = |error: serde_json::Error| ConfigError::Defaults(error.to_string());
    let mut tree = serde_json::to_value(T::default()).map_err(wrong)?;
    let mut overrides = environment::overrides(prefix, variables, &tree);
    let text = file.map(read).transpose()?;
    let mut given = Value::Null;
    if let Some((file, text)) = file.zip(text.as_deref()) {
        given = parse(file, text)?;
        merge(&mut tree, given.clone());
    }
    loop {
        let mut merged = tree.clone();
        for variable in &overrides {
            variable.apply(&mut merged);
        }
        let error = match serde_path_to_error::deserialize::<_, T>(&merged) {
            Ok(config) => return Ok(config),
            Err(error) => error,
        };
        let key = error.path().to_string();
        let culprit = overrides.iter_mut().find(|variable| variable.is_at(&key));
        if culprit.is_some_and(Override::read_as_text) {
            continue;
        }
        let origin = overrides
            .iter()
            .find(|variable| variable.is_at(&key))
            .map_or_else(
                || origin(&key, file, text.as_deref().and_then(locate::<T>), &given),
                |variable| Origin::Variable(variable.name.clone()),
            );
        return Err(ConfigError::Key {
            origin,
            key,
            why: error.into_inner().to_string(),
        });
    }
}

fn read(file: &Path) -> Result<String, ConfigError> {
    files::read_text_bounded(file, FILE_BYTES_MAX).map_err(|source| ConfigError::Read {
        file: file.to_owned(),
        source,
    })
}

fn parse(file: &Path, text: &str) -> Result<Value, ConfigError> {
    let wrong = |why: String| ConfigError::Syntax {
        file: file.to_owned(),
        why,
    };
    match serde_saphyr::from_str(text) {
        Ok(tree @ (Value::Object(_) | Value::Null)) => Ok(tree),
        Ok(_) => Err(wrong("it holds a single value or a list".to_owned())),
        Err(error) => Err(wrong(error.without_snippet().to_string())),
    }
}

/// Puts what is given over what is there.
fn merge(tree: &mut Value, given: Value) {
    match (tree, given) {
        (Value::Object(tree), Value::Object(given)) => {
            for (key, value) in given {
                merge(tree.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Object(_), Value::Null) => {}
        (tree, given) => *tree = given,
    }
}

/// The line of the first thing in `text` that a `T` cannot hold.
fn locate<T: DeserializeOwned>(text: &str) -> Option<u64> {
    let error = serde_saphyr::from_str::<T>(text).err()?;
    error
        .location()
        .map(|location| location.line())
        .filter(|line| *line > 0)
}

fn origin(key: &str, file: Option<&Path>, line: Option<u64>, given: &Value) -> Origin {
    // A key that is missing is not in the tree, but the group that lacks it is.
    let first = key.split(['.', '[']).next().unwrap_or_default();
    match file {
        Some(file) if given.get(first).is_some() || key == "." => {
            Origin::File(file.to_owned(), line)
        }
        _ => Origin::Defaults,
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file, Some(line)) => write!(f, "`{}` line {line}", file.display()),
            Self::File(file, None) => write!(f, "`{}`", file.display()),
            Self::Variable(name) => write!(f, "environment variable `{name}`"),
            Self::Defaults => f.write_str("the defaults"),
        }
    }
}
