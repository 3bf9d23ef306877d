//! What the node does to containers when the fabric says so.

pub(crate) mod group;
mod guard;
mod network;
mod pins;

pub use self::guard::guard;
