//! `dlq`: dead letters, and the way back for them. It talks with NATS itself: when messages die,
//! the rest of the fabric may be what is broken.

use std::fmt::Write as _;

use anyhow::{Context as _, bail};
use bus::{Bus, Letter, Letters, Retried, permissions::Role};
use chassis::Cx;
use model::{Digest, event::AttemptCounts};
use serde::Serialize;
use serde_json::Value;

use crate::{
    broker,
    cli::{DlqCommand, Format},
    commands::print,
    config::Config,
    exit::Exit,
};

/// A decoded event that is longer as JSON is only described.
const SHOWN_BYTES_MAX: usize = 64 * 1024;
/// So much of a cause fits a line of the table.
const CAUSE_CHARS_MAX: usize = 90;

/// A page of letters, for programs.
#[derive(Serialize)]
struct Page {
    letters: Vec<Line>,
    /// What `--before` takes for the next page.
    before: Option<u64>,
}

/// A letter in a list.
#[derive(Serialize)]
struct Line {
    number: u64,
    at: String,
    stream: String,
    consumer: String,
    sequence: u64,
    subject: String,
    cause: String,
    trace: Option<String>,
    attempts: AttemptCounts,
}

/// A whole letter.
#[derive(Serialize)]
struct Whole {
    #[serde(flatten)]
    line: Line,
    headers: Vec<(String, String)>,
    body_bytes: usize,
    body_sha256: String,
    /// The message as JSON, where its type is known and its size is not too large.
    event: Option<Value>,
    /// Why there is no event.
    event_missing: Option<String>,
}

pub(crate) async fn run(config: Config, command: DlqCommand) -> anyhow::Result<Exit> {
    let cx = Cx::system();
    let broker = match &command {
        DlqCommand::List { broker, .. }
        | DlqCommand::Show { broker, .. }
        | DlqCommand::Retry { broker, .. }
        | DlqCommand::Drop { broker, .. } => broker,
    };
    let bus = broker::connect(&cx, &config, broker, Role::Operator).await?;
    let ended = match command {
        DlqCommand::List {
            limit,
            before,
            format,
            ..
        } => list(&bus, before, usize::from(limit), format).await,
        DlqCommand::Show { number, format, .. } => show(&bus, number, format).await,
        DlqCommand::Retry { numbers, .. } => retry(&bus, &numbers).await,
        DlqCommand::Drop { numbers, .. } => remove(&bus, &numbers).await,
    };
    cx.stop();
    ended
}

async fn list(
    bus: &Bus,
    before: Option<u64>,
    limit: usize,
    format: Format,
) -> anyhow::Result<Exit> {
    let page = bus.dead_letters(before, limit).await;
    let Letters { letters, before } = page.context("reading dead letters")?;
    let letters = letters.into_iter().map(Line::from).collect();
    let page = Page { letters, before };
    match format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&page)?))?,
        Format::Table => print(&table(&page)?)?,
    }
    Ok(Exit::Ok)
}

async fn show(bus: &Bus, number: u64, format: Format) -> anyhow::Result<Exit> {
    let letter = bus
        .dead_letter(number)
        .await
        .context("reading the letter")?;
    let Some(letter) = letter else {
        bail!("there is no dead letter {number}");
    };
    let whole = Whole::from(letter);
    match format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&whole)?))?,
        Format::Table => print(&whole.text()?)?,
    }
    Ok(Exit::Ok)
}

async fn retry(bus: &Bus, numbers: &[u64]) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    for number in numbers {
        let retried = bus.retry_letter(*number).await;
        let what = match retried.with_context(|| format!("retrying letter {number}"))? {
            Some(Retried::Again) => "its message comes again",
            Some(Retried::Superseded) => {
                "dropped: its record was replaced since, and that was seen"
            }
            None => {
                exit = Exit::Error;
                "there is no such letter"
            }
        };
        print(&format!("{number}: {what}\n"))?;
    }
    Ok(exit)
}

async fn remove(bus: &Bus, numbers: &[u64]) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    for number in numbers {
        let dropped = bus.drop_letter(*number).await;
        let what = if dropped.with_context(|| format!("dropping letter {number}"))? {
            "dropped"
        } else {
            exit = Exit::Error;
            "there is no such letter"
        };
        print(&format!("{number}: {what}\n"))?;
    }
    Ok(exit)
}

fn table(page: &Page) -> anyhow::Result<String> {
    if page.letters.is_empty() {
        return Ok("no dead letters\n".to_owned());
    }
    let mut text = format!(
        "{:>7}  {:<20}  {:<30}  CAUSE\n",
        "NUMBER", "WHEN", "CONSUMER"
    );
    for line in &page.letters {
        let Line {
            number,
            at,
            consumer,
            cause,
            ..
        } = line;
        let cause = shortened(cause);
        writeln!(text, "{number:>7}  {at:<20}  {consumer:<30}  {cause}")?;
    }
    if let Some(before) = page.before {
        writeln!(text, "older ones: --before {before}")?;
    }
    Ok(text)
}

/// One line, and not a long one.
fn shortened(cause: &str) -> String {
    let mut line: String = one_line(cause).chars().take(CAUSE_CHARS_MAX).collect();
    if cause.chars().count() > CAUSE_CHARS_MAX {
        line.push('…');
    }
    line
}

fn one_line(text: &str) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(plain).collect()
}

// === impl Line, Whole ===

impl From<Letter> for Line {
    fn from(letter: Letter) -> Self {
        let Letter { number, letter } = letter;
        Self {
            number,
            at: format!("{:.0}", letter.at),
            stream: letter.stream,
            consumer: letter.consumer,
            sequence: letter.sequence,
            subject: letter.subject,
            cause: letter.cause,
            trace: letter.trace,
            attempts: letter.attempts,
        }
    }
}

impl From<Letter> for Whole {
    fn from(mut found: Letter) -> Self {
        let headers = std::mem::take(&mut found.letter.headers);
        let body = std::mem::take(&mut found.letter.body);
        let kind = headers
            .iter()
            .find(|(name, _)| name.eq_ignore_ascii_case("ce-type"))
            .map(|(_, kind)| kind.as_str());
        let (event, event_missing) = match event(kind, &body) {
            Ok(event) => (Some(event), None),
            Err(why) => (None, Some(why)),
        };
        Self {
            line: found.into(),
            body_bytes: body.len(),
            body_sha256: Digest::of(&body).hex(),
            headers,
            event,
            event_missing,
        }
    }
}

/// What a message says, or why that is not shown.
fn event(kind: Option<&str>, body: &[u8]) -> Result<Value, String> {
    if body.is_empty() {
        return Err("its body is kept as an object".to_owned());
    }
    let kind = kind.ok_or("it has no type")?;
    let decoded = bus::to_json(kind, body).map_err(|error| error.to_string())?;
    let decoded = decoded.ok_or_else(|| format!("type `{kind}` is not known here"))?;
    let size = decoded.to_string().len();
    if size > SHOWN_BYTES_MAX {
        return Err(format!("it is too large to show: {size} bytes as JSON"));
    }
    Ok(decoded)
}

impl Whole {
    fn text(&self) -> anyhow::Result<String> {
        let line = &self.line;
        let AttemptCounts {
            delivered,
            crashes,
            transient,
        } = line.attempts;
        let mut text = String::new();
        let mut row = |name: &str, value: &str| writeln!(text, "{name:<9} {value}");
        row("letter", &line.number.to_string())?;
        row("when", &line.at)?;
        row("cause", &one_line(&line.cause))?;
        let consumer = format!("{}/{}", line.stream, line.consumer);
        row("consumer", &consumer)?;
        let message = format!("{} ({})", line.sequence, line.subject);
        row("message", &message)?;
        let tried =
            format!("delivered: {delivered}, crashes: {crashes}, transient failures: {transient}");
        row("attempts", &tried)?;
        row("trace", line.trace.as_deref().unwrap_or("none"))?;
        let body = format!("{} bytes, sha256 {}", self.body_bytes, self.body_sha256);
        row("body", &body)?;
        writeln!(text, "headers")?;
        for (name, value) in &self.headers {
            writeln!(text, "  {name}: {}", shortened(value))?;
        }
        match (&self.event, &self.event_missing) {
            (Some(event), _) => writeln!(text, "{event:#}")?,
            (None, why) => writeln!(text, "not shown: {}", why.as_deref().unwrap_or_default())?,
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use model::event::{DeadLetter, Event as _, ImagePushed};

    use super::*;

    fn letter(kind: &str, body: Vec<u8>) -> Letter {
        let letter = DeadLetter {
            stream: "EVENTS".to_owned(),
            sequence: 12,
            consumer: "router".to_owned(),
            subject: "tw.evt.default.registry.pushed.main".to_owned(),
            cause: "no such layout\nat all".to_owned(),
            headers: vec![("ce-type".to_owned(), kind.to_owned())],
            body,
            at: "2026-01-02T03:04:05Z".parse().unwrap(),
            trace: Some("0af7651916cd43dd8448eb211c80319c".to_owned()),
            attempts: AttemptCounts {
                delivered: 3,
                crashes: 1,
                transient: 1,
            },
        };
        Letter { number: 7, letter }
    }

    fn pushed(repository: &str) -> Vec<u8> {
        let event = ImagePushed {
            source: "main".parse().unwrap(),
            repository: repository.to_owned(),
            tag: Some("1.0".to_owned()),
            digest: None,
            sender_id: None,
            occurred_at: "2026-01-02T03:04:05Z".parse().unwrap(),
            priority: model::event::Priority::Norm,
        };
        bus::encode(&event).unwrap().to_vec()
    }

    #[test]
    fn a_letter_is_shown_with_its_event() {
        let whole = Whole::from(letter(ImagePushed::TYPE, pushed("team/app")));
        let expected = "\
letter    7
when      2026-01-02T03:04:05Z
cause     no such layout at all
consumer  EVENTS/router
message   12 (tw.evt.default.registry.pushed.main)
attempts  delivered: 3, crashes: 1, transient failures: 1
trace     0af7651916cd43dd8448eb211c80319c
";
        let text = whole.text().unwrap();
        assert!(text.starts_with(expected), "{text}");
        let header = format!("  ce-type: {}\n", ImagePushed::TYPE);
        assert!(text.contains(&header), "{text}");
        assert!(text.contains("\"repository\": \"team/app\""), "{text}");
    }

    #[test]
    fn what_cannot_be_shown_is_described() {
        let check = |kind: &str, body: Vec<u8>| {
            let whole = Whole::from(letter(kind, body));
            assert!(whole.event.is_none());
            whole.event_missing.unwrap()
        };
        assert!(check("io.example.v1", vec![1]).contains("not known"));
        assert!(check(ImagePushed::TYPE, vec![0xc1]).contains("cannot be decoded"));
        let large = pushed(&"x".repeat(SHOWN_BYTES_MAX));
        assert!(check(ImagePushed::TYPE, large).contains("too large"));
        assert!(check(ImagePushed::TYPE, Vec::new()).contains("object"));
    }

    #[test]
    fn the_table_has_a_line_per_letter_and_says_how_to_go_on() {
        let page = Page {
            letters: vec![letter("x", Vec::new()).into()],
            before: Some(7),
        };
        let expected = [
            " NUMBER  WHEN                  CONSUMER                        CAUSE",
            "      7  2026-01-02T03:04:05Z  router                          no such layout at all",
            "older ones: --before 7",
        ];
        let text = table(&page).unwrap();
        assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    }
}
