//! Image configs: what their bytes say, as far as it can be read (OCI image-spec, "Image
//! Configuration").

use std::collections::BTreeMap;

use jiff::Timestamp;
use model::{
    Digest, Environment, Gap, GapCode, Hides, HistoryStep, ImageConfig, Platform, RuntimeConfig,
};
use serde_json::Value;

use crate::{
    Limits, OciError,
    keys::{self, ANY, Keys},
    manifest,
};

/// What runtimes look for in a config, as far as a report or a rule depends on it.
const KEYS: Keys = Keys(&[
    ("os", ANY),
    ("architecture", ANY),
    ("variant", ANY),
    ("created", ANY),
    ("rootfs", &Keys(&[("type", ANY), ("diff_ids", ANY)])),
    (
        "history",
        &Keys(&[("created_by", ANY), ("empty_layer", ANY)]),
    ),
    ("config", &RUNTIME_KEYS),
]);

const RUNTIME_KEYS: Keys = Keys(&[
    ("User", ANY),
    ("Entrypoint", ANY),
    ("Cmd", ANY),
    ("WorkingDir", ANY),
    ("ExposedPorts", ANY),
    ("Volumes", ANY),
    ("Healthcheck", &Keys(&[("Test", ANY)])),
    ("Labels", ANY),
    ("Env", ANY),
]);

/// Up to here a time means none: the first day of 1980, from which ZIP counts, is the last such beginning.
const NO_TIME_S: i64 = 315_619_200;

/// Bytes of one text of a config; what is beyond is cut off.
const TEXT_BYTES_MAX: usize = 64 << 10;
/// Items of one list of a config; what is beyond is dropped.
const ITEMS_MAX: usize = 4096;

/// Reads a config. It never fails: what cannot be read is a gap.
pub(crate) fn parse(bytes: &[u8], limits: &Limits) -> (ImageConfig, Vec<Gap>) {
    let value: Value = match serde_json::from_slice(bytes) {
        Ok(value @ Value::Object(_)) => value,
        Ok(_) => return (ImageConfig::default(), vec![bad("it is not a JSON object")]),
        Err(error) => return (ImageConfig::default(), vec![bad(&error.to_string())]),
    };
    let mut gaps = Vec::new();
    if let Err(error) = keys::check(bytes, &KEYS) {
        gaps.push(bad(&error.to_string()));
    }
    let config = ImageConfig {
        platform: platform(&value),
        created: value.get("created").and_then(created),
        diff_ids: diff_ids(&value, limits, &mut gaps),
        history: history(&value, limits),
        runtime: runtime(value.get("config").unwrap_or(&Value::Null)),
        is_written: false,
        environment: environment(value.pointer("/config/Env")),
    };
    (config, gaps)
}

/// The gap of a config that could not be read at all.
pub(crate) fn unreadable(error: &OciError) -> Gap {
    bad(&error.to_string())
}

/// A gap about the config. Without it the diffIDs that it claims cannot be compared, and no rule
/// about user or command can be judged; packages and files come from the layers all the same.
fn bad(detail: &str) -> Gap {
    let detail: String = detail.chars().take(300).collect();
    Gap::new(
        GapCode::BadConfig,
        Hides::Entries,
        format!("the image config: {detail}"),
    )
}

fn platform(value: &Value) -> Platform {
    let word = |key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default();
    let variant = Some(word("variant")).filter(|variant| !variant.is_empty());
    manifest::platform(word("os"), word("architecture"), variant).unwrap_or_default()
}

/// When it was built. What must come out the same each time is built at the beginning of some clock, or
/// in year 1: that is no time.
fn created(value: &Value) -> Option<Timestamp> {
    let at: Timestamp = value.as_str()?.parse().ok()?;
    (at.as_second() > NO_TIME_S).then_some(at)
}

fn diff_ids(value: &Value, limits: &Limits, gaps: &mut Vec<Gap>) -> Vec<Digest> {
    let Some(listed) = value.pointer("/rootfs/diff_ids").and_then(Value::as_array) else {
        gaps.push(bad("it has no `rootfs.diff_ids`"));
        return Vec::new();
    };
    let mut found = Vec::new();
    for listed in listed.iter().take(limits.layers_max) {
        let text = listed.as_str().unwrap_or_default();
        match text.parse() {
            Ok(digest) => found.push(digest),
            Err(error) => {
                // A hole would shift all claims after it to the wrong layer.
                gaps.push(bad(&format!("`rootfs.diff_ids`: {error}")));
                return Vec::new();
            }
        }
    }
    found
}

fn history(value: &Value, limits: &Limits) -> Vec<HistoryStep> {
    let steps = value
        .get("history")
        .and_then(Value::as_array)
        .map(Vec::as_slice);
    steps
        .unwrap_or_default()
        .iter()
        .take(limits.history_max)
        .map(|step| HistoryStep {
            created_by: step.get("created_by").and_then(text).unwrap_or_default(),
            empty_layer: step
                .get("empty_layer")
                .and_then(Value::as_bool)
                .unwrap_or_default(),
        })
        .collect()
}

fn runtime(config: &Value) -> RuntimeConfig {
    let filled = |key: &str| {
        config
            .get(key)
            .and_then(text)
            .filter(|text| !text.is_empty())
    };
    RuntimeConfig {
        user: filled("User"),
        entrypoint: words(config.get("Entrypoint")),
        cmd: words(config.get("Cmd")),
        workdir: filled("WorkingDir"),
        exposed_ports: keys(config.get("ExposedPorts")),
        volumes: keys(config.get("Volumes")),
        healthcheck: config
            .pointer("/Healthcheck/Test")
            .map(|test| words(Some(test))),
        labels: labels(config.get("Labels")),
        env_names: words(config.get("Env"))
            .iter()
            .map(|pair| name(pair))
            .collect(),
    }
}

fn environment(pairs: Option<&Value>) -> Environment {
    let pairs = words(pairs);
    let split = |pair: &String| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (name.to_owned(), value.to_owned())
    };
    Environment(pairs.iter().map(split).collect())
}

fn name(pair: &str) -> String {
    pair.split_once('=')
        .map_or(pair, |(name, _)| name)
        .to_owned()
}

/// A text, cut at the limit.
fn text(value: &Value) -> Option<String> {
    let text = value.as_str()?;
    let end = text.floor_char_boundary(TEXT_BYTES_MAX);
    text.get(..end).map(ToOwned::to_owned)
}

/// A list of texts; old builders wrote a single text where a list belongs.
fn words(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::Array(values)) => values.iter().take(ITEMS_MAX).filter_map(text).collect(),
        Some(value @ Value::String(_)) => text(value).into_iter().collect(),
        _ => Vec::new(),
    }
}

/// A set, which configs write as an object without values.
fn keys(value: Option<&Value>) -> Vec<String> {
    let keys = value
        .and_then(Value::as_object)
        .into_iter()
        .flat_map(serde_json::Map::keys);
    keys.take(ITEMS_MAX).cloned().collect()
}

fn labels(value: Option<&Value>) -> BTreeMap<String, String> {
    let pairs = value
        .and_then(Value::as_object)
        .into_iter()
        .flatten()
        .take(ITEMS_MAX);
    pairs
        .filter_map(|(key, value)| Some((key.clone(), text(value)?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn check(value: &Value) -> (ImageConfig, Vec<Gap>) {
        parse(&serde_json::to_vec(value).unwrap(), &Limits::default())
    }

    #[test]
    fn what_a_container_runs_with_is_read_without_values_of_the_environment() {
        let (config, gaps) = check(&json!({
            "os": "linux", "architecture": "arm64", "variant": "v8",
            "rootfs": {"type": "layers", "diff_ids": [Digest::of(b"a").to_string()]},
            "history": [{"created_by": "COPY x", "comment": "buildkit"}, {"empty_layer": true}],
            "config": {
                "User": "app", "Env": ["PATH=/bin", "TOKEN=hunter2"], "Entrypoint": ["/app"],
                "Cmd": "serve", "WorkingDir": "/srv", "ExposedPorts": {"80/tcp": {}},
                "Volumes": {"/data": {}}, "Healthcheck": {"Test": ["CMD", "true"]},
                "Labels": {"team": "blue"},
            },
        }));
        assert_eq!(gaps, []);
        assert!(!format!("{config:?}").contains("hunter2"));
        let token = ("TOKEN".to_owned(), "hunter2".to_owned());
        assert_eq!(config.environment.0.last(), Some(&token));
        insta::assert_json_snapshot!(config, @r#"
        {
          "platform": "linux/arm64/v8",
          "diff_ids": [
            "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
          ],
          "history": [
            {
              "created_by": "COPY x",
              "empty_layer": false
            },
            {
              "created_by": "",
              "empty_layer": true
            }
          ],
          "runtime": {
            "user": "app",
            "entrypoint": [
              "/app"
            ],
            "cmd": [
              "serve"
            ],
            "workdir": "/srv",
            "exposed_ports": [
              "80/tcp"
            ],
            "volumes": [
              "/data"
            ],
            "healthcheck": [
              "CMD",
              "true"
            ],
            "labels": {
              "team": "blue"
            },
            "env_names": [
              "PATH",
              "TOKEN"
            ]
          }
        }
        "#);
    }

    #[test]
    fn the_beginning_of_a_clock_is_no_time_of_a_build() {
        let created = |text: &str| {
            let (config, _) = check(&json!({"created": text}));
            config.created.map(|at| at.to_string())
        };
        let built = "2026-01-02T03:04:05.123Z";
        assert_eq!(created(built).as_deref(), Some(built));
        for text in [
            "0001-01-01T00:00:00Z",
            "1970-01-01T00:00:01Z",
            "1980-01-01T00:00:00Z",
            "yesterday",
        ] {
            assert_eq!(created(text), None, "{text}");
        }
    }

    #[test]
    fn a_broken_config_is_a_gap_and_the_rest_of_it_is_read() {
        for value in [
            json!(3),
            json!({}),
            json!({"rootfs": {"diff_ids": ["sha256:zz"]}}),
        ] {
            let (config, gaps) = check(&value);
            assert_eq!(gaps.len(), 1, "{value}");
            assert_eq!(gaps[0].code, GapCode::BadConfig);
            assert_eq!(config.diff_ids, []);
        }
        let (config, gaps) = check(&json!({
            "rootfs": {"diff_ids": [Digest::of(b"a").to_string()]}, "RootFS": {"diff_ids": []},
        }));
        assert_eq!(config.diff_ids.len(), 1);
        assert!(gaps[0].detail.contains("`RootFS` for `rootfs`"), "{gaps:?}");
        let (config, gaps) = check(&json!({"config": {"User": "0", "Env": 3, "Labels": []}}));
        assert_eq!(config.runtime.user.as_deref(), Some("0"));
        assert_eq!(gaps.len(), 1);
    }

    proptest! {
        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _parsed = parse(&bytes, &Limits::default());
        }
    }
}
