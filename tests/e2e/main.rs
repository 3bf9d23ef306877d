//! The whole product: real processes, a real registry, a real nats-server.
//!
//! Each test starts its own fabric on free loopback ports and stops it. Where a program is missing
//! a test is skipped and says which; `tests/run.sh` installs them all. A warning or error in a log
//! that a test does not expect fails it.

mod access;
mod advisories;
mod broker;
mod chaos;
mod checks;
mod claims;
mod crash;
mod crawl;
mod events;
mod fabric;
mod feeds;
mod fleet;
mod image;
mod leak;
mod letters;
mod local;
mod metrics;
mod poison;
mod pressure;
mod push;
mod responses;
mod rules;
mod runtime;
mod sbom;
mod single_flight;
mod tls;
mod trace;
mod truth;
