//! Where accepted events go: the seam between what HTTP says and what is kept.

use bus::{Outbox, SpoolError};
use chassis::http::ApiError;
use futures::future::BoxFuture;
use model::{
    Slug,
    event::{ImageDeleted, ImagePushed, ScanRequested},
};

/// Keeps events until they are published.
pub(crate) trait Intake: Send + Sync {
    /// Returns when the event is safe.
    fn accept<'a>(
        &'a self,
        tenant: &'a Slug,
        event: &'a Accepted,
    ) -> BoxFuture<'a, Result<(), SpoolError>>;
}

/// An event from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// From a registry.
    Pushed(ImagePushed),
    /// From a registry.
    Deleted(ImageDeleted),
    /// From CI.
    Requested(ScanRequested),
}

impl Intake for Outbox {
    fn accept<'a>(
        &'a self,
        tenant: &'a Slug,
        event: &'a Accepted,
    ) -> BoxFuture<'a, Result<(), SpoolError>> {
        Box::pin(async move {
            match event {
                Accepted::Pushed(event) => self.enqueue(tenant, event).await,
                Accepted::Deleted(event) => self.enqueue(tenant, event).await,
                Accepted::Requested(event) => self.enqueue(tenant, event).await,
            }
        })
    }
}

/// What a client is told where an event could not be kept.
pub(crate) fn refused(error: &SpoolError) -> ApiError {
    // That it is full, or its disk, is in the notes and the metrics: not a line for each request.
    match error {
        SpoolError::Full { .. } | SpoolError::Io(_) => {
            tracing::debug!(%error, "an event is not accepted: {error}");
        }
        SpoolError::Item(_) => tracing::error!("the spool does not take an event: {error:#}"),
    }
    ApiError::unavailable("events cannot be accepted just now", 5)
        .hint("send the same request again later; nothing of it is counted twice")
}

/// Fakes for tests of routes.
#[cfg(test)]
pub(crate) mod fake {
    use std::sync::Mutex;

    use super::{Accepted, BoxFuture, Intake, Slug, SpoolError};

    /// Keeps events in memory, at most so many.
    #[derive(Debug)]
    pub(crate) struct Memory {
        pub(crate) events: Mutex<Vec<(Slug, Accepted)>>,
        pub(crate) room: usize,
    }

    impl Memory {
        pub(crate) fn with_room(room: usize) -> Self {
            Self {
                events: Mutex::default(),
                room,
            }
        }

        pub(crate) fn taken(&self) -> Vec<(Slug, Accepted)> {
            self.events.lock().unwrap().clone()
        }
    }

    impl Intake for Memory {
        fn accept<'a>(
            &'a self,
            tenant: &'a Slug,
            event: &'a Accepted,
        ) -> BoxFuture<'a, Result<(), SpoolError>> {
            Box::pin(async move {
                let mut events = self.events.lock().unwrap();
                if events.len() >= self.room {
                    return Err(SpoolError::Full { bytes: 1, max: 1 });
                }
                events.push((tenant.clone(), event.clone()));
                Ok(())
            })
        }
    }
}
