//! `config`: what is in force, and who said so.

use chassis::config::{Origin, Setting};
use report::{Cell, Column, Cut, Grid};
use serde_json::{Value, json};

use crate::{
    cli::{ConfigCommand, Format, Global, ServeArgs},
    commands::print,
    config::Config,
    exit::Exit,
    terminal,
};

/// Flags that are settings.
const FLAGS: &[(&str, &str)] = &[
    ("telemetry.log", "--log"),
    ("data_dir", "--data-dir"),
    ("http.listen", "--listen"),
    ("bus.url", "--nats-url"),
];

/// A setting as it is shown.
struct Shown {
    key: String,
    value: Value,
    /// `default`, a file, a variable or a flag.
    from: String,
    is_default: bool,
}

pub(crate) fn run(global: &Global, command: ConfigCommand) -> anyhow::Result<Exit> {
    let ConfigCommand::Show {
        given,
        format,
        serve,
    } = command;
    let mut shown = settings(global, &serve)?;
    shown.retain(|setting| !given || !setting.is_default);
    match format {
        Format::Json => {
            let settings: Vec<_> = shown
                .iter()
                .map(|one| json!({"key": one.key, "value": one.value, "from": one.from}))
                .collect();
            print(&format!("{}\n", serde_json::to_string_pretty(&settings)?))?;
        }
        Format::Table => print(&table(&shown)?)?,
    }
    Ok(Exit::Ok)
}

/// The settings with what flags change of them.
fn settings(global: &Global, serve: &ServeArgs) -> anyhow::Result<Vec<Shown>> {
    let before = Config::explain(global)?;
    let after = serde_json::to_value(Config::load(global)?.for_serve(serve))?;
    let after = chassis::config::leaves(&after);
    let now = |setting: &Setting| {
        let found = after.iter().find(|(key, _)| *key == setting.key);
        found.map_or(&Value::Null, |(_, value)| *value).clone()
    };
    Ok(before
        .into_iter()
        .map(|setting| {
            let value = now(&setting);
            let flag = FLAGS.iter().find(|(key, _)| *key == setting.key);
            let from = match (&setting.origin, value == setting.value) {
                (_, false) => flag.map_or("a flag", |(_, flag)| flag).to_owned(),
                (Origin::Defaults, true) => "default".to_owned(),
                (Origin::File(file, _), true) => file.display().to_string(),
                (Origin::Variable(name), true) => name.clone(),
            };
            Shown {
                is_default: from == "default",
                key: setting.key,
                value: masked(value),
                from,
            }
        })
        .collect())
}

fn table(shown: &[Shown]) -> anyhow::Result<String> {
    let column = |title, cut| Column { title, cut };
    let mut grid = Grid::new(&[
        column("SETTING", Cut::Last),
        column("VALUE", Cut::End),
        column("FROM", Cut::Start),
    ]);
    for setting in shown {
        let value = match &setting.value {
            Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        grid.row([
            Cell::new(&setting.key),
            Cell::new(value),
            Cell::new(&setting.from),
        ]);
    }
    let mut out = Vec::new();
    grid.write(terminal::width(), terminal::color_out(), &mut out)?;
    Ok(String::from_utf8(out)?)
}

/// A value without the password of a URL in it.
fn masked(value: Value) -> Value {
    let Value::String(text) = &value else {
        return match value {
            Value::Array(items) => Value::Array(items.into_iter().map(masked).collect()),
            other => other,
        };
    };
    let hidden = text.split_once("://").and_then(|(scheme, rest)| {
        let authority = rest.split(['/', '?', '#']).next()?;
        let (_, host) = authority.rsplit_once('@')?;
        let path = rest.strip_prefix(authority)?;
        Some(format!("{scheme}://***@{host}{path}"))
    });
    hidden.map_or(value, Value::String)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_not_shown() {
        let check = |text: &str, expected: &str| {
            assert_eq!(masked(json!([text])), json!([expected]));
        };
        check("nats://a:b@host:4222", "nats://***@host:4222");
        check("https://token@host/p?q@r", "https://***@host/p?q@r");
        check("nats://host:4222", "nats://host:4222");
        check("user@example.com", "user@example.com");
    }

    #[test]
    fn flags_that_are_settings_exist() {
        let config = serde_json::to_value(Config::default()).unwrap();
        let keys = chassis::config::leaves(&config);
        for (key, _) in FLAGS {
            assert!(keys.iter().any(|(known, _)| known == key), "{key}");
        }
    }
}
