//! What every process of the project needs and no part of it should invent again: the clock, the
//! lifecycle ([`Cx`]), configuration, secrets, telemetry and the HTTP server.
//!
//! The decision that shapes it: everything that is ambient in other programs is an argument here.
//! Time is a [`Clock`], the shutdown signal and the thread pools are a [`Cx`], the environment is
//! read in [`config`] and nowhere else. It costs one parameter in many functions and buys tests
//! without sleeping, and a shutdown that waits for what was started.
//!
//! It imports no other crate of this workspace and knows no domain: no images, no streams, no
//! stores. Only [`telemetry`] is global, since `tracing` and OpenTelemetry are.
//!
//! To add a layer that every request passes: `http/layers.rs`. To add a check that decides whether
//! a process is ready: [`Readiness::set`] from where it is known. What a person should know of a
//! process that is ready all the same: [`Cx::notes`].

mod clock;
pub mod config;
mod cx;
pub mod files;
pub mod http;
mod readiness;
mod recent;
mod secret;
mod signals;
pub mod telemetry;

pub use self::{
    clock::{Clock, FixedClock, SystemClock},
    cx::{Cx, CxLimits, Lost},
    readiness::{Notes, Readiness},
    recent::Recent,
    secret::{Secret, SecretError, SecretRef},
    signals::shutdown_signal,
};
