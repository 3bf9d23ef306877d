//! The whole product: real processes, a real registry, a real nats-server.
//!
//! Each test starts its own fabric on free loopback ports and stops it. Where a program is missing
//! a test is skipped and says which; `tests/run.sh` installs them all. A warning or error in a log
//! that a test does not expect fails it.

mod advisories;
mod chaos;
mod crash;
mod fabric;
mod fleet;
mod local;
mod poison;
mod push;
mod single_flight;
mod trace;
mod truth;
