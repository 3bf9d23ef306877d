//! The one HTTP listener of a process: limits, TLS, traces, errors, authentication, health.
//!
//! Roles build plain `axum` routers; [`Server`] puts around them what every request needs. An
//! `Authorization` header is read by [`require`] alone and written to no log, span or error.

mod auth;
mod error;
mod health;
mod layers;
mod server;
#[cfg(test)]
mod tests;
mod tls;

pub use self::{
    auth::{Grant, Require, RequireService, Tokens, TokensAway, require, token_digest},
    error::ApiError,
    health::{health, metrics},
    layers::body_limit,
    server::{Limits, Server, serve},
    tls::{Tls, TlsError, TlsFiles},
};
