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
//! A message that kills its process is found by who takes it next: the first delivery costs
//! nothing extra, from the second on a record says which process works on it. Three deaths, the
//! last one while nothing else ran beside it, make a dead letter; failures that may be gone the
//! next time are tried for a day and never count as deaths. Whoever waits for a message that is given
//! up is told ([`Handler::given_up`]). Dead letters can be listed, retried and
//! dropped ([`Bus::dead_letters`]). A body over 256 KB travels as an object and every reader gets it
//! back. Who only looks reads a stream in order from any place ([`Bus::tail`]), or all news as one
//! ([`Bus::news`]); [`Bus::bridge_json`] gives the news to those who want JSON.
//!
//! In a fleet each role has a key of its own, whose rights follow from the topology
//! ([`permissions`]); the provisioner makes what is listed there, everybody else waits for it
//! ([`Bus::connect_as`], [`Bus::provisioned`]).
//!
//! What it does not do: it does not know what events mean, and it promises no order between
//! messages. To an outside receiver the promise is *at least once* under one CloudEvents id.
//!
//! To add a stream, bucket or consumer: one line in `topology.rs`, and one in `permissions/needs.rs`
//! for each role that uses it. To add a kind of message: a
//! type in `model::event`, and its name in the list of `handler.rs`.

mod attempts;
mod bus;
mod collector;
mod command;
mod config;
mod consume;
mod credentials;
mod daily;
mod dlq;
mod durables;
mod envelope;
mod error;
mod follow;
mod fullness;
mod gate;
mod handler;
mod janitor;
mod lease;
mod metrics;
mod outbox;
mod partitions;
pub mod permissions;
mod presence;
mod private_server;
mod provision;
mod publish;
mod queues;
mod random;
mod reader;
mod request;
mod retention;
mod shares;
mod slots;
mod spool;
mod store;
mod subject;
mod tail;
#[cfg(test)]
mod testing;
mod tls;
pub mod topology;
mod wait;
mod wire;

pub use self::{
    bus::Bus,
    command::Woken,
    config::Config,
    consume::Consume,
    credentials::UserKey,
    dlq::{Letter, Letters, Retried},
    envelope::{Headers, decode, encode},
    error::{BusError, DecodeError, EncodeError, PutError, StoreError},
    follow::{BucketEnd, Change, Follow},
    handler::{Delivery, Failure, GivenUp, Handler, Input, Outcome, to_json},
    lease::Lease,
    outbox::Outbox,
    private_server::PrivateServer,
    queues::{Queue, WentBy},
    request::AskError,
    retention::{ConfiguredSources, RecordKind},
    shares::{Share, Shares},
    slots::Slots,
    spool::{Spool, SpoolError},
    store::{Common, Contents, Store, Stored, Usage, Written},
    tail::{
        Begin, BeginError, Heard, Missed, News, Piece, Position, PositionError, Selection, Start,
        Tail, Tailed, Told, cloud_event, cloud_event_text,
    },
    topology::ConsumerSpec,
};
