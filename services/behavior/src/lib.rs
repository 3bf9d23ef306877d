//! behavior: what containers do, compared with what their images say they are.
//!
//! Agents send what their node holds and what its containers do ([`model::runtime`]). Reports
//! become records, and images that nobody has scanned are told of, so that they are. Of what ran,
//! everything is compared with the image by content (*drift*), and shown to detectors of what
//! attackers do (*behaviors*, see `detectors`). Detections of a container become incidents, with a
//! timeline and what happened around it. Whom containers speak with is a record of each node.
//!
//! The decision that shapes it: a shard of the nodes is watched by one process at a time, one
//! message after another, and what is remembered of processes and files is in its memory alone. So
//! judging costs no I/O unless something is wrong. It costs this: a new owner of a shard reads the
//! last minutes of its stream again before it goes on ([`Config::replay_s`]), and what happened
//! before is not known to it: a process that began earlier is nobody's ancestor. What must not be
//! lost is elsewhere: detections, incidents and reports are records and objects, and what waits for
//! an image waits for no longer than is read again.
//!
//! Everything may come twice and in another order. An incident is known by its container and its
//! number, a detection by its incident, its rule and what it is about: so what comes again changes
//! nothing. It is told again, under the same id, since whoever stored it may have died before he
//! told.
//!
//! What agents send is hostile: it comes from where the attacker is. A batch is bounded by its
//! message, what is remembered of a container by numbers, and a node speaks for itself alone: the
//! subject says who it is, and its credential allows no other. Arguments are kept without what looks
//! like a secret (`mask`).
//!
//! What it does not do: it stops nothing and blocks nothing; it learns no profile; it asks no node
//! anything; and it knows no image but by what scanners stored (`facts`).
//!
//! To add a behavior: see `detectors`.

mod address;
mod attack;
mod config;
mod container;
mod detectors;
mod drift;
mod engine;
mod exceptions;
mod facts;
mod handler;
mod incidents;
mod mask;
mod metrics;
mod nodes;
mod owner;
mod processes;
mod programs;
mod shard;
mod trial;
mod wire;

use std::sync::Arc;

use axum::Router;
use bus::Bus;
use chassis::Cx;
use futures::FutureExt as _;
use model::runtime::Shard;
use tokio::sync::Mutex;

use self::{facts::StoredFacts, owner::Owner, shard::Watch};

pub use self::{
    config::Config,
    exceptions::{Exception, Pattern},
    trial::{Trial, Tried},
};

/// Starts the role, and gives its routes: none. It works until `cx` stops.
pub fn run(cx: &Cx, bus: &Bus, config: &Config) -> anyhow::Result<Router> {
    config.check()?;
    let facts = Arc::new(StoredFacts::new(bus.store(), config.facts_bytes_max));
    let (shared, config) = (bus.clone(), Arc::new(config.clone()));
    bus.own_partitions(cx, "behavior", move |partition, cx| {
        let watch = Watch {
            number: Shard::from(partition),
            store: shared.store(),
            clock: cx.clock(),
            config: Arc::clone(&config),
            facts: Arc::clone(&facts),
            scans: Arc::clone(&facts),
            state: Mutex::default(),
        };
        let owner = Owner {
            bus: shared.clone(),
            watch: Arc::new(watch),
        };
        owner.run(cx).boxed()
    });
    Ok(Router::new())
}

#[cfg(test)]
mod testing;
