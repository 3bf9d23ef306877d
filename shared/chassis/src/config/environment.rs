//! Environment variables as keys of the configuration.

use serde_json::{Map, Value};

/// A variable that sets a key.
#[derive(Debug)]
pub(super) struct Override {
    pub(super) name: String,
    path: Vec<String>,
    text: String,
    /// The text read as YAML, so that numbers, lists and groups can be given.
    value: Value,
}

/// The variables that are configuration, in the order of their names.
pub(super) fn overrides(
    prefix: &str,
    variables: impl Iterator<Item = (String, String)>,
    defaults: &Value,
) -> Vec<Override> {
    let mut found: Vec<_> = variables
        .filter_map(|(name, text)| {
            let key = name
                .strip_prefix(prefix)?
                .strip_prefix('_')?
                .to_ascii_lowercase();
            let path: Vec<String> = key.split("__").map(ToOwned::to_owned).collect();
            let first = path.first()?;
            (path.len() > 1 || defaults.get(first).is_some()).then(|| Override {
                value: scalar(&text, defaults, &path),
                name,
                path,
                text,
            })
        })
        .collect();
    found.sort_by(|a, b| a.name.cmp(&b.name));
    found
}

/// What a variable says: text where the default is text, else what YAML makes of it.
fn scalar(text: &str, defaults: &Value, path: &[String]) -> Value {
    let default = path.iter().try_fold(defaults, |tree, key| tree.get(key));
    let parsed = if default.is_some_and(Value::is_string) {
        None
    } else {
        serde_saphyr::from_str::<Value>(text).ok()
    };
    parsed.unwrap_or_else(|| Value::String(text.to_owned()))
}

impl Override {
    pub(super) fn apply(&self, tree: &mut Value) {
        let mut place = tree;
        for key in &self.path {
            if !place.is_object() {
                *place = Value::Object(Map::new());
            }
            let Value::Object(group) = place else { return };
            place = group.entry(key.clone()).or_insert(Value::Null);
        }
        place.clone_from(&self.value);
    }

    /// Whether an error at `key` (as `a.b[0].c`) can come from this variable.
    pub(super) fn is_at(&self, key: &str) -> bool {
        let segments = key
            .split('.')
            .filter_map(|segment| segment.split('[').next());
        key != "."
            && self
                .path
                .iter()
                .zip(segments)
                .all(|(own, segment)| own == segment)
    }

    /// Takes the value as plain text from here on: `1.10` may be a version. False if it was.
    pub(super) fn read_as_text(&mut self) -> bool {
        let text = Value::String(self.text.clone());
        let changes = self.value != text;
        self.value = text;
        changes
    }
}
