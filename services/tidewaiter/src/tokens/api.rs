//! `/v1/tokens`: who may use this API.

use axum::{
    Json, Router,
    extract::{Path, Query, State},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use chassis::http::{
    Access, ApiError, Operation, Page, PageQuery, Route, bearer, body_limit, token_digest,
};
use jiff::Timestamp;
use model::{Scope, Slug, TokenRecord, event::CONFIG};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    is_live, key,
    ledger::{Entry, Ledger, Wanted},
};

const ADMIN: Access = Access::Scope("admin");
const BODY_BYTES_MAX: usize = 16 * 1024;

/// A set of scopes with a name.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, clap::ValueEnum,
)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "TokenRole")]
pub(crate) enum TokenRole {
    /// Reads everything of its tenant.
    Viewer,
    /// Asks for scans, and reads what comes of them.
    Ci,
    /// Reads, decides about responses to incidents, and orders them.
    Responder,
    /// Everything.
    Admin,
}

/// What a new token shall be. It says either its role or its scopes.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct NewToken {
    /// Who uses it.
    name: Slug,
    /// What it may do, by a role.
    #[serde(default)]
    role: Option<TokenRole>,
    /// What it may do, scope by scope.
    #[serde(default)]
    scopes: Vec<Scope>,
    /// Whose images; the caller's where it is not said.
    #[serde(default)]
    tenant: Option<Slug>,
    /// Until when it holds; as long as the caller's own where it is not said.
    #[serde(default)]
    #[schemars(with = "Option<model::schema::Time>")]
    expires_at: Option<Timestamp>,
}

/// A token, without its secret.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct Token {
    /// Names it, for `DELETE /v1/tokens/{id}`.
    pub(crate) id: String,
    /// Who uses it.
    pub(crate) name: String,
    /// The role that has exactly its scopes; null where none has.
    pub(crate) role: Option<TokenRole>,
    /// What it may do.
    pub(crate) scopes: Vec<Scope>,
    /// Whose images.
    pub(crate) tenant: Slug,
    /// When it was made.
    #[schemars(with = "model::schema::Time")]
    pub(crate) created_at: Timestamp,
    /// The token that it was made with; null for the first of an installation.
    pub(crate) created_by: Option<String>,
    /// Until when it holds; null: until it is revoked.
    #[schemars(with = "Option<model::schema::Time>")]
    pub(crate) expires_at: Option<Timestamp>,
    /// Whether that has passed.
    pub(crate) is_expired: bool,
    /// When it was used last, to ten minutes; null: never, or before uses were noted.
    #[schemars(with = "Option<model::schema::Time>")]
    pub(crate) last_used_at: Option<Timestamp>,
}

/// A new token, with its secret, which is shown this once.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
pub(crate) struct MadeToken {
    /// The secret: `Authorization: Bearer TOKEN`.
    pub(crate) token: String,
    /// What is known of it from now on.
    #[serde(flatten)]
    pub(crate) shown: Token,
}

#[derive(Clone, Copy, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct RevokeQuery {
    /// Also the last token that can administer the installation.
    force: bool,
}

/// The routes; whoever mounts them brings an `Extension<Arc<dyn Tokens>>`.
pub(crate) fn routes(ledger: Ledger) -> Router {
    chassis::http::router(table(), ledger).layer(body_limit(BODY_BYTES_MAX))
}

/// What is to be said of the routes.
pub(crate) fn operations() -> Vec<Operation> {
    chassis::http::operations(table())
}

/// The table of routes.
fn table() -> Vec<Route<Ledger>> {
    vec![
        ADMIN
            .get(
                "/v1/tokens",
                "listTokens",
                "Tokens, without their secrets",
                list,
            )
            .detail("Administrators of the tenant `default` see those of all tenants.")
            .query::<PageQuery>()
            .answers::<Page<Token>>(StatusCode::OK, "a page of the list, by tenant and name"),
        ADMIN
            .post("/v1/tokens", "makeToken", "Makes a token", make)
            .detail(
                "It grants no more than the caller's own token has: in scopes, in tenant and in \
                 time. Administrators of the tenant `default` make tokens for every tenant.",
            )
            .body::<NewToken>()
            .answers::<MadeToken>(
                StatusCode::CREATED,
                "the token; its secret is shown this once",
            )
            .with_header("Location", "the token's path")
            .refuses(
                StatusCode::FORBIDDEN,
                "it would grant more than the caller's own token has",
            )
            .refuses(
                StatusCode::CONFLICT,
                "there is a token of this name, or there are too many",
            ),
        ADMIN
            .delete("/v1/tokens/{id}", "revokeToken", "Revokes a token", revoke)
            .detail("It is refused by every process from its next request on.")
            .path::<String>("id", "the token's id")
            .query::<RevokeQuery>()
            .answers_nothing(StatusCode::NO_CONTENT, "nobody knows it any more")
            .refuses(StatusCode::NOT_FOUND, "there is no such token")
            .refuses(
                StatusCode::CONFLICT,
                "it is the last that can administer the installation",
            ),
    ]
}

async fn list(
    State(ledger): State<Ledger>,
    Query(query): Query<PageQuery>,
    headers: HeaderMap,
) -> Result<Json<Page<Token>>, ApiError> {
    let caller = ledger.caller(&headers).await?;
    let now = ledger.clock.now();
    let entries = ledger.list(&caller).await?.into_iter();
    let all = entries.map(|entry| (entry.sort_key(), Token::of(&entry, now)));
    Page::of(all, &query).map(Json)
}

async fn make(
    State(ledger): State<Ledger>,
    headers: HeaderMap,
    Json(body): Json<NewToken>,
) -> Result<Response, ApiError> {
    let caller = ledger.caller(&headers).await?;
    let (token, entry) = ledger.make(&caller, body.wanted()?).await?;
    let shown = Token::of(&entry, ledger.clock.now());
    let location = HeaderValue::try_from(format!("/v1/tokens/{}", shown.id));
    let location = location.map_err(anyhow::Error::from)?;
    let caching = HeaderValue::from_static("no-store");
    let headers = [
        (header::LOCATION, location),
        (header::CACHE_CONTROL, caching),
    ];
    let made = MadeToken {
        token: token.expose().to_owned(),
        shown,
    };
    Ok((StatusCode::CREATED, headers, Json(made)).into_response())
}

async fn revoke(
    State(ledger): State<Ledger>,
    Path(id): Path<String>,
    Query(query): Query<RevokeQuery>,
    headers: HeaderMap,
) -> Result<StatusCode, ApiError> {
    let caller = ledger.caller(&headers).await?;
    ledger.revoke(&caller, &id, query.force).await?;
    Ok(StatusCode::NO_CONTENT)
}

// === impl Ledger ===

impl Ledger {
    /// The caller's token, as it is in the store now.
    async fn caller(&self, headers: &HeaderMap) -> Result<TokenRecord, ApiError> {
        let token = bearer(headers).unwrap_or_default();
        let key = key(&token_digest(&token));
        let found = self.store.get::<TokenRecord>(CONFIG, &key).await;
        let found = found
            .map_err(anyhow::Error::from)?
            .map(|stored| stored.body);
        let now = self.clock.now();
        let found =
            found.filter(|record| is_live(record, now) && record.scopes.contains(&Scope::Admin));
        found.ok_or_else(|| {
            let detail = "nobody knows this token any more, or it ran out";
            ApiError::new(StatusCode::UNAUTHORIZED, detail)
        })
    }
}

// === impl NewToken, Token, TokenRole ===

impl NewToken {
    fn wanted(self) -> Result<Wanted, ApiError> {
        let mut scopes = match (self.role, self.scopes) {
            (Some(role), scopes) if scopes.is_empty() => role.scopes().to_vec(),
            (None, scopes) if !scopes.is_empty() => scopes,
            _ => {
                let detail = "a token has either a `role` or `scopes`";
                return Err(
                    ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail).hint(
                        "roles are `viewer`, `ci` and `admin`; scopes `read`, `scan` and `admin`",
                    ),
                );
            }
        };
        scopes.sort_by_key(|scope| super::scope_name(*scope));
        scopes.dedup();
        Ok(Wanted {
            name: self.name,
            scopes,
            tenant: self.tenant,
            expires_at: self.expires_at,
        })
    }
}

impl Token {
    fn of(entry: &Entry, now: Timestamp) -> Self {
        let record = entry.record.clone();
        Self {
            id: entry.id(),
            name: record.name.clone(),
            role: TokenRole::of(&record.scopes),
            is_expired: !is_live(&record, now),
            last_used_at: entry.used_at,
            scopes: record.scopes,
            tenant: record.tenant,
            created_at: record.created_at,
            created_by: record.created_by,
            expires_at: record.expires_at,
        }
    }
}

impl TokenRole {
    const ALL: [Self; 4] = [Self::Viewer, Self::Ci, Self::Responder, Self::Admin];

    const fn scopes(self) -> &'static [Scope] {
        match self {
            Self::Viewer => &[Scope::Read],
            Self::Ci => &[Scope::Read, Scope::Scan],
            Self::Responder => &[Scope::Read, Scope::Respond],
            Self::Admin => &[Scope::Read, Scope::Scan, Scope::Admin],
        }
    }

    fn of(scopes: &[Scope]) -> Option<Self> {
        let is_same = |role: &Self| {
            let own = role.scopes();
            own.len() == scopes.len() && own.iter().all(|scope| scopes.contains(scope))
        };
        Self::ALL.into_iter().find(is_same)
    }
}

#[cfg(test)]
mod tests;
