//! How many streams of events there may be.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use model::Slug;

use crate::EventsConfig;

/// The streams of this process.
#[derive(Debug)]
pub(crate) struct Streams {
    config: EventsConfig,
    /// How many each tenant has.
    taken: Mutex<HashMap<Slug, usize>>,
}

/// A stream's place; dropping it gives it back.
#[derive(Debug)]
pub(super) struct Place {
    streams: Arc<Streams>,
    tenant: Slug,
}

/// How a stream is kept alive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) heartbeat: Duration,
    /// How long a client may take nothing.
    pub(super) slow: Duration,
}

// === impl Streams ===

impl Streams {
    pub(crate) fn new(config: &EventsConfig) -> Arc<Self> {
        Arc::new(Self {
            config: config.clone(),
            taken: Mutex::default(),
        })
    }

    /// A place for a tenant's stream; `None` while all are taken, or all that he may have.
    pub(super) fn take(streams: &Arc<Self>, tenant: &Slug) -> Option<Place> {
        let mut taken = streams.taken();
        let all: usize = taken.values().sum();
        let own = taken.get(tenant).copied().unwrap_or_default();
        let config = &streams.config;
        if all >= config.streams_max || own >= config.streams_per_tenant_max {
            return None;
        }
        taken.insert(tenant.clone(), own + 1);
        Some(Place {
            streams: Arc::clone(streams),
            tenant: tenant.clone(),
        })
    }

    pub(super) fn pace(&self) -> Pace {
        let seconds = |seconds: u32| Duration::from_secs(u64::from(seconds.max(1)));
        Pace {
            heartbeat: seconds(self.config.heartbeat_s),
            slow: seconds(self.config.slow_s),
        }
    }

    fn taken(&self) -> MutexGuard<'_, HashMap<Slug, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Place ===

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.streams.taken();
        if let Some(own) = taken.get_mut(&self.tenant) {
            *own = own.saturating_sub(1);
            if *own == 0 {
                taken.remove(&self.tenant);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_bounded_for_all_and_for_each_tenant_and_come_back() {
        let config = EventsConfig {
            streams_max: 3,
            streams_per_tenant_max: 2,
            ..EventsConfig::default()
        };
        let streams = Streams::new(&config);
        let take = |tenant: &str| Streams::take(&streams, &tenant.parse().unwrap());
        let first = take("a").unwrap();
        let _second = take("a").unwrap();
        assert!(take("a").is_none(), "two are his share");
        let other = take("b").unwrap();
        assert!(take("c").is_none(), "three are all");
        drop(other);
        let _third = take("c").unwrap();
        drop(first);
        let _again = take("a").unwrap();
        assert!(take("a").is_none());
    }
}
