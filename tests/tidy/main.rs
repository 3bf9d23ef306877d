//! The project's rules as tests: who may import whom, what every crate has, what a registry entry
//! needs, what a file may not hold.
//!
//! Each test collects everything that is wrong and says what to do about it, so that one run is
//! enough. The rules are read from manifests and sources as text. Of the workspace only `bus` is
//! asked something: what each role may do on NATS.
//!
//! To add a rule: a `#[test]` in the module of its subject that ends in [`repo::verdict`].

mod deploy;
mod events;
mod imports;
mod manifests;
mod metrics;
mod permissions;
mod plugins;
mod repo;
mod services;
mod sources;
mod tree;
