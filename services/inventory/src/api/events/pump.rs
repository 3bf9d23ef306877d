//! Carries news to one client, until he leaves, is too slow, may not read any more, or the process
//! stops.

use axum::body::Bytes;
use bus::{Position, Told};
use chassis::{Cx, http::Standing};
use futures::{Stream, StreamExt as _};
use model::Slug;
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

use super::{frame, places::Pace};
use crate::api::READ;

/// Carries news to one client.
pub(super) struct Pump {
    pub(super) cx: Cx,
    /// Up to where the client was told everything.
    pub(super) position: Position,
    pub(super) frames: mpsc::Sender<Bytes>,
    /// The client's token; absent in tests.
    pub(super) standing: Option<Standing>,
    pub(super) tenant: Slug,
    pub(super) pace: Pace,
}

/// Why a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The client went away.
    Left,
    /// He took nothing for too long.
    Slow,
    /// He may not read any more.
    Token,
    /// The process stops.
    Stopping,
}

// === impl Pump ===

impl Pump {
    /// Runs to the end.
    pub(super) async fn run(mut self, mut news: impl Stream<Item = Told> + Unpin) -> End {
        let Pace { heartbeat, .. } = self.pace;
        let mut beat = interval_at(Instant::now() + heartbeat, heartbeat);
        beat.set_missed_tick_behavior(MissedTickBehavior::Delay);
        if let Err(end) = self.send(frame::opening(self.position)).await {
            return end;
        }
        loop {
            let frame = tokio::select! {
                () = self.cx.stopped() => return End::Stopping,
                () = self.frames.closed() => return End::Left,
                _ = beat.tick() => {
                    if !self.may_read().await {
                        return End::Token;
                    }
                    Some(frame::heartbeat(self.position))
                }
                told = news.next() => {
                    let Some(told) = told else {
                        return End::Stopping;
                    };
                    self.position = told.position;
                    frame::told(&told)
                }
            };
            if let Some(frame) = frame
                && let Err(end) = self.send(frame).await
            {
                return end;
            }
        }
    }

    async fn send(&self, frame: Bytes) -> Result<(), End> {
        tokio::select! {
            sent = timeout(self.pace.slow, self.frames.send(frame)) => match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(End::Left),
                Err(_) => Err(End::Slow),
            },
            () = self.cx.stopped() => Err(End::Stopping),
        }
    }

    /// Whether the token still stands. Where nobody can say, it does: it did when it was asked last.
    async fn may_read(&self) -> bool {
        let Some(standing) = &self.standing else {
            return true;
        };
        match standing.grant().await {
            Ok(grant) => grant
                .is_some_and(|grant| grant.allows(READ) && grant.tenant == self.tenant.as_str()),
            Err(_) => true,
        }
    }
}
