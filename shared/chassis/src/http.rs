//! The one HTTP listener of a process: limits, TLS, traces, errors, authentication, health.
//!
//! Roles have tables of routes ([`Route`]), from which the routers and the document of the API are
//! made; [`Server`] puts around them what every request needs. An `Authorization` header is read by
//! [`bearer`] alone and written to no log, span or error.

mod auth;
mod error;
mod etag;
mod health;
mod hosts;
mod layers;
pub mod openapi;
mod page;
mod route;
mod server;
#[cfg(test)]
mod tests;
mod tls;

pub use self::{
    auth::{Grant, Standing, Tokens, TokensAway, bearer, token_digest},
    error::ApiError,
    health::{health, health_operations, metrics},
    hosts::{BadHost, BadUrl, Hosts},
    layers::{body_limit, wrap},
    page::{PAGE_LIMIT_DEFAULT, PAGE_LIMIT_MAX, Page, PageQuery},
    route::{Access, Operation, Route, operations, router},
    server::{Limits, Server, serve},
    tls::{Tls, TlsError, TlsFiles},
};
use self::{
    auth::{hex, sha256_hex},
    error::Problem,
};
