//! Streams, state, leases, waiting, dead letters and the spool: the only crate that knows NATS.
//!
//! The decision that shapes it: the broker is the system of record, and a record's write is the
//! event that others take. A handler is a function from one message to an [`Outcome`]; the bus
//! writes its records by compare-and-set, then publishes its events under ids computed from
//! content, then acknowledges. So everything may happen twice and nothing is lost, at the price
//! that handlers have no effects of their own and run again after a conflict.
//!
//! It runs on nats-server 2.9.10 and newer and uses only what 2.9 has: one filter per consumer, no
//! per-message expiry, no server-side priorities. Buckets are streams that we create, write and
//! read directly; objects are plain messages named by their content. `JetStream`'s own object
//! store is not used: two writers of one name hang its readers.
//!
//! What it does not do: it does not know what events mean, and it promises no order between
//! messages. To an outside receiver the promise is *at least once* under one CloudEvents id.
//!
//! To add a stream, bucket or consumer: one line in `topology.rs`. To add a kind of message: a
//! type in `model::event`, and its name in the list of `handler.rs`.

mod bus;
mod config;
mod consume;
mod envelope;
mod error;
mod follow;
mod handler;
mod janitor;
mod lease;
mod metrics;
mod outbox;
mod partitions;
mod private_server;
mod provision;
mod publish;
mod random;
mod spool;
mod store;
mod subject;
#[cfg(test)]
mod testing;
pub mod topology;
mod wait;
mod wire;

pub use self::{
    bus::Bus,
    config::Config,
    consume::Consume,
    envelope::{Headers, decode, encode},
    error::{BusError, DecodeError, EncodeError, PutError, StoreError},
    follow::{Change, Follow},
    handler::{Delivery, Failure, Handler, Input, Outcome},
    lease::Lease,
    outbox::Outbox,
    private_server::PrivateServer,
    spool::{Spool, SpoolError},
    store::{Store, Stored, Usage, Written},
    topology::ConsumerSpec,
};
