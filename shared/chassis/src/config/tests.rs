use serde::Deserialize;

use super::*;

#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    data_dir: Option<PathBuf>,
    gateway: Gateway,
    sources: Vec<Source>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Gateway {
    listen: String,
    workers: u32,
    label: Option<String>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Source {
    host: String,
}

impl Default for Gateway {
    fn default() -> Self {
        Self {
            listen: "127.0.0.1:8080".to_owned(),
            workers: 4,
            label: None,
        }
    }
}

fn check(file: Option<&str>, variables: &[(&str, &str)]) -> Result<Config, String> {
    let folder = tempfile::tempdir().unwrap();
    let path = file.map(|text| {
        let path = folder.path().join("tidewaiter.yaml");
        std::fs::write(&path, text).unwrap();
        path
    });
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    load_from(path.as_deref(), "TIDEWAITER", variables).map_err(|error| {
        error
            .to_string()
            .replace(&format!("{}/", folder.path().display()), "")
    })
}

#[test]
fn the_environment_wins_over_the_file_and_the_file_over_defaults() {
    let file = "gateway:\n  listen: 0.0.0.0:1\n  workers: 8\nsources: [{host: a}]\n";
    let config = check(
        Some(file),
        &[
            ("TIDEWAITER_GATEWAY__WORKERS", "16"),
            ("TIDEWAITER_DATA_DIR", "/data"),
        ],
    )
    .unwrap();
    assert_eq!(config.gateway.listen, "0.0.0.0:1");
    assert_eq!(config.gateway.workers, 16);
    assert_eq!(config.data_dir, Some(PathBuf::from("/data")));
    assert_eq!(config.sources.len(), 1);
    assert_eq!(check(None, &[]), Ok(Config::default()));
    assert_eq!(check(Some("# nothing\n"), &[]), Ok(Config::default()));
    assert_eq!(check(Some("gateway:\n"), &[]), Ok(Config::default()));
}

#[test]
fn variables_are_read_as_what_the_key_wants() {
    let label = |text| {
        check(None, &[("TIDEWAITER_GATEWAY__LABEL", text)])
            .unwrap()
            .gateway
            .label
    };
    assert_eq!(label("1.10"), Some("1.10".to_owned()));
    assert_eq!(label("true"), Some("true".to_owned()));
    assert_eq!(label("plain"), Some("plain".to_owned()));
    let listed = check(None, &[("TIDEWAITER_SOURCES", "[{host: a}, {host: b}]")]).unwrap();
    assert_eq!(listed.sources.len(), 2);
    let text = check(None, &[("TIDEWAITER_GATEWAY__LISTEN", "[::]:80")]).unwrap();
    assert_eq!(text.gateway.listen, "[::]:80");
}

#[test]
fn variables_of_others_do_no_harm() {
    let variables = [
        ("TIDEWAITER_PORT", "tcp://10.0.0.1:80"),
        ("TIDEWAITER_GATEWAY_SERVICE_HOST", "10.0.0.1"),
        ("TIDEWAITER_TEST_DATA", "/data"),
        ("OTHER_GATEWAY__LISTEN", "x"),
    ];
    assert_eq!(check(None, &variables), Ok(Config::default()));
}

#[test]
fn errors_name_the_place_and_the_key() {
    let errors = [
        check(Some("gateway:\n  listen: x\n  lisen: y\n"), &[]),
        check(Some("gatway: {}\n"), &[]),
        check(Some("gateway:\n  workers: many\n"), &[]),
        check(Some("sources:\n- host: a\n- hots: b\n"), &[]),
        check(Some("sources:\n- {}\n"), &[]),
        check(Some("- a\n"), &[]),
        check(Some("gateway: {listen: x\n"), &[]),
        check(None, &[("TIDEWAITER_GATEWAY__WORKERS", "many")]),
        check(None, &[("TIDEWAITER_GATEWAY__LISEN", "x")]),
        check(None, &[("TIDEWAITER_GATWAY__LISTEN", "x")]),
    ];
    let errors = errors.map(Result::unwrap_err).join("\n");
    insta::assert_snapshot!(errors, @r#"
    `tidewaiter.yaml` line 3, key `gateway.lisen`: unknown field `lisen`, expected one of `listen`, `workers`, `label`
    `tidewaiter.yaml` line 1, key `gatway`: unknown field `gatway`, expected one of `data_dir`, `gateway`, `sources`
    `tidewaiter.yaml` line 2, key `gateway.workers`: invalid type: string "many", expected u32
    `tidewaiter.yaml` line 3, key `sources[1].hots`: unknown field `hots`, expected `host`
    `tidewaiter.yaml` line 2, key `sources[0]`: missing field `host`
    `tidewaiter.yaml` is not a YAML document with keys: it holds a single value or a list
    `tidewaiter.yaml` is not a YAML document with keys: unclosed bracket '{' at line 1, column 10
    environment variable `TIDEWAITER_GATEWAY__WORKERS`, key `gateway.workers`: invalid type: string "many", expected u32
    environment variable `TIDEWAITER_GATEWAY__LISEN`, key `gateway.lisen`: unknown field `lisen`, expected one of `listen`, `workers`, `label`
    environment variable `TIDEWAITER_GATWAY__LISTEN`, key `gatway`: unknown field `gatway`, expected one of `data_dir`, `gateway`, `sources`
    "#);
}

#[test]
fn a_missing_file_is_an_error() {
    let none = Path::new("/nonexistent/tidewaiter.yaml");
    let error = load_from::<Config>(Some(none), "TIDEWAITER", std::iter::empty()).unwrap_err();
    assert!(matches!(error, ConfigError::Read { .. }), "{error}");
}

#[test]
fn each_setting_says_who_gave_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tidewaiter.yaml");
    std::fs::write(&path, "gateway: {listen: a, workers: 2}\n").unwrap();
    let variable = ("TIDEWAITER_GATEWAY__WORKERS".to_owned(), "3".to_owned());
    let variables = [variable].into_iter();
    let settings = explain::explain_from::<Config>(Some(&path), "TIDEWAITER", variables).unwrap();
    let shown: Vec<_> = settings
        .iter()
        .map(|setting| {
            let origin = match &setting.origin {
                Origin::File(..) => "file",
                Origin::Variable(name) => name,
                Origin::Defaults => "default",
            };
            format!("{} {} {origin}", setting.key, setting.value)
        })
        .collect();
    assert_eq!(
        shown,
        [
            "data_dir null default",
            "gateway.label null default",
            "gateway.listen \"a\" file",
            "gateway.workers 3 TIDEWAITER_GATEWAY__WORKERS",
            "sources [] default",
        ]
    );
}
