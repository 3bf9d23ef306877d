//! Errors of the API: one JSON form for all (RFC 9457, "application/problem+json").

use std::fmt;

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use schemars::JsonSchema;
use serde::Serialize;

/// The media type of errors.
pub(super) const MEDIA: &str = "application/problem+json";

/// What is wrong, and what the client can do about it (RFC 9457).
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Problem {
    /// One sentence that says what is wrong.
    detail: String,
    /// The status as a word for programs, as `not_found`.
    error: String,
    /// What the client can do about it.
    #[serde(skip_serializing_if = "String::is_empty")]
    hint: String,
    /// The answer's status.
    status: u16,
}

/// An error as a client gets it: `{"status", "error", "detail", "hint"}`.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    detail: String,
    hint: String,
    challenge: Option<HeaderValue>,
    retry_after_seconds: Option<u32>,
    /// Logged, never sent.
    cause: Option<anyhow::Error>,
}

impl ApiError {
    /// An error with a status and one sentence that says what is wrong.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            status,
            detail: detail.into(),
            hint: String::new(),
            challenge: None,
            retry_after_seconds: None,
            cause: None,
        }
    }

    /// 400: the request cannot be understood.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: there is no such thing.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 409: it is there already, or somebody else was faster.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail)
    }

    /// 503: try again, after so many seconds.
    pub fn unavailable(detail: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).retry_after(retry_after_seconds)
    }

    /// 429: the client has had its share; try again after so many seconds.
    pub fn too_many(detail: impl Into<String>, retry_after_seconds: u32) -> Self {
        Self::new(StatusCode::TOO_MANY_REQUESTS, detail).retry_after(retry_after_seconds)
    }

    /// Adds what the client can do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = hint.into();
        self
    }

    /// Says when to try again.
    #[must_use]
    const fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after_seconds = Some(seconds);
        self
    }

    /// The status.
    pub const fn status(&self) -> StatusCode {
        self.status
    }

    pub(super) fn challenge(mut self, challenge: &str) -> Self {
        self.challenge = HeaderValue::from_str(challenge).ok();
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if let Some(cause) = &self.cause {
            tracing::error!(
                error = format!("{cause:#}"),
                "request ended with an error: {cause:#}"
            );
        }
        let body = Problem {
            status: self.status.as_u16(),
            error: name(self.status),
            detail: self.detail,
            hint: self.hint,
        };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let kind = HeaderValue::from_static(MEDIA);
        let mut response = (self.status, [(header::CONTENT_TYPE, kind)], body).into_response();
        if let Some(challenge) = self.challenge {
            response
                .headers_mut()
                .insert(header::WWW_AUTHENTICATE, challenge);
        }
        if let Some(seconds) = self.retry_after_seconds {
            response
                .headers_mut()
                .insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}

impl From<anyhow::Error> for ApiError {
    /// 500. The client learns nothing of the cause; the log does.
    fn from(cause: anyhow::Error) -> Self {
        let detail = "something went wrong here, and it was logged";
        Self {
            cause: Some(cause),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, detail)
        }
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.status, self.detail)
    }
}

/// The status as a word for programs: `not_found`.
fn name(status: StatusCode) -> String {
    status
        .canonical_reason()
        .unwrap_or("error")
        .to_ascii_lowercase()
        .replace([' ', '-'], "_")
}
