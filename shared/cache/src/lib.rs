//! Content-addressed storage on local disks: the sections of layers, and the databases of roles.
//!
//! The decision that shapes it: nothing in here is the truth. Records and objects on the broker
//! are, so every database may be deleted, is emptied when its schema changes or when it is
//! damaged, and is written without waiting for the disk unless a batch asks for it. The price is
//! the time to fill it again. What is read is never trusted blindly: a section carries its digest,
//! and one that does not match is a miss and a metric, never an answer.
//!
//! It is the only crate that knows RocksDB. All calls block for a short time; asynchronous callers
//! put them on a thread for blocking work. It does no networking and knows no analyzers.
//!
//! To store something new: a family in the role's [`Schema`], and a higher version of it whenever
//! the meaning of what is stored changes.

mod codec;
mod database;
mod error;
mod metrics;
mod sections;

pub use self::{
    codec::{decode, encode},
    database::{Batch, Database, Pair, Schema},
    error::CacheError,
    sections::{Figures, SectionBatch, SectionCache, StoredSection},
};
