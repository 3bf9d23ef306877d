//! What can be typed behind `tidewaiter events`.

use std::path::PathBuf;

use bus::Begin;
use clap::{Args, Subcommand};
use model::{
    Slug,
    event::{Kind, NEWS},
};

use super::{Server, duration};

/// Commands of `events`.
#[derive(Debug, Subcommand)]
pub(crate) enum EventsCommand {
    /// Follow what happens: pushes, requests, verdicts, vulnerabilities, alerts
    #[command(after_help = "Examples:
  tidewaiter events tail                                      what happens from now on
  tidewaiter events tail --from 24h --kind image.judged,alert
  tidewaiter events tail --from start --once --json | jq .data
  tidewaiter events tail --from 12.45.7 --json                behind the `position` of an event
  tidewaiter events tail --nats-url nats://nats:4222 --tenant acme

It asks a server, with a token that may read, and sees the token's tenant. With --nats-url or
--data-dir it reads NATS itself, with the credentials of the configuration file, and sees every
tenant. After an interruption it goes on where it was: nothing is lost and nothing comes twice. What
is not held any more is named on standard error. Ctrl-C ends it with 130, a closed pipe with 0.")]
    Tail(Box<TailArgs>),
    /// Print the AsyncAPI document of all events
    #[command(after_help = "Examples:
  tidewaiter events asyncapi > asyncapi.json")]
    Asyncapi,
    /// Print the JSON Schema of events
    #[command(after_help = "Examples:
  tidewaiter events schema image.judged
  tidewaiter events schema | jq keys                          all kinds, by name")]
    Schema {
        /// The kind, as `image.judged`; an object with all of them where none is named
        #[arg(value_name = "KIND", value_parser = kind)]
        kind: Option<&'static Kind>,
    },
}

/// Flags of `events tail`.
#[derive(Debug, Args)]
pub(crate) struct TailArgs {
    /// Where to begin: `now`, `start`, a position like `12.45.7`, a time like
    /// `2026-01-02T03:04:05Z`, or so long ago, as `90s`, `15m` or `24h`
    #[arg(long, value_name = "WHERE", default_value = "now", value_parser = from)]
    pub(crate) from: From,
    /// One CloudEvent per line, with the `position` behind it
    #[arg(long)]
    pub(crate) json: bool,
    /// Only these kinds, as `image.judged,alert`
    #[arg(long = "kind", value_name = "KINDS", value_delimiter = ',', value_parser = kind)]
    pub(crate) kinds: Vec<&'static Kind>,
    /// Only this tenant
    #[arg(long, value_name = "NAME")]
    pub(crate) tenant: Option<Slug>,
    /// End after so many events
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) limit: Option<u64>,
    /// End when all that was there at the start has been shown
    #[arg(long)]
    pub(crate) once: bool,
    #[command(flatten)]
    pub(crate) server: Server,
    /// Read this NATS server, instead of asking a server
    #[arg(long, value_name = "URL")]
    pub(crate) nats_url: Option<String>,
    /// Read the private NATS server of the `tidewaiter serve` that keeps its data here
    #[arg(long, value_name = "DIR", conflicts_with = "nats_url")]
    pub(crate) data_dir: Option<PathBuf>,
}

/// Where to begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum From {
    /// There.
    At(Begin),
    /// So long before now.
    Ago(std::time::Duration),
}

fn from(text: &str) -> Result<From, String> {
    let begin = match text.parse() {
        Ok(begin) => return Ok(From::At(begin)),
        Err(error) => error,
    };
    // A number alone could be seconds or a sequence: it is neither.
    let has_unit = text.ends_with(|last: char| last.is_ascii_alphabetic());
    match duration(text) {
        Ok(ago) if has_unit => Ok(From::Ago(ago)),
        _ => Err(format!("{begin}, or so long ago, as `24h`")),
    }
}

fn kind(name: &str) -> Result<&'static Kind, String> {
    Kind::find(name).ok_or_else(|| {
        let known: Vec<&str> = NEWS.iter().map(Kind::name).collect();
        format!("`{name}` is none of {}", known.join(", "))
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bus::Position;

    use super::*;

    #[test]
    fn a_beginning_has_many_forms_and_a_bare_number_is_none() {
        assert_eq!(from("now"), Ok(From::At(Begin::New)));
        let start = Begin::After(Position::default());
        assert_eq!(from("start"), Ok(From::At(start)));
        let position = Begin::After(Position::new([12, 45, 7]));
        assert_eq!(from("12.45.7"), Ok(From::At(position)));
        assert_eq!(from("24h"), Ok(From::Ago(Duration::from_hours(24))));
        let time = "2026-01-02T03:04:05Z";
        let begin = Begin::Time(time.parse().unwrap());
        assert_eq!(from(time), Ok(From::At(begin)));
        for bad in ["12", "", "yesterday", "1.2", "2026-01-02"] {
            assert!(from(bad).is_err(), "{bad}");
        }
    }
}
