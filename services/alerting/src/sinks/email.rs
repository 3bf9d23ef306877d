//! The sink `email`: a mail, over SMTP.
//!
//! The connection is encrypted, by STARTTLS or from the start; without encryption only where the
//! operator says so, as for a relay on the same machine. A mail has the same `Message-ID` on every
//! copy, computed from the CloudEvents id, so that mail programs and mailing lists show it once,
//! and `X-Tidewaiter-Id` with the id itself; mails on one alert form a thread. It has a plain text
//! and the same as HTML.

use std::{fmt::Write as _, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use chassis::{Secret, SecretRef};
use lettre::{
    Message,
    message::{
        Mailbox, MultiPart, SinglePart,
        header::{HeaderName, HeaderValue},
    },
};
use model::Fingerprint;
use serde::{Deserialize, Serialize};

use crate::sinks::{Item, Outgoing, outgoing::clip};

const RECIPIENTS_MAX: usize = 50;
const SUBJECT_CHARS_MAX: usize = 200;
const TEXT_CHARS_MAX: usize = 10_000;
const CA_BYTES_MAX: u64 = 1024 * 1024;

/// Which server, and who gets the mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The mail server.
    pub host: String,
    /// Its port; by default 587 with `starttls`, 465 with `tls`, 25 with `none`.
    #[serde(default)]
    pub port: Option<u16>,
    /// How the connection is encrypted.
    #[serde(default)]
    pub encryption: Encryption,
    /// A file with more certificate authorities (PEM).
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// As whom to log in; together with `password`.
    #[serde(default)]
    pub username: Option<String>,
    /// The password; read for each mail, so it may be renewed.
    #[serde(default)]
    pub password: Option<SecretRef>,
    /// The sender, as `Tidewaiter <tidewaiter@example.org>`.
    pub from: String,
    /// Who gets the mail.
    pub to: Vec<String>,
    /// How long each step of the server may take, milliseconds.
    #[serde(default = "timeout_ms")]
    pub timeout_ms: u64,
}

/// How a connection to a mail server is encrypted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Encryption {
    /// By the command STARTTLS; a server that does not offer it gets no mail.
    #[default]
    StartTls,
    /// From the start.
    Tls,
    /// Not at all: everybody on the way reads the mail, and the password.
    None,
}

/// A mail, ready to be sent.
#[derive(Debug)]
pub(crate) struct Mail {
    pub(crate) server: Server,
    pub(crate) message: Message,
}

/// The server to give it to.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) encryption: Encryption,
    pub(crate) authorities: Option<Vec<u8>>,
    pub(crate) login: Option<(String, Secret)>,
    pub(crate) timeout: Duration,
}

// === impl Config ===

impl Config {
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        ensure!(!self.host.is_empty(), "`host` is empty");
        ensure!(!self.to.is_empty(), "`to` names nobody");
        ensure!(
            self.to.len() <= RECIPIENTS_MAX,
            "`to` names {} people, at most {RECIPIENTS_MAX} are allowed: use a list's address",
            self.to.len()
        );
        ensure!(
            self.username.is_some() == self.password.is_some(),
            "`username` and `password` are given together or not at all"
        );
        self.mailboxes().map(drop)
    }

    pub(crate) fn render(&self, outgoing: &Outgoing) -> anyhow::Result<Mail> {
        let password = self.password.as_ref().map(SecretRef::read).transpose();
        let password = password.context("reading its password")?;
        let authorities = self.ca_file.as_ref().map(|path| {
            chassis::files::read_bounded(path, CA_BYTES_MAX)
                .with_context(|| format!("reading `{}`", path.display()))
        });
        let port = self.port.unwrap_or(match self.encryption {
            Encryption::StartTls => 587,
            Encryption::Tls => 465,
            Encryption::None => 25,
        });
        Ok(Mail {
            server: Server {
                host: self.host.clone(),
                port,
                encryption: self.encryption,
                authorities: authorities.transpose()?,
                login: self.username.clone().zip(password),
                timeout: Duration::from_millis(self.timeout_ms),
            },
            message: self.message(outgoing)?,
        })
    }

    fn mailboxes(&self) -> anyhow::Result<(Mailbox, Vec<Mailbox>)> {
        let parse = |text: &String| {
            let parsed = text.parse::<Mailbox>();
            parsed.with_context(|| format!("`{text}` is not a mail address"))
        };
        let to: anyhow::Result<_> = self.to.iter().map(parse).collect();
        Ok((parse(&self.from)?, to?))
    }

    fn message(&self, outgoing: &Outgoing) -> anyhow::Result<Message> {
        let (from, to) = self.mailboxes()?;
        let domain = from.email.domain().to_owned();
        let id = |of: &str| format!("<{}@{domain}>", Fingerprint::of(&["mail", of]));
        let mut building = Message::builder()
            .from(from)
            .date(outgoing.at().into())
            .message_id(Some(id(&outgoing.id)))
            .subject(one_line(&outgoing.title()));
        for recipient in to {
            building = building.to(recipient);
        }
        if let Some(Item { alert, .. }) = outgoing.single() {
            let thread = id(&alert.fingerprint.0);
            building = building.references(thread.clone()).in_reply_to(thread);
        }
        for (name, value) in [
            ("X-Tidewaiter-Id", outgoing.id.clone()),
            ("X-Tidewaiter-Severity", outgoing.severity().to_string()),
            ("Auto-Submitted", "auto-generated".to_owned()),
        ] {
            let name = HeaderName::new_from_ascii(name.to_owned()).context("a header's name")?;
            building = building.raw_header(HeaderValue::new(name, value));
        }
        let body = MultiPart::alternative()
            // The same on every copy.
            .boundary(Fingerprint::of(&["boundary", &outgoing.id]).0)
            .singlepart(SinglePart::plain(plain(outgoing)))
            .singlepart(SinglePart::html(html(outgoing)));
        building.multipart(body).context("building the mail")
    }
}

fn one_line(text: &str) -> String {
    let line: String = text
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect();
    clip(&line, SUBJECT_CHARS_MAX)
}

fn plain(outgoing: &Outgoing) -> String {
    let (listed, more) = outgoing.listed();
    let mut out = String::new();
    for item in listed {
        let Item { id, alert } = item;
        push(&mut out, &item.title());
        push(&mut out, &format!("Severity: {}", alert.severity));
        for reference in alert.references.iter().take(3) {
            push(&mut out, &format!("Name: {reference}"));
        }
        if let Some(image) = alert.image {
            push(&mut out, &format!("Image: {image}"));
        }
        push(&mut out, &format!("At: {}", alert.at));
        push(&mut out, &format!("Id: {id}"));
        out.push('\n');
        push(&mut out, &clip(&alert.text, TEXT_CHARS_MAX));
        out.push('\n');
    }
    if more > 0 {
        push(&mut out, &format!("and {more} more"));
    }
    out
}

/// Line ends of mail.
fn push(out: &mut String, text: &str) {
    for line in text.lines() {
        out.push_str(line.trim_end_matches('\r'));
        out.push('\n');
    }
}

fn html(outgoing: &Outgoing) -> String {
    let (listed, more) = outgoing.listed();
    let mut out = String::from("<!doctype html>\n<html><body>\n");
    for item in listed {
        let Item { id, alert } = item;
        let mut rows = vec![("Severity", alert.severity.to_string())];
        let names = alert.references.iter().take(3);
        rows.extend(names.map(|reference| ("Name", reference.clone())));
        rows.extend(alert.image.map(|image| ("Image", image.to_string())));
        rows.push(("At", alert.at.to_string()));
        rows.push(("Id", id.clone()));
        write_line(&mut out, format_args!("<h3>{}</h3>", escape(&item.title())));
        let text = escape(&clip(&alert.text, TEXT_CHARS_MAX)).replace('\n', "<br>\n");
        write_line(&mut out, format_args!("<p>{text}</p>\n<table>"));
        for (name, value) in rows {
            let value = escape(&value);
            write_line(
                &mut out,
                format_args!("<tr><th align=\"left\">{name}</th><td>{value}</td></tr>"),
            );
        }
        write_line(&mut out, format_args!("</table>"));
    }
    if more > 0 {
        write_line(&mut out, format_args!("<p>and {more} more</p>"));
    }
    out.push_str("</body></html>\n");
    out
}

fn write_line(out: &mut String, text: std::fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("writing to a String cannot fail");
}

fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c if c.is_control() && c != '\n' => {}
            c => out.push(c),
        }
    }
    out
}

const fn timeout_ms() -> u64 {
    20_000
}

#[cfg(test)]
mod tests;
