//! Where each value of a configuration comes from.

use std::path::Path;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use super::{ConfigError, Origin, environment, load_from, parse, read};

/// A setting as it is in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Setting {
    /// Its key, with its levels: `http.listen`.
    pub key: String,
    /// Its value; a list is one value.
    pub value: Value,
    /// Who gave it.
    pub origin: Origin,
}

/// The settings that [`super::load`] reads, in the order of their keys.
pub fn explain<T>(file: Option<&Path>, prefix: &str) -> Result<Vec<Setting>, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    explain_from::<T>(file, prefix, super::variables())
}

/// The leaves of a tree of keys, in the order of their keys.
pub fn leaves(tree: &Value) -> Vec<(String, &Value)> {
    let mut found = Vec::new();
    let mut open = vec![(String::new(), tree)];
    while let Some((key, value)) = open.pop() {
        match value.as_object().filter(|group| !group.is_empty()) {
            Some(group) => open.extend(group.iter().map(|(name, value)| {
                let dot = if key.is_empty() { "" } else { "." };
                (format!("{key}{dot}{name}"), value)
            })),
            None => found.push((key, value)),
        }
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

/// [`explain`] with the environment as an argument.
pub(super) fn explain_from<T>(
    file: Option<&Path>,
    prefix: &str,
    variables: impl Iterator<Item = (String, String)> + Clone,
) -> Result<Vec<Setting>, ConfigError>
where
    T: DeserializeOwned + Serialize + Default,
{
    let wrong = |error: serde_json::Error| ConfigError::Defaults(error.to_string());
    let config: T = load_from(file, prefix, variables.clone())?;
    let in_force = serde_json::to_value(config).map_err(wrong)?;
    let defaults = serde_json::to_value(T::default()).map_err(wrong)?;
    let overrides = environment::overrides(prefix, variables, &defaults);
    let given = match file {
        Some(file) => parse(file, &read(file)?)?,
        None => Value::Null,
    };
    let origin = |key: &str| {
        if let Some(variable) = overrides.iter().find(|variable| variable.is_at(key)) {
            return Origin::Variable(variable.name.clone());
        }
        match file.filter(|_| names(&given, key)) {
            Some(file) => Origin::File(file.to_owned(), None),
            None => Origin::Defaults,
        }
    };
    let setting = |(key, value): (String, &Value)| Setting {
        origin: origin(&key),
        value: value.clone(),
        key,
    };
    Ok(leaves(&in_force).into_iter().map(setting).collect())
}

/// Whether a document gives a key, or a whole group that it is in.
fn names(given: &Value, key: &str) -> bool {
    let mut place = given;
    for level in key.split('.') {
        match place {
            Value::Object(group) => match group.get(level) {
                Some(Value::Null) | None => return false,
                Some(inner) => place = inner,
            },
            // A list or a value stands where the defaults have a group.
            _ => return true,
        }
    }
    true
}
