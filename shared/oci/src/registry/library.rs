//! Blobs by way of `oci-distribution`: where every address is allowed, for it checks none, and from
//! the first byte on, for it does not show whether a later range is the one that was asked for.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, PoisonError},
};

use futures::{StreamExt as _, TryStreamExt as _};
use oci_distribution::{
    Client, Reference,
    client::{BlobResponse, Certificate, CertificateEncoding, ClientConfig, ClientProtocol},
    errors::{OciDistributionError, OciErrorCode},
    secrets::RegistryAuth,
};
use reqwest::StatusCode;
use tokio::time::Instant;

use super::{
    USER_AGENT,
    auth::Authorization,
    endpoint::Endpoint,
    guard::Reach,
    http::{self, Answer},
    retry::Retry,
    stream::{BlobStream, Part},
};
use crate::{OciError, metrics};

/// Clients kept; when there are more, all are dropped.
const CLIENTS_MAX: usize = 32;

/// Clients of `oci-distribution`, one per repository and credentials. Such a client keeps the first
/// credentials that it gets for its whole life, so it is replaced when they change.
#[derive(Default)]
pub(super) struct Library(Mutex<BTreeMap<String, (RegistryAuth, Client)>>);

/// Whether the library can open this part of a blob. It knows no client certificates, and an empty
/// blob has no range that it could ask for.
pub(super) fn fits(endpoint: &Endpoint, part: &Part<'_>) -> bool {
    endpoint.reach == Reach::Anywhere
        && endpoint.config.client_certificate.is_none()
        && part.offset == 0
        && part.size > 0
}

/// Opens a blob; with the error, what was sent to be let in.
pub(super) async fn open(
    endpoint: &Endpoint,
    part: &Part<'_>,
    retry: &Retry<'_>,
) -> Result<BlobStream, (OciError, Authorization)> {
    let repository = endpoint.repository(part.repository);
    let ready = endpoint.auth.prepare(endpoint, &repository).await;
    let used = endpoint.auth.current(&repository, endpoint.cx().now());
    let opened = async {
        ready?;
        open_as(endpoint, part, &repository, &used, retry).await
    };
    opened.await.map_err(|error| (error, used))
}

async fn open_as(
    endpoint: &Endpoint,
    part: &Part<'_>,
    repository: &str,
    used: &Authorization,
    retry: &Retry<'_>,
) -> Result<BlobStream, OciError> {
    let client = endpoint.library.client(endpoint, repository, used).await?;
    let digest = part.digest.to_string();
    let host = endpoint.host().to_owned();
    let reference = Reference::with_digest(host.clone(), repository.to_owned(), digest.clone());
    let admission = endpoint.admit(retry.patience()).await?;
    // A range from the first byte on keeps it from hashing what our reader hashes anyway.
    let opening = client.pull_blob_stream_partial(&reference, digest.as_str(), 0, None);
    let started = Instant::now();
    let opened = tokio::time::timeout(endpoint.limits().request_timeout, opening).await;
    let outcome = match &opened {
        Ok(Ok(_)) => "2xx",
        Ok(Err(_)) => "refused",
        Err(_) => "timeout",
    };
    metrics::asked(&host, outcome, started.elapsed());
    let response = opened
        .map_err(|_| http::too_slow(&host))?
        .map_err(|error| refusal(endpoint, repository, error))?;
    let (BlobResponse::Full(stream) | BlobResponse::Partial(stream)) = response;
    let total = stream.content_length;
    let parts = stream
        .stream
        .map_err(move |error| broken(&host, &error))
        .boxed();
    BlobStream::new(endpoint, part, parts, total, admission)
}

/// What an error of the library means.
fn refusal(endpoint: &Endpoint, repository: &str, error: OciDistributionError) -> OciError {
    let (status, answer) = match error {
        OciDistributionError::RequestError(error) => return endpoint.http.broken(&error),
        OciDistributionError::ServerError { code, message, .. } => {
            let status = StatusCode::from_u16(code).unwrap_or(StatusCode::BAD_GATEWAY);
            (status, Answer::of(message.as_bytes()).or_text(&message))
        }
        OciDistributionError::RegistryError { envelope, .. } => {
            let first = envelope.errors.into_iter().next();
            let status = first
                .as_ref()
                .map_or(StatusCode::BAD_REQUEST, |e| status(&e.code));
            let message = first.map(|error| error.message).unwrap_or_default();
            (status, Answer::ours(&message))
        }
        OciDistributionError::UnauthorizedError { .. }
        | OciDistributionError::AuthenticationFailure(_) => {
            (StatusCode::UNAUTHORIZED, Answer::default())
        }
        other => (StatusCode::BAD_GATEWAY, Answer::ours(&other.to_string())),
    };
    // It keeps no headers: for how long is learned by the next request, which is ours.
    endpoint.slow_down(status, None);
    endpoint.subject(repository).refusal(status, &answer, None)
}

// === impl Library ===

impl Library {
    async fn client(
        &self,
        endpoint: &Endpoint,
        repository: &str,
        used: &Authorization,
    ) -> Result<Client, OciError> {
        let auth = match used {
            Authorization::Anonymous => RegistryAuth::Anonymous,
            Authorization::Basic(username, password) => {
                RegistryAuth::Basic(username.clone(), password.expose().to_owned())
            }
            Authorization::Bearer(token) => RegistryAuth::Bearer(token.expose().to_owned()),
        };
        let known = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(repository)
            .cloned();
        if let Some((_, client)) = known.filter(|(known, _)| *known == auth) {
            return Ok(client);
        }
        let client = Client::try_from(client_config(endpoint))
            .map_err(|error| OciError::Internal(format!("setting up TLS: {error}")))?;
        if auth != RegistryAuth::Anonymous {
            // Its own anonymous flow would ask the registry what we know already.
            client.store_auth_if_needed(&endpoint.api_host, &auth).await;
        }
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if clients.len() >= CLIENTS_MAX {
            clients.clear();
        }
        clients.insert(repository.to_owned(), (auth, client.clone()));
        Ok(client)
    }
}

fn client_config(endpoint: &Endpoint) -> ClientConfig {
    let limits = endpoint.limits();
    let certificate = |pem: &Vec<u8>| Certificate {
        encoding: CertificateEncoding::Pem,
        data: pem.clone(),
    };
    let protocol = if endpoint.config.plain_http {
        ClientProtocol::Http
    } else {
        ClientProtocol::Https
    };
    ClientConfig {
        protocol,
        extra_root_certificates: endpoint
            .config
            .ca_certificates
            .iter()
            .map(certificate)
            .collect(),
        read_timeout: Some(limits.idle_timeout),
        connect_timeout: Some(limits.connect_timeout),
        user_agent: USER_AGENT,
        ..ClientConfig::default()
    }
}

fn status(code: &OciErrorCode) -> StatusCode {
    match code {
        OciErrorCode::BlobUnknown
        | OciErrorCode::ManifestUnknown
        | OciErrorCode::ManifestBlobUnknown
        | OciErrorCode::NameUnknown
        | OciErrorCode::NotFound => StatusCode::NOT_FOUND,
        OciErrorCode::Unauthorized | OciErrorCode::Denied => StatusCode::UNAUTHORIZED,
        OciErrorCode::Toomanyrequests => StatusCode::TOO_MANY_REQUESTS,
        _ => StatusCode::BAD_REQUEST,
    }
}

fn broken(host: &str, error: &io::Error) -> OciError {
    let detail = match error.get_ref() {
        Some(inner) => http::causes(inner),
        None => error.to_string(),
    };
    let detail = format!("the connection broke: {detail}");
    OciError::Unavailable {
        host: host.to_owned(),
        detail,
        retry_after: None,
    }
}
