//! `check`: the verdict that a server has on an image.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use model::{Decision, Digest, Platform, Verdict};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    cli::{CheckArgs, Format},
    client::Client,
    commands::print,
    exit::{Ended, Exit},
};

/// The longest wait that one request asks for; the server allows 120 s.
const WAIT_MAX: Duration = Duration::from_mins(1);
/// How often a verdict is asked for where no request can be waited on.
const POLL: Duration = Duration::from_millis(500);

/// The answers of `GET /v1/verdicts` and `GET /v1/scans/{id}`, as far as they are needed here.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Answer {
    #[serde(default)]
    index_digest: Option<Digest>,
    #[serde(default)]
    decision: Option<Decision>,
    #[serde(default)]
    verdict: Option<Verdict>,
    #[serde(default)]
    images: Vec<ImageVerdict>,
    /// Why a scan request led nowhere.
    #[serde(default)]
    error: Option<String>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct ImageVerdict {
    image: Digest,
    #[serde(default)]
    platform: Platform,
    #[serde(default)]
    verdict: Option<Verdict>,
}

#[derive(Debug, Deserialize)]
struct Accepted {
    id: String,
}

pub(crate) async fn run(args: CheckArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let deadline = Instant::now() + args.wait;
    let answer = if args.scan {
        requested(&client, &args.image, deadline).await?
    } else {
        known(&client, &args.image, deadline).await?
    };
    let Some((answer, decision)) = answer.and_then(|answer| {
        let decision = answer.decision?;
        Some((answer, decision))
    }) else {
        let hint = if args.wait.is_zero() {
            "; --wait 60s waits, --scan asks for a scan"
        } else {
            ""
        };
        let message = format!("no verdict on `{}` yet{hint}", args.image);
        return Err(Ended {
            exit: Exit::NoVerdict,
            message,
        }
        .into());
    };
    match args.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))?,
        Format::Table => print(&table(&args.image, decision, &answer)?)?,
    }
    Ok(Exit::decided(
        decision,
        args.exit_code,
        args.allow_incomplete,
    ))
}

/// The verdict on what the server knows.
async fn known(client: &Client, image: &str, deadline: Instant) -> anyhow::Result<Option<Answer>> {
    loop {
        let query = [("image", image.to_owned())];
        let answer = client.get::<Answer>("/v1/verdicts", &query).await?;
        if answer
            .as_ref()
            .is_some_and(|answer| answer.decision.is_some())
        {
            return Ok(answer);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(answer);
        }
        tokio::time::sleep(left.min(POLL)).await;
    }
}

/// Asks for a scan and waits for its verdict.
async fn requested(
    client: &Client,
    image: &str,
    deadline: Instant,
) -> anyhow::Result<Option<Answer>> {
    let accepted: Accepted = client.post("/v1/scans", &json!({ "image": image })).await?;
    let path = format!("/v1/scans/{}", accepted.id);
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let wait = left.min(WAIT_MAX).as_secs();
        let answer = client
            .get::<Answer>(&path, &[("wait", wait.to_string())])
            .await?;
        let answer = answer.context("the server forgot the scan that it accepted")?;
        if let Some(error) = &answer.error {
            let message = format!("`{image}` could not be scanned: {error}");
            return Err(Ended {
                exit: Exit::Pull,
                message,
            }
            .into());
        }
        if answer.decision.is_some() || left.is_zero() {
            return Ok(Some(answer));
        }
    }
}

fn table(image: &str, decision: Decision, answer: &Answer) -> anyhow::Result<String> {
    let mut text = format!("{image}: {decision}\n");
    for one in &answer.images {
        let Some(verdict) = &one.verdict else {
            continue;
        };
        writeln!(
            text,
            "\n  {} ({}): {}",
            one.image, one.platform, verdict.decision
        )?;
        writeln!(
            text,
            "  policy {} (revision {}), advisories revision {}",
            verdict.policy, verdict.policy_revision, verdict.advisory_revision
        )?;
        for reason in &verdict.reasons {
            writeln!(
                text,
                "  - {} [{}] {}",
                reason.decision,
                reason.rule,
                clean(&reason.message)
            )?;
            if !reason.remediation.is_empty() {
                writeln!(text, "    {}", clean(&reason.remediation))?;
            }
        }
        if let Some(until) = verdict.valid_until {
            writeln!(text, "  holds until {until}")?;
        }
    }
    Ok(text)
}

/// Text from an image on its way to a terminal.
fn clean(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    #[test]
    fn an_answer_without_a_verdict_is_read() {
        let answer: Answer =
            serde_json::from_value(json!({"state": "pending", "decision": Value::Null})).unwrap();
        assert!(answer.decision.is_none());
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(clean("a\u{1b}[31mb\n"), "a [31mb ");
    }
}
