//! Which consumers a stream has.

use serde_json::{Value, json};

use crate::{Bus, error::BusError};

/// Pages of names that are read: a stream of ours has far fewer.
const PAGES_MAX: usize = 64;

impl Bus {
    /// The names of a stream's consumers, in order.
    pub async fn durables(&self, stream: &str) -> Result<Vec<String>, BusError> {
        let mut names = Vec::new();
        for _ in 0..PAGES_MAX {
            let asked = json!({ "offset": names.len() });
            let page = self
                .0
                .wire
                .api(&format!("CONSUMER.NAMES.{stream}"), &asked)
                .await
                .map_err(|error| error.about(stream))?;
            let found = page.get("consumers").and_then(Value::as_array);
            let found = found.into_iter().flatten().filter_map(Value::as_str);
            let before = names.len();
            names.extend(found.map(str::to_owned));
            let total = page.get("total").and_then(Value::as_u64).unwrap_or(0);
            if names.len() == before || names.len() as u64 >= total {
                break;
            }
        }
        names.sort();
        Ok(names)
    }
}
