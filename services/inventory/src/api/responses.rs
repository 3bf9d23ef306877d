//! What is done about incidents: `GET /v1/responses`, `POST /v1/incidents/{id}/orders` and the like.
//!
//! An order is not carried out here. It is stored as an event, which policy takes, guards and
//! answers in the incident's record; so it is not lost where policy is away, and nothing but policy
//! ever says what a node shall do.

use axum::{
    Extension, Json,
    body::Body,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use jiff::Timestamp;
use model::{
    Digest, Fingerprint, Slug,
    runtime::{
        Action, FORENSIC_BYTES_MAX, Order, Peer, RESPONSE_RECORDS, ResponseId, ResponseOrdered,
        ResponseRecord, forensic_objects,
    },
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Caller, bad_parameter, containers, internal,
    page::{self, Bounds},
    permit,
};
use crate::view::{Entry, Ordered, View};

/// How long an action lasts where nobody says, seconds.
const VALID_FOR_S: u64 = 24 * 3_600;
/// The longest, seconds.
const VALID_FOR_S_MAX: u64 = 30 * 86_400;
/// Addresses that a quarantine may leave.
const ALLOW_MAX: usize = 64;
/// Characters of a reason, and of an idempotency key.
const TEXT_MAX: usize = 1_000;

/// Filters of the list. All that are given must fit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only those with a response that waits for somebody: proposed or held.
    waiting: Option<bool>,
    /// Only those with a response that is in force, or shall be.
    active: Option<bool>,
    /// A node.
    node: Option<String>,
    /// At most so many rows; 100 where it is not said.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// What somebody orders.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ResponseOrder")]
pub(super) struct OrderBody {
    /// What.
    order: Verb,
    /// The response to approve, deny or release; a release without one takes back all of the
    /// container.
    #[serde(default)]
    response: Option<String>,
    /// What to do, for `act`.
    #[serde(default)]
    action: Option<Act>,
    /// Whom a container in quarantine may still talk to, as `10.0.0.53:53` or `10.0.0.0/8`.
    #[serde(default)]
    allow: Vec<Peer>,
    /// For how long to act, seconds; a day where it is not said. Only for `act`.
    #[serde(default)]
    #[schemars(range(min = 1, max = 2_592_000))]
    valid_for_s: Option<u64>,
    /// Whether the agent only answers what it would have done; for `act`.
    #[serde(default)]
    dry_run: bool,
    /// Whether what guards against too much is overruled: the last instance that serves, what is
    /// protected; for `act` and `approve`.
    #[serde(default)]
    force: bool,
    /// Why, for the record.
    #[serde(default)]
    reason: String,
}

/// What is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ResponseVerb")]
enum Verb {
    /// A proposed response is carried out.
    Approve,
    /// A proposed response is not.
    Deny,
    /// Something is done that no rule proposed.
    Act,
    /// What was done is taken back.
    Release,
}

/// What can be done by hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ResponseAct")]
enum Act {
    /// Keep its process tree, open files, sockets, memory maps, changed files.
    CollectEvidence,
    /// Let it run no file that its image does not hold.
    Block,
    /// Freeze it.
    Pause,
    /// Cut it off from the network.
    Quarantine,
    /// Cut it off and freeze it, and start a fresh one of the same image.
    Replace,
    /// Kill it.
    Kill,
}

/// That an order was taken.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct OrderTaken {
    /// Names the order: the incident's `orders` say what became of it.
    id: String,
    /// Where to look: `GET /v1/responses/{incident}`.
    incident: String,
}

/// What an order is about.
struct Target {
    incident: Option<String>,
    node: Slug,
    container: String,
}

/// `GET /v1/responses`.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<ResponseRecord>>, ApiError> {
    let tenant = permit(caller)?;
    let page = PageQuery::new(query.limit, query.cursor.clone());
    let bounds = api.bounds(&page, &tenant)?;
    let page = api.read(move |view| query.page((view, &tenant), bounds));
    page.await.map(Json)
}

/// `GET /v1/responses/{incident}`.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(incident): Path<String>,
) -> Result<Json<ResponseRecord>, ApiError> {
    let tenant = permit(caller)?;
    let found = record(&api, &tenant, &incident).await?;
    found.map(Json).ok_or_else(|| missing(&incident))
}

/// `GET /v1/responses/{incident}/evidence/{digest}`.
pub(super) async fn evidence(
    State(api): State<Api>,
    caller: Caller,
    Path((incident, digest)): Path<(String, String)>,
) -> Result<Response, ApiError> {
    let tenant = permit(caller)?;
    let digest: Digest = digest
        .parse()
        .map_err(|error| bad_parameter("digest", error))?;
    let found = record(&api, &tenant, &incident).await?;
    let found = found.ok_or_else(|| missing(&incident))?;
    let mut objects = found
        .responses
        .iter()
        .flat_map(|response| &response.evidence);
    // What is no evidence of this incident is nobody's here.
    let named = objects.any(|object| object.digest == digest);
    let bucket = forensic_objects(&tenant, &found.node);
    let bytes = if named {
        let read = api.store.object_bytes(&bucket, &digest, FORENSIC_BYTES_MAX);
        read.await.map_err(internal)?
    } else {
        None
    };
    let gone = || ApiError::not_found("that evidence is not kept, or no more".to_owned());
    let bytes = bytes.ok_or_else(gone)?;
    let media = [(header::CONTENT_TYPE, "application/octet-stream")];
    Ok((media, Body::from(bytes)).into_response())
}

/// `POST /v1/incidents/{id}/orders`.
pub(super) async fn order_incident(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<OrderBody>,
) -> Result<(StatusCode, Json<OrderTaken>), ApiError> {
    let Extension(grant) = &caller;
    let by = grant.name.clone();
    let tenant = permit(caller)?;
    let (of, wanted) = (tenant.clone(), id.clone());
    let incident = api.read(move |view| view.incident(&of, &wanted)).await?;
    let target = match incident {
        Some(incident) => Target {
            incident: Some(incident.id),
            node: incident.node,
            container: incident.container,
        },
        None => match record(&api, &tenant, &id).await? {
            // What was done by hand has a record and no incident.
            Some(known) if !known.container.is_empty() => Target {
                incident: (!known.incident.starts_with("hand-")).then_some(known.incident),
                node: known.node,
                container: known.container,
            },
            _ => return Err(missing(&id)),
        },
    };
    take(&api, (&tenant, by), target, &headers, body).await
}

/// `POST /v1/containers/{id}/orders`.
pub(super) async fn order_container(
    State(api): State<Api>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(body): Json<OrderBody>,
) -> Result<(StatusCode, Json<OrderTaken>), ApiError> {
    let Extension(grant) = &caller;
    let by = grant.name.clone();
    let tenant = permit(caller)?;
    let found = containers::one(&api, &tenant, &id).await?;
    let target = Target {
        incident: None,
        node: found.node,
        container: found.container.id,
    };
    take(&api, (&tenant, by), target, &headers, body).await
}

/// Stores an order.
async fn take(
    api: &Api,
    (tenant, by): (&Slug, String),
    target: Target,
    headers: &HeaderMap,
    body: OrderBody,
) -> Result<(StatusCode, Json<OrderTaken>), ApiError> {
    let at = api.now();
    let order = body.order()?;
    let record = match &target.incident {
        Some(incident) => incident.clone(),
        None => ResponseRecord::by_hand(&target.container),
    };
    let ordered = ResponseOrdered {
        id: order_id(headers, (&record, &by), (&order, body.force), at)?,
        incident: target.incident,
        node: target.node,
        container: target.container,
        order,
        force: body.force,
        by,
        reason: body.reason.chars().take(TEXT_MAX).collect(),
        at,
    };
    api.broker.order(tenant, &ordered).await.map_err(internal)?;
    tracing::info!(
        token.name = ordered.by,
        "`{}` ordered {:?} for container `{}` on node `{}`",
        ordered.by,
        ordered.order,
        ordered.container,
        ordered.node,
    );
    let taken = OrderTaken {
        id: ordered.id,
        incident: record,
    };
    Ok((StatusCode::ACCEPTED, Json(taken)))
}

/// The id of an order: who sends it again with the same `Idempotency-Key` orders nothing more. One
/// that overrules what held the first is another one.
fn order_id(
    headers: &HeaderMap,
    (record, by): (&str, &str),
    (order, force): (&Order, bool),
    at: Timestamp,
) -> Result<String, ApiError> {
    let text = serde_json::to_string(order).map_err(internal)?;
    let key = match headers.get("idempotency-key") {
        None => at.as_nanosecond().to_string(),
        Some(key) => {
            let key = key.to_str().ok().filter(|key| key.len() <= TEXT_MAX);
            let wrong = || bad_parameter("Idempotency-Key", "it is no short printable text");
            key.ok_or_else(wrong)?.to_owned()
        }
    };
    Ok(Fingerprint::of(&[record, by, &text, &force.to_string(), &key]).to_string())
}

async fn record(
    api: &Api,
    tenant: &Slug,
    incident: &str,
) -> Result<Option<ResponseRecord>, ApiError> {
    let is_name = (1..=100).contains(&incident.len())
        && incident
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_');
    if !is_name {
        return Ok(None);
    }
    let key = ResponseRecord::key(tenant, incident);
    let stored = api
        .store
        .get::<ResponseRecord>(RESPONSE_RECORDS, &key)
        .await;
    Ok(stored.map_err(internal)?.map(|stored| stored.body))
}

/// What there is in response to an incident.
pub(super) async fn of_incident(
    api: &Api,
    tenant: &Slug,
    incident: &str,
) -> Result<Option<ResponseRecord>, ApiError> {
    record(api, tenant, incident).await
}

fn missing(incident: &str) -> ApiError {
    let shown: String = incident.chars().take(100).collect();
    ApiError::not_found(format!(
        "nothing was done about `{shown}`, and no such incident is known"
    ))
    .hint("`GET /v1/incidents` lists incidents, `GET /v1/responses` what was done")
}

// === impl ListQuery ===

impl ListQuery {
    fn page(
        &self,
        (view, tenant): (&View, &Slug),
        bounds: Bounds,
    ) -> Result<Page<ResponseRecord>, CacheError> {
        let rows =
            |after: Option<&[u8]>, limit| view.latest(Ordered::RESPONSES, tenant, after, limit);
        page::fill(bounds, rows, |entry: Entry| {
            let is_wanted = self.waiting.is_none_or(|it| it == entry.is_waiting())
                && self.active.is_none_or(|it| it == entry.is_active());
            if !is_wanted {
                return Ok(None);
            }
            let record = view.response(tenant, &entry.id)?;
            let node = self.node.as_deref();
            Ok(record.filter(|one| node.is_none_or(|node| node == one.node.as_str())))
        })
    }
}

// === impl OrderBody ===

impl OrderBody {
    fn order(&self) -> Result<Order, ApiError> {
        self.check()?;
        let id = self.response.clone().map(ResponseId);
        let named = || {
            let why = "an order to approve or deny names a `response`";
            id.clone()
                .ok_or_else(|| ApiError::bad_request(why.to_owned()))
        };
        Ok(match self.order {
            Verb::Approve => Order::Approve { response: named()? },
            Verb::Deny => Order::Deny { response: named()? },
            Verb::Release => Order::Release { response: id },
            Verb::Act => Order::Act {
                action: self.action()?,
                valid_for_s: self.valid_for_s()?,
                dry_run: self.dry_run,
            },
        })
    }

    /// What does not belong to an order is refused: who asks to try a release must not be given one.
    fn check(&self) -> Result<(), ApiError> {
        let is_act = self.order == Verb::Act;
        let stray = [
            ("response", is_act && self.response.is_some()),
            ("action", !is_act && self.action.is_some()),
            ("allow", !is_act && !self.allow.is_empty()),
            ("valid_for_s", !is_act && self.valid_for_s.is_some()),
            ("dry_run", !is_act && self.dry_run),
            (
                "force",
                matches!(self.order, Verb::Deny | Verb::Release) && self.force,
            ),
        ];
        match stray.into_iter().find(|(_, is_stray)| *is_stray) {
            None => Ok(()),
            Some((name, _)) => Err(ApiError::bad_request(format!(
                "`{name}` means nothing in such an order"
            ))),
        }
    }

    fn action(&self) -> Result<Action, ApiError> {
        if self.allow.len() > ALLOW_MAX {
            let why = format!("`allow` has more than {ALLOW_MAX} addresses");
            return Err(ApiError::bad_request(why));
        }
        let why = "an order to act names an `action`";
        let action = self
            .action
            .ok_or_else(|| ApiError::bad_request(why.to_owned()))?;
        if !self.allow.is_empty() && action != Act::Quarantine {
            return Err(ApiError::bad_request(
                "only a quarantine has `allow`".to_owned(),
            ));
        }
        Ok(match action {
            Act::CollectEvidence => Action::CollectEvidence,
            Act::Block => Action::Block,
            Act::Pause => Action::Pause,
            Act::Quarantine => Action::Quarantine {
                allow: self.allow.clone(),
            },
            Act::Replace => Action::Replace,
            Act::Kill => Action::Kill,
        })
    }

    fn valid_for_s(&self) -> Result<u64, ApiError> {
        let seconds = self.valid_for_s.unwrap_or(VALID_FOR_S);
        let fits = (1..=VALID_FOR_S_MAX).contains(&seconds);
        let why = || ApiError::bad_request(format!("`valid_for_s` is 1 to {VALID_FOR_S_MAX}"));
        fits.then_some(seconds).ok_or_else(why)
    }
}
