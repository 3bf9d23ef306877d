//! The tokens of an installation: made, listed, revoked.
//!
//! A token grants no more than the one that it was made with, in what it may do, in whose images and
//! in time. The tenant `default` is the installation's own: its administrators administer all
//! tenants. What a maker may do is read anew from the store, never from what was believed lately.
//!
//! At least one token of the installation's administrators must stay, and one that does not expire,
//! unless somebody insists: then the next start of a server makes a new one.

use std::sync::Arc;

use anyhow::Context as _;
use axum::http::StatusCode;
use bus::{PutError, Store};
use chassis::{Clock, Secret, http::ApiError};
use jiff::Timestamp;
use model::{Digest, Scope, Slug, TokenRecord, event::CONFIG};
use tracing::info;

use super::{KEYS, is_live, key, random_token, used};

/// How many tokens there may be.
const TOKENS_MAX: usize = 5_000;
/// Hex digits of a token's digest that name it.
const ID_CHARS: usize = 16;

/// Makes, lists and revokes tokens.
#[derive(Clone)]
pub(crate) struct Ledger {
    pub(super) store: Store,
    pub(super) clock: Arc<dyn Clock>,
}

/// What a token shall be.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    pub(super) name: Slug,
    pub(super) scopes: Vec<Scope>,
    /// The maker's where it is not said.
    pub(super) tenant: Option<Slug>,
    /// The maker's end where it is not said.
    pub(super) expires_at: Option<Timestamp>,
}

/// A token, by the hex digits of its digest.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) digest: String,
    pub(super) record: TokenRecord,
    /// When it was used last, to ten minutes; `None`: never, as far as is known.
    pub(super) used_at: Option<Timestamp>,
    revision: u64,
}

// === impl Ledger ===

impl Ledger {
    /// The tokens in `store`.
    pub(crate) const fn new(store: Store, clock: Arc<dyn Clock>) -> Self {
        Self { store, clock }
    }

    /// Makes a token; the secret is stored nowhere.
    pub(super) async fn make(
        &self,
        maker: &TokenRecord,
        wanted: Wanted,
    ) -> Result<(Secret, Entry), ApiError> {
        let now = self.clock.now();
        let record = bounded(maker, wanted, now)?;
        let all = self.all().await?;
        if all.len() >= TOKENS_MAX {
            return Err(
                ApiError::conflict(format!("there are {TOKENS_MAX} tokens already"))
                    .hint("revoke those that nobody uses"),
            );
        }
        let is_same = |entry: &&Entry| {
            (&entry.record.tenant, &entry.record.name) == (&record.tenant, &record.name)
        };
        if let Some(same) = all.iter().find(is_same) {
            let detail = format!("there is a token `{}` already: {}", record.name, same.id());
            return Err(ApiError::conflict(detail).hint("take another name, or revoke that one"));
        }
        let token = random_token()?;
        let digest = Digest::of(token.expose().as_bytes()).hex();
        let put = self
            .store
            .put(CONFIG, &key(&digest), &record, Some(0))
            .await;
        let revision = put.context("storing a token")?;
        let entry = Entry {
            digest,
            record,
            used_at: None,
            revision,
        };
        info!(
            token.name = entry.record.name,
            token.id = entry.id(),
            "token `{}` was made by `{}`",
            entry.record.name,
            maker.name
        );
        Ok((token, entry))
    }

    /// The tokens that somebody may see, by tenant and name.
    pub(super) async fn list(&self, asks: &TokenRecord) -> Result<Vec<Entry>, ApiError> {
        let mut all = self.all().await?;
        let mut uses = used::all(&self.store).await.context("listing uses")?;
        all.retain(|entry| administers(asks, &entry.record.tenant));
        all.sort_by_key(Entry::sort_key);
        for entry in &mut all {
            entry.used_at = uses.remove(&entry.digest);
        }
        Ok(all)
    }

    /// Revokes a token. From then on every look-up says that nobody knows it.
    pub(super) async fn revoke(
        &self,
        asks: &TokenRecord,
        id: &str,
        is_forced: bool,
    ) -> Result<(), ApiError> {
        let all = self.all().await?;
        let seen = |entry: &&Entry| administers(asks, &entry.record.tenant);
        let found = all.iter().filter(seen).find(|entry| entry.id() == id);
        let entry = found.ok_or_else(|| {
            ApiError::not_found("there is no such token").hint("`GET /v1/tokens` lists them")
        })?;
        let others = all.iter().filter(|other| other.digest != entry.digest);
        if !is_forced && !self.can_go(&entry.record, others) {
            return Err(last_one(&entry.record));
        }
        match self
            .store
            .delete_at(CONFIG, &key(&entry.digest), entry.revision)
            .await
        {
            // Somebody else was faster.
            Ok(()) | Err(PutError::Conflict) => {}
            Err(error) => {
                return Err(anyhow::Error::from(error)
                    .context("revoking a token")
                    .into());
            }
        }
        // Two administrators may have revoked each other: then neither is gone.
        if !is_forced && !self.can_go(&entry.record, self.all().await?.iter()) {
            let put = self
                .store
                .put(CONFIG, &key(&entry.digest), &entry.record, Some(0))
                .await;
            put.context("taking a revocation back")?;
            return Err(last_one(&entry.record));
        }
        let forgotten = used::forget(&self.store, &entry.digest).await;
        forgotten.context("forgetting the uses of a token")?;
        info!(
            token.name = entry.record.name,
            token.id = id,
            "token `{}` was revoked by `{}`",
            entry.record.name,
            asks.name
        );
        Ok(())
    }

    /// Whether the installation can be administered without a token, now and later.
    fn can_go<'a>(&self, token: &TokenRecord, others: impl Iterator<Item = &'a Entry>) -> bool {
        let now = self.clock.now();
        if !is_admin(token) || !is_live(token, now) {
            return true;
        }
        let lasts = |other: &TokenRecord| other.expires_at.is_none() || token.expires_at.is_some();
        let mut others = others.map(|entry| &entry.record);
        others.any(|other| is_admin(other) && is_live(other, now) && lasts(other))
    }

    async fn all(&self) -> Result<Vec<Entry>, ApiError> {
        let found = self
            .store
            .list::<TokenRecord>(CONFIG, KEYS)
            .await
            .context("listing tokens")?;
        let entries = found.into_iter().filter_map(|(key, stored)| {
            let digest = key.strip_prefix(KEYS)?.to_owned();
            Some(Entry {
                digest,
                record: stored.body,
                used_at: None,
                revision: stored.revision,
            })
        });
        Ok(entries.collect())
    }
}

// === impl Entry ===

impl Entry {
    /// Names the token. It says nothing of the secret: that has 256 random bits.
    pub(super) fn id(&self) -> String {
        self.digest.chars().take(ID_CHARS).collect()
    }

    /// Its place in lists; clients see it in cursors.
    pub(super) fn sort_key(&self) -> String {
        format!("{}/{}/{}", self.record.tenant, self.record.name, self.id())
    }
}

/// Whether a token is one of the installation's administrators.
pub(super) fn is_admin(token: &TokenRecord) -> bool {
    token.scopes.contains(&Scope::Admin) && token.tenant == Slug::default_tenant()
}

fn administers(token: &TokenRecord, tenant: &Slug) -> bool {
    token.tenant == *tenant || is_admin(token)
}

/// The record of a new token, unless it would grant more than its maker has.
fn bounded(maker: &TokenRecord, wanted: Wanted, now: Timestamp) -> Result<TokenRecord, ApiError> {
    let refused = |detail: String| {
        Err(ApiError::new(StatusCode::FORBIDDEN, detail)
            .hint("a token grants no more than the one that it is made with"))
    };
    let Wanted {
        name,
        scopes,
        tenant,
        expires_at,
    } = wanted;
    let tenant = tenant.unwrap_or_else(|| maker.tenant.clone());
    if !administers(maker, &tenant) {
        return refused(format!(
            "token `{}` is of the tenant `{}`",
            maker.name, maker.tenant
        ));
    }
    if let Some(scope) = scopes.iter().find(|scope| !maker.scopes.contains(scope)) {
        let scope = super::scope_name(*scope);
        return refused(format!(
            "token `{}` itself lacks the scope `{scope}`",
            maker.name
        ));
    }
    if expires_at.is_some_and(|end| end <= now) {
        let detail = "`expires_at` has passed";
        return Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail));
    }
    if let (Some(end), Some(wanted)) = (maker.expires_at, expires_at)
        && wanted > end
    {
        return refused(format!("token `{}` itself ends at {end}", maker.name));
    }
    Ok(TokenRecord {
        name: name.to_string(),
        scopes,
        tenant,
        created_at: now,
        expires_at: expires_at.or(maker.expires_at),
        created_by: Some(maker.name.clone()),
    })
}

fn last_one(token: &TokenRecord) -> ApiError {
    let which = if token.expires_at.is_none() {
        " that does not expire"
    } else {
        ""
    };
    let detail = format!(
        "`{}` is the last token with the scope `admin`{which}: nobody could administer this \
         installation",
        token.name
    );
    ApiError::conflict(detail).hint(
        "make another one first; or insist (`force=true`, `--force`): the next start of \
         `tidewaiter serve` then makes a new one",
    )
}
