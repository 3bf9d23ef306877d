//! The sink `slack`: a message in a channel, by an incoming webhook.
//!
//! The webhook's URL is a secret: who has it may write to the channel. The message is built of
//! blocks within Slack's limits (50 blocks; 150 characters in a header; 3,000 in a text), and all
//! text of an alert is escaped as Slack asks, so that an image named `<!channel>` wakes nobody.
//! Slack knows no message id, so a copy cannot be dropped there; its id stands at its foot.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use chassis::SecretRef;
use model::Severity;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use url::Url;

use crate::sinks::{Item, Outgoing, outgoing::clip, send::Request};

const HEADER_CHARS_MAX: usize = 150;
/// Of Slack's 3,000: escaping makes of one character five at most, and that is counted before.
const TEXT_CHARS_MAX: usize = 2_900;
/// Of an alert in a list, so that twenty of them stay one message.
const LISTED_CHARS_MAX: usize = 600;

/// Which channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The incoming webhook's URL; read for each alert, so it may be renewed.
    pub url: SecretRef,
    /// How long Slack may take, milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

// === impl Config ===

impl Config {
    #[expect(
        clippy::unused_self,
        clippy::unnecessary_wraps,
        reason = "every sink is asked; the URL is looked at when it is read"
    )]
    pub(crate) const fn check(&self) -> anyhow::Result<()> {
        Ok(())
    }

    pub(crate) fn render(&self, outgoing: &Outgoing) -> anyhow::Result<Request> {
        let secret = self.url.read().context("reading its webhook's URL")?;
        // What is wrong with it may hold the secret, so it is not repeated.
        let url = Url::parse(secret.expose()).ok();
        let url = url.context("its webhook's URL is none")?;
        ensure!(
            matches!(url.scheme(), "https" | "http"),
            "its webhook's URL does not begin with `https`"
        );
        Ok(Request {
            url,
            headers: vec![("content-type".to_owned(), "application/json".to_owned())],
            bearer: None,
            signing: Vec::new(),
            body: serde_json::to_vec(&message(outgoing)).context("writing the message")?,
            timeout: Duration::from_millis(self.timeout_ms),
        })
    }
}

fn message(outgoing: &Outgoing) -> Value {
    let severity = outgoing.severity();
    let mark = if outgoing.is_raised() {
        mark(severity)
    } else {
        ":white_check_mark:"
    };
    let title = outgoing.title();
    let mut blocks = vec![json!({
        "type": "header",
        "text": {
            "type": "plain_text",
            "text": escape(&format!("{mark} {title}"), HEADER_CHARS_MAX),
            "emoji": true,
        },
    })];
    match outgoing.single() {
        Some(item) => blocks.extend(details(item)),
        None => blocks.extend(list(outgoing)),
    }
    let foot = format!("{severity} · tenant {} · {}", outgoing.tenant, outgoing.id);
    blocks.push(json!({
        "type": "context",
        "elements": [{ "type": "plain_text", "text": escape(&foot, 300), "emoji": false }],
    }));
    // The text is for notifications, where blocks are not shown.
    json!({ "text": escape(&title, HEADER_CHARS_MAX), "blocks": blocks })
}

fn details(item: &Item) -> Vec<Value> {
    let alert = &item.alert;
    let mut blocks = Vec::new();
    if !alert.text.is_empty() {
        blocks.push(section(&escape(&alert.text, TEXT_CHARS_MAX)));
    }
    let mut lines: Vec<String> = alert
        .references
        .iter()
        .take(3)
        .map(|reference| format!("*Name* {}", escape(reference, 300)))
        .collect();
    if let Some(image) = alert.image {
        lines.push(format!("*Image* `{image}`"));
    }
    if !lines.is_empty() {
        blocks.push(section(&lines.join("\n")));
    }
    blocks
}

fn list(outgoing: &Outgoing) -> Vec<Value> {
    let (listed, more) = outgoing.listed();
    let mut blocks: Vec<Value> = listed
        .iter()
        .map(|item| {
            let mark = if item.is_raised() {
                mark(item.alert.severity)
            } else {
                ":white_check_mark:"
            };
            let first = item.alert.text.lines().next().unwrap_or_default();
            let title = escape(&item.title(), LISTED_CHARS_MAX / 2);
            let first = escape(first, LISTED_CHARS_MAX / 2);
            section(&format!("{mark} *{title}*\n{first}"))
        })
        .collect();
    if more > 0 {
        blocks.push(section(&format!("and {more} more")));
    }
    blocks
}

/// `verbatim` keeps Slack from making links and mentions of what looks like one.
fn section(text: &str) -> Value {
    json!({
        "type": "section",
        "text": { "type": "mrkdwn", "text": text, "verbatim": true },
    })
}

const fn mark(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical => ":red_circle:",
        Severity::High => ":large_orange_circle:",
        Severity::Medium => ":large_yellow_circle:",
        Severity::Low | Severity::Negligible | Severity::Unknown => ":white_circle:",
    }
}

/// `&`, `<` and `>` as Slack asks, control characters but line ends left out, and at most `max`
/// characters after all that; no entity is cut.
fn escape(text: &str, max: usize) -> String {
    let mut out = String::new();
    let (mut count, mut is_cut) = (0, false);
    for c in clip(text, max).chars() {
        let entity = match c {
            '&' => "&amp;",
            '<' => "&lt;",
            '>' => "&gt;",
            c if c.is_control() && c != '\n' => continue,
            _ => "",
        };
        let size = entity.len().max(1);
        if count + size >= max {
            is_cut = true;
            break;
        }
        count += size;
        if entity.is_empty() {
            out.push(c);
        } else {
            out.push_str(entity);
        }
    }
    if is_cut {
        out.push('…');
    }
    out
}

const fn timeout_ms() -> u64 {
    10_000
}

#[cfg(test)]
mod tests {
    use proptest::prelude::{any, prop_assert, proptest};

    use super::*;

    #[test]
    fn text_is_escaped_and_cut_between_entities() {
        assert_eq!(escape("<!channel> & co", 100), "&lt;!channel&gt; &amp; co");
        assert_eq!(escape("<<<<", 10), "&lt;&lt;…");
        assert_eq!(escape("a\u{0}b\nc", 10), "ab\nc");
    }

    proptest! {
        #[test]
        fn no_text_is_longer_than_allowed(text in any::<String>(), max in 1_usize..40) {
            let escaped = escape(&text, max);
            prop_assert!(escaped.chars().count() <= max);
            prop_assert!(!escaped.contains(['<', '>']));
        }
    }
}
