//! Bearer tokens: kept as sha256 in KV `tw_config`, so that neither NATS nor a backup holds one.

use std::{
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::Context as _;
use axum::{
    extract::{Request, State},
    http::{StatusCode, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bus::Store;
use chassis::{
    Cx, Secret,
    http::{ApiError, Grant, Tokens, token_digest},
};
use futures::future::BoxFuture;
use model::{Digest, Scope, Slug, TokenRecord, event::CONFIG};
use tracing::error;

/// Looks tokens up in KV.
#[derive(Debug)]
pub(crate) struct StoredTokens {
    cx: Cx,
    store: Store,
}

// === impl StoredTokens ===

impl StoredTokens {
    pub(crate) fn new(cx: Cx, store: Store) -> Self {
        Self { cx, store }
    }
}

impl Tokens for StoredTokens {
    fn find(&self, token_sha256_hex: &str) -> BoxFuture<'_, Option<Grant>> {
        let key = key(token_sha256_hex);
        Box::pin(async move {
            let found = self.store.get::<TokenRecord>(CONFIG, &key).await;
            let record = match found {
                Ok(found) => found?.body,
                Err(error) => {
                    error!("a token could not be looked up: {error:#}");
                    return None;
                }
            };
            if record.expires_at.is_some_and(|end| end <= self.cx.now()) {
                return None;
            }
            let scopes = record
                .scopes
                .iter()
                .map(|scope| scope_name(*scope).to_owned())
                .collect();
            Some(Grant {
                name: record.name,
                tenant: record.tenant.to_string(),
                scopes,
            })
        })
    }
}

/// Finds out who calls, for routes that ask for an `Extension<Grant>` and check its scopes
/// themselves. Webhooks carry tokens of their own, which are the gateway's business.
pub(crate) async fn identify(
    State(tokens): State<Arc<dyn Tokens>>,
    mut request: Request,
    next: Next,
) -> Response {
    let header = request
        .headers()
        .get(header::AUTHORIZATION)
        .and_then(|value| value.to_str().ok());
    let token = header
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::to_owned);
    let is_hook = request.uri().path().starts_with("/hooks/");
    if let Some(token) = token.filter(|_| !is_hook) {
        let Some(grant) = tokens.find(&token_digest(token.trim())).await else {
            let error = ApiError::new(
                StatusCode::UNAUTHORIZED,
                "nobody knows this token, or it ran out",
            );
            return error
                .hint("send `Authorization: Bearer TOKEN`")
                .into_response();
        };
        request.extensions_mut().insert(grant);
    }
    next.run(request).await
}

/// Makes the first token of an installation that has none, and writes it where only its owner can
/// read it. Returns the file.
pub(crate) async fn bootstrap(cx: &Cx, store: &Store, dir: &Path) -> anyhow::Result<PathBuf> {
    let file = dir.join("admin.token");
    let tokens = store
        .list::<TokenRecord>(CONFIG, "tokens.")
        .await
        .context("listing tokens")?;
    if !tokens.is_empty() {
        return Ok(file);
    }
    let token = random_token()?;
    let record = TokenRecord {
        name: "admin".to_owned(),
        scopes: vec![Scope::Read, Scope::Scan, Scope::Admin],
        tenant: Slug::default_tenant(),
        created_at: cx.now(),
        expires_at: None,
    };
    // The file first: a token that nobody can read would lock everybody out.
    write_secret(&file, token.expose())
        .with_context(|| format!("writing the admin token to `{}`", file.display()))?;
    let hash = Digest::of(token.expose().as_bytes()).hex();
    store
        .put(CONFIG, &key(&hash), &record, Some(0))
        .await
        .context("storing the admin token")?;
    Ok(file)
}

/// 32 random bytes as hex.
fn random_token() -> anyhow::Result<Secret> {
    let mut bytes = [0; 32];
    aws_lc_rs::rand::fill(&mut bytes).context("asking the system for random bytes")?;
    Ok(Secret::from(model::hex(&bytes)))
}

fn write_secret(file: &Path, secret: &str) -> std::io::Result<()> {
    if let Some(dir) = file.parent() {
        std::fs::create_dir_all(dir)?;
    }
    let mut options = std::fs::OpenOptions::new();
    let mut out = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(file)?;
    writeln!(out, "{secret}")?;
    out.sync_all()
}

fn key(token_sha256_hex: &str) -> String {
    format!("tokens.{token_sha256_hex}")
}

const fn scope_name(scope: Scope) -> &'static str {
    match scope {
        Scope::Read => "read",
        Scope::Scan => "scan",
        Scope::Admin => "admin",
    }
}
