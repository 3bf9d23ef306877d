//! `health`: is a server ready, as an exit code.

use std::fmt::Write as _;

use serde_json::Value;

use crate::{
    cli::HealthArgs,
    client::Client,
    commands::{Deadline, print},
    exit::{Ended, Exit},
};

pub(crate) async fn run(args: HealthArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let ask = async {
        let (is_ready, said) = client.readiness().await?;
        let text = describe(&said);
        if is_ready {
            print(&text)?;
            return Ok::<Exit, anyhow::Error>(Exit::Ok);
        }
        Err(Ended {
            exit: Exit::Error,
            message: text.trim_end().to_owned(),
        }
        .into())
    };
    match Deadline::after(args.timeout).limit(ask).await {
        // A health check knows one kind of no.
        Err(error) if Exit::of(&error) == Exit::Timeout => Err(Ended {
            exit: Exit::Error,
            message: error.to_string(),
        }
        .into()),
        ended => ended,
    }
}

/// The state in a line, then what is not ready, then what a person should know.
fn describe(said: &Value) -> String {
    let mut text = said["status"].as_str().unwrap_or("no state").to_owned();
    let checks = said["checks"].as_object().into_iter().flatten();
    let failing: Vec<&str> = checks
        .filter(|(_, ready)| **ready != Value::Bool(true))
        .map(|(name, _)| name.as_str())
        .collect();
    if !failing.is_empty() {
        text.push_str(": ");
        text.push_str(&failing.join(", "));
    }
    text.push('\n');
    for (name, note) in said["notes"].as_object().into_iter().flatten() {
        let note = note.as_str().unwrap_or_default();
        // A string takes all that is written to it.
        let _fits = writeln!(text, "{name}: {note}");
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_not_ready_is_named() {
        let said = json!({
            "status": "not ready",
            "checks": {"nats": false, "policy": true, "scanner": false},
            "notes": {"cache": "the disk is full"},
        });
        let expected = "not ready: nats, scanner\ncache: the disk is full\n";
        assert_eq!(describe(&said), expected);
    }
}
