//! Standard output that never holds the program up: it may be a pipe that nobody reads just now.

use std::{
    fs::File,
    io::{self, ErrorKind},
    os::fd::AsFd as _,
};

use anyhow::Context as _;
use bus::Position;
use serde_json::Value;
use tokio::io::{AsyncWriteExt as _, Interest, unix::AsyncFd};

use super::line::line;

/// Standard output, as lines.
pub(super) struct Output {
    /// A descriptor of its own. What is written waits on a thread that nobody waits for in the end,
    /// and not under the lock of standard output, which ends with the program.
    file: tokio::fs::File,
    json: bool,
    waiting: String,
}

/// Waits until nobody reads standard output any more, where that can be known: of a pipe, also while
/// nothing is written.
#[expect(
    deprecated,
    reason = "an `OwnedFd` keeps its descriptor while it is watched; the new way is unsafe"
)]
pub(super) async fn reader_gone() {
    let own = io::stdout().as_fd().try_clone_to_owned();
    let watched = own.and_then(|own| AsyncFd::with_interest(own, Interest::ERROR));
    if let Ok(watched) = watched
        && watched.ready(Interest::ERROR).await.is_ok()
    {
        return;
    }
    std::future::pending::<()>().await;
}

// === impl Output ===

impl Output {
    pub(super) fn open(json: bool) -> anyhow::Result<Self> {
        let own = io::stdout().as_fd().try_clone_to_owned();
        let own = own.context("opening standard output")?;
        Ok(Self {
            file: tokio::fs::File::from_std(File::from(own)),
            json,
            waiting: String::new(),
        })
    }

    /// Adds an event to what is written next.
    pub(super) fn add(&mut self, mut event: Value, position: Position) {
        if self.json {
            if let Some(fields) = event.as_object_mut() {
                fields.insert("position".to_owned(), position.to_string().into());
            }
            self.waiting += &event.to_string();
        } else {
            self.waiting += &line(&event);
        }
        self.waiting.push('\n');
    }

    /// Writes what was added. False: nobody reads any more.
    pub(super) async fn write(&mut self) -> anyhow::Result<bool> {
        if self.waiting.is_empty() {
            return Ok(true);
        }
        let written = async {
            self.file.write_all(self.waiting.as_bytes()).await?;
            self.file.flush().await
        };
        match written.await {
            Ok(()) => {
                self.waiting.clear();
                Ok(true)
            }
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(false),
            Err(error) => Err(error).context("writing to standard output"),
        }
    }
}
