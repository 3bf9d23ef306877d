//! All streams of news read as one.
//!
//! Each stream keeps its own order. Across streams the order is that of storing, as long as a reader
//! catches up; what is new comes as it arrives. Where a reader stands is three numbers, one per
//! stream, so nothing is lost and nothing comes twice wherever he goes on.

use std::{
    fmt,
    pin::Pin,
    str::FromStr,
    task::{Context, Poll},
};

use chassis::Cx;
use futures::{Stream, StreamExt as _};
use jiff::Timestamp;
use model::{
    Slug,
    event::{ALERTS, EVENTS, Kind, NEWS_STREAMS, RESULTS},
};

use super::{Heard, Missed, Start, Tail, Tailed};
use crate::{Bus, envelope::CE_TYPE, error::BusError};

const STREAMS: usize = NEWS_STREAMS.len();

/// Up to where a reader has read: a sequence per stream of news, as `12.45.7`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Position([u64; STREAMS]);

/// The text is not a position.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a position like `12.45.7`")]
pub struct PositionError(String);

/// Where reading news begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begin {
    /// Behind this position; the default one is before everything.
    After(Position),
    /// With what was stored at this time or later.
    Time(Timestamp),
    /// With what is stored from now on.
    New,
}

/// The text says no place to begin.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a place to begin: `start`, `now`, a position like `12.45.7`, or a time like \
     `2026-01-02T03:04:05Z`"
)]
pub struct BeginError(String);

/// Which news.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Whose; of every tenant where none is named.
    pub tenant: Option<Slug>,
    /// Of which kinds; of all where none is named.
    pub kinds: Vec<&'static Kind>,
}

/// What a reader of news is told, with the position behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Told {
    /// Who goes on behind this misses nothing and gets nothing twice.
    pub position: Position,
    /// What.
    pub piece: Piece,
}

/// A piece of news, or what is to be known about reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A piece of news.
    News {
        /// The stream that holds it.
        stream: &'static str,
        /// The message.
        message: Box<Tailed>,
    },
    /// A part of a stream is not held any more and was not read here.
    Missed {
        /// The stream.
        stream: &'static str,
        /// The part.
        missed: Missed,
    },
    /// Everything that was there at the start has been told; said once.
    CaughtUp,
    /// Nothing was told, but the position moved.
    Passed,
}

/// News in order, each once. It ends when its `Cx` stops.
#[derive(Debug)]
pub struct News {
    lanes: Vec<Lane>,
    kinds: Vec<&'static Kind>,
    position: Position,
    caught_up: bool,
}

/// One stream of them.
#[derive(Debug)]
struct Lane {
    /// Its place in [`NEWS_STREAMS`].
    index: usize,
    tail: Tail,
    head: Option<Box<Tailed>>,
    is_behind: bool,
}

impl Bus {
    /// Reads news from `begin`, then everything that comes, over reconnects and restarts of the
    /// server. What this version has no name for is left out.
    pub async fn news(
        &self,
        cx: &Cx,
        begin: Begin,
        selection: Selection,
    ) -> Result<News, BusError> {
        let mut position = match begin {
            Begin::After(position) => position,
            Begin::Time(_) | Begin::New => Position::default(),
        };
        let mut lanes = Vec::new();
        for (index, (stream, read)) in NEWS_STREAMS.iter().zip(&mut position.0).enumerate() {
            if !selection.wants(stream) {
                continue;
            }
            let start = match begin {
                Begin::After(_) => Start::Sequence(read.saturating_add(1)),
                Begin::Time(time) => Start::Time(time),
                Begin::New => Start::New,
            };
            let filter = selection.filter(stream);
            let tail = self.tail(cx, stream, start, &filter).await?;
            *read = tail.start();
            lanes.push(Lane {
                index,
                tail,
                head: None,
                is_behind: true,
            });
        }
        Ok(News {
            lanes,
            kinds: selection.kinds,
            position,
            caught_up: false,
        })
    }
}

// === impl Position ===

impl Position {
    /// Behind these sequences of the streams of news.
    pub const fn new(sequences: [u64; STREAMS]) -> Self {
        Self(sequences)
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [events, results, alerts] = self.0;
        write!(f, "{events}.{results}.{alerts}")
    }
}

impl FromStr for Position {
    type Err = PositionError;

    fn from_str(text: &str) -> Result<Self, PositionError> {
        let numbers: Option<Vec<u64>> = text.split('.').map(number).collect();
        numbers
            .and_then(|numbers| numbers.try_into().ok())
            .map(Self)
            .ok_or_else(|| PositionError(text.chars().take(80).collect()))
    }
}

/// Digits alone; the last number that there is has no successor.
fn number(text: &str) -> Option<u64> {
    let is_plain = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let number: u64 = text.parse().ok().filter(|_| is_plain)?;
    (number < u64::MAX).then_some(number)
}

// === impl Begin ===

impl FromStr for Begin {
    type Err = BeginError;

    fn from_str(text: &str) -> Result<Self, BeginError> {
        match text {
            "start" => return Ok(Self::After(Position::default())),
            "now" => return Ok(Self::New),
            _ => {}
        }
        if let Ok(position) = text.parse() {
            return Ok(Self::After(position));
        }
        let time = text.parse().map(Self::Time);
        time.map_err(|_| BeginError(text.chars().take(80).collect()))
    }
}

// === impl Selection ===

impl Selection {
    fn wants(&self, stream: &str) -> bool {
        self.kinds.is_empty() || self.kinds.iter().any(|kind| kind.stream == stream)
    }

    /// The subjects of a tenant in a stream; empty: all.
    fn filter(&self, stream: &str) -> String {
        let Some(tenant) = &self.tenant else {
            return String::new();
        };
        match stream {
            EVENTS => format!("tw.evt.{tenant}.>"),
            RESULTS => format!("tw.res.{tenant}.>"),
            ALERTS => format!("tw.alert.{tenant}.>"),
            other => unreachable!("`{other}` holds no news"),
        }
    }
}

// === impl News ===

impl News {
    /// Up to where everything has been told.
    pub const fn position(&self) -> Position {
        self.position
    }

    /// Takes what a stream has until it has a head or nothing more for now. `Err` ends everything.
    fn pull(&mut self, lane: usize, cx: &mut Context<'_>) -> Result<Option<Piece>, Ended> {
        let Some(lane) = self.lanes.get_mut(lane) else {
            return Ok(None);
        };
        while lane.head.is_none() {
            let heard = match lane.tail.poll_next_unpin(cx) {
                Poll::Pending => return Ok(None),
                Poll::Ready(None) => return Err(Ended),
                Poll::Ready(Some(heard)) => heard,
            };
            let read = self.position.0.get_mut(lane.index);
            let read = read.expect("a lane is one of the streams");
            match heard {
                Heard::Message(message) => {
                    if is_one_of(&self.kinds, &message) {
                        lane.head = Some(message);
                    } else {
                        *read = message.sequence;
                    }
                }
                Heard::CaughtUp => lane.is_behind = false,
                Heard::UpTo(sequence) => {
                    *read = sequence;
                    return Ok(Some(Piece::Passed));
                }
                Heard::Missed(missed) => {
                    *read = missed.next - 1;
                    let stream = lane.stream();
                    return Ok(Some(Piece::Missed { stream, missed }));
                }
            }
        }
        Ok(None)
    }

    /// The oldest head.
    fn oldest(&mut self) -> Option<Piece> {
        let lanes = self.lanes.iter_mut().filter(|lane| lane.head.is_some());
        let lane = lanes.min_by_key(|lane| lane.head.as_ref().map(|head| head.time))?;
        let message = lane.head.take()?;
        if let Some(read) = self.position.0.get_mut(lane.index) {
            *read = message.sequence;
        }
        let stream = lane.stream();
        Some(Piece::News { stream, message })
    }
}

/// The process stops.
struct Ended;

impl Stream for News {
    type Item = Told;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Told>> {
        for lane in 0..self.lanes.len() {
            match self.pull(lane, cx) {
                Ok(None) => {}
                Ok(Some(piece)) => return self.told(piece),
                Err(Ended) => return Poll::Ready(None),
            }
        }
        let waits = |lane: &Lane| lane.is_behind && lane.head.is_none();
        if self.lanes.iter().any(waits) {
            return Poll::Pending;
        }
        if let Some(piece) = self.oldest() {
            return self.told(piece);
        }
        if !self.caught_up {
            self.caught_up = true;
            return self.told(Piece::CaughtUp);
        }
        Poll::Pending
    }
}

impl News {
    fn told(&self, piece: Piece) -> Poll<Option<Told>> {
        let position = self.position;
        Poll::Ready(Some(Told { position, piece }))
    }
}

// === impl Lane ===

impl Lane {
    fn stream(&self) -> &'static str {
        NEWS_STREAMS.get(self.index).copied().unwrap_or_default()
    }
}

/// Whether a message is of one of these kinds, or of any that there is.
fn is_one_of(kinds: &[&'static Kind], message: &Tailed) -> bool {
    let kind = message.headers.attribute(CE_TYPE);
    let kind = kind.and_then(|kind| Kind::find(&kind));
    kind.is_some_and(|kind| {
        kinds.is_empty() || kinds.iter().any(|wanted| wanted.ce_type == kind.ce_type)
    })
}

#[cfg(test)]
mod tests;
