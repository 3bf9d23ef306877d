//! `GET /v1/health`: how the whole installation does.
//!
//! What a process alone knows (its notes, its spool, which streams refused it) it says in a record
//! that expires with it; everything else is asked for. A part that cannot be asked is a problem of
//! its own, and the rest is answered: this page must tell most when least works.

mod problems;

use std::{collections::BTreeMap, fmt, time::Duration};

use axum::{Json, extract::State};
use bus::{Queue, StoreError};
use chassis::http::ApiError;
use futures::{StreamExt as _, TryStreamExt as _, stream};
use jiff::Timestamp;
use model::{
    Catalog, CrawlPass, CrawlRecord, Partition, ProcessRecord, QueueState, Slug,
    event::{
        CLAIM_OBJECTS, FEED_OBJECTS, LAYER_OBJECTS, LEASES, REFS, REPORT_OBJECTS, images_bucket,
    },
};
use schemars::JsonSchema;
use serde::Serialize;

use super::{Api, Caller, advisories::head, internal, permit};

/// The roles of an installation.
const ROLES: [&str; 7] = [
    "gateway",
    "router",
    "scanner",
    "matcher",
    "policy",
    "alerting",
    "inventory",
];
const STORES: [&str; 4] = [LAYER_OBJECTS, REPORT_OBJECTS, FEED_OBJECTS, CLAIM_OBJECTS];
/// How long each part may take to answer.
const PATIENCE: Duration = Duration::from_secs(3);
/// How many partitions are asked for at once.
const PARALLEL: usize = 8;

/// The state of an installation.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Health {
    /// In one word.
    status: Status,
    /// What needs somebody's attention, in sentences; empty is healthy.
    problems: Vec<String>,
    /// How large this view of the records is; estimates, over all tenants.
    view: ViewHealth,
    /// How far it is, per partition.
    partitions: Vec<PartitionHealth>,
    /// The advisory data.
    advisories: AdvisoryHealth,
    /// What waits to be handled, per consumer.
    queues: Vec<QueueState>,
    /// Messages that could not be handled; null where nobody could say.
    dead_letters: Option<u64>,
    /// How full the stores of objects are.
    stores: Vec<StoreHealth>,
    /// How many processes run each role.
    roles: BTreeMap<String, usize>,
    /// The processes that live.
    processes: Vec<ProcessRecord>,
    /// How far the looks around the caller's sources are.
    sources: Vec<SourceHealth>,
}

/// The state of an installation in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "HealthStatus")]
enum Status {
    /// Nothing is the matter.
    Ok,
    /// The view is behind the records, so lists are.
    CatchingUp,
    /// There are problems.
    Degraded,
}

/// How large the view is.
#[derive(Debug, Serialize, JsonSchema)]
struct ViewHealth {
    /// Images.
    images: u64,
    /// Names.
    names: u64,
    /// Bytes on disk.
    bytes: u64,
}

/// How far the view is in a partition.
#[derive(Debug, Serialize, JsonSchema)]
struct PartitionHealth {
    /// The partition, `0` to `f`.
    partition: String,
    /// What the view has taken up.
    cursor: u64,
    /// What there is.
    last: u64,
    /// The difference.
    lag: u64,
}

/// The advisory data in force.
#[derive(Debug, Serialize, JsonSchema)]
struct AdvisoryHealth {
    /// The revision in force; 0 where there is none.
    revision: u64,
    /// The lowest revision that a partition holds for.
    swept: u64,
    /// When it came into force.
    #[schemars(with = "Option<model::schema::Time>")]
    published_at: Option<Timestamp>,
    /// When the oldest data that a partition holds for were fetched.
    #[schemars(with = "Option<model::schema::Time>")]
    data_at: Option<Timestamp>,
    /// How old they are.
    age_seconds: Option<i64>,
}

/// How full a store of objects is.
#[derive(Debug, Serialize, JsonSchema)]
struct StoreHealth {
    /// Its name.
    name: &'static str,
    /// Bytes.
    bytes: u64,
    /// How many they may be; null where there is no bound. Of a store with one, the oldest go.
    bytes_max: Option<u64>,
}

/// How far the looks around a source are.
#[derive(Debug, Serialize, JsonSchema)]
struct SourceHealth {
    /// The source.
    source: Slug,
    /// What its catalog says.
    catalog: Catalog,
    /// Whether a look around is under way.
    is_looking: bool,
    /// The look that runs, or that ran last.
    pass: CrawlPass,
    /// The last look that came to its end.
    last_pass: Option<CrawlPass>,
    /// What went wrong last.
    last_error: Option<String>,
}

/// `GET /v1/health`.
pub(super) async fn get(State(api): State<Api>, caller: Caller) -> Result<Json<Health>, ApiError> {
    let tenant = permit(caller)?;
    let mut problems = Vec::new();
    let (images, names, bytes) = api.read(crate::view::View::sizes).await?;
    let processes = told(&mut problems, "processes", api.processes()).await;
    let roles = processes.as_deref().map(roles).unwrap_or_default();
    let mut processes = processes.unwrap_or_default();
    let queues = told(&mut problems, "queues", api.broker.queues()).await;
    let queues = merged(&mut processes, &queues.unwrap_or_default());
    let letters = told(&mut problems, "dead letters", api.broker.dead_letters()).await;
    let stores = told(&mut problems, "stores", api.stores()).await;
    let sources = told(&mut problems, "sources", api.sources(&tenant)).await;
    let mut health = Health {
        status: Status::Ok,
        problems: Vec::new(),
        view: ViewHealth {
            images,
            names,
            bytes,
        },
        partitions: api.partitions().await?,
        advisories: api.advisories().await?,
        queues,
        dead_letters: letters,
        stores: stores.unwrap_or_default(),
        roles,
        processes,
        sources: sources.unwrap_or_default(),
    };
    problems::find(&health, &mut problems);
    health.status = status(&health, &problems);
    health.problems = problems;
    Ok(Json(health))
}

/// What somebody answers in time; that nobody does is a problem.
async fn told<T, E: fmt::Display>(
    problems: &mut Vec<String>,
    what: &str,
    asked: impl Future<Output = Result<T, E>>,
) -> Option<T> {
    let why = match tokio::time::timeout(PATIENCE, asked).await {
        Ok(Ok(told)) => return Some(told),
        Ok(Err(error)) => format!("{error:#}"),
        Err(_) => format!("no answer in {} s", PATIENCE.as_secs()),
    };
    problems.push(format!("{what} cannot be asked for: {why}"));
    None
}

/// All queues: as they are now, and those of sinks as their processes saw them. Each is told once.
fn merged(processes: &mut [ProcessRecord], now: &[Queue]) -> Vec<QueueState> {
    let seen = processes
        .iter_mut()
        .flat_map(|process| std::mem::take(&mut process.queues));
    let all = seen.chain(now.iter().map(Queue::state));
    let by_name = all.map(|queue| ((queue.stream.clone(), queue.consumer.clone()), queue));
    by_name.collect::<BTreeMap<_, _>>().into_values().collect()
}

fn status(health: &Health, problems: &[String]) -> Status {
    match problems {
        _ if health.partitions.iter().any(|partition| partition.lag > 0) => Status::CatchingUp,
        [] => Status::Ok,
        _ => Status::Degraded,
    }
}

/// How many processes run each role. A role that nobody runs is there, with 0.
fn roles(processes: &[ProcessRecord]) -> BTreeMap<String, usize> {
    let mut roles: BTreeMap<String, usize> = ROLES.map(|role| (role.to_owned(), 0)).into();
    for role in processes.iter().flat_map(|process| &process.roles) {
        *roles.entry(role.clone()).or_default() += 1;
    }
    roles
}

// === impl Api ===

impl Api {
    async fn partitions(&self) -> Result<Vec<PartitionHealth>, ApiError> {
        stream::iter(Partition::all())
            .map(|partition| self.partition(partition))
            .buffered(PARALLEL)
            .try_collect()
            .await
    }

    async fn partition(&self, partition: Partition) -> Result<PartitionHealth, ApiError> {
        let bucket = images_bucket(partition);
        let last = self.broker.last_sequence(&bucket).await.map_err(internal)?;
        let cursor = self.read(move |view| view.cursor(&bucket)).await?;
        let lag = last.saturating_sub(cursor);
        Ok(PartitionHealth {
            partition: partition.to_string(),
            cursor,
            last,
            lag,
        })
    }

    async fn advisories(&self) -> Result<AdvisoryHealth, ApiError> {
        let now = self.now();
        let marks = self.marks.get(&self.store, now).await.map_err(internal)?;
        let head = head(&self.store).await?;
        let data_at = marks.data_at();
        Ok(AdvisoryHealth {
            revision: head.as_ref().map_or(0, |head| head.revision),
            swept: marks.revision(),
            published_at: head.map(|head| head.published_at),
            data_at,
            age_seconds: data_at.map(|at| now.duration_since(at).as_secs()),
        })
    }

    async fn processes(&self) -> Result<Vec<ProcessRecord>, StoreError> {
        let found = self
            .store
            .list::<ProcessRecord>(LEASES, ProcessRecord::KEYS)
            .await?;
        let mut found: Vec<_> = found.into_iter().map(|(_, stored)| stored.body).collect();
        found.sort_by(|a, b| {
            (&a.roles, &a.started_at, &a.id).cmp(&(&b.roles, &b.started_at, &b.id))
        });
        Ok(found)
    }

    async fn stores(&self) -> Result<Vec<StoreHealth>, StoreError> {
        let mut stores = Vec::with_capacity(STORES.len());
        for name in STORES {
            let usage = self.store.usage(name).await?;
            let (bytes, bytes_max) = (usage.bytes, usage.bytes_max);
            stores.push(StoreHealth {
                name,
                bytes,
                bytes_max,
            });
        }
        Ok(stores)
    }

    async fn sources(&self, tenant: &Slug) -> Result<Vec<SourceHealth>, StoreError> {
        let keys = CrawlRecord::keys_of(tenant);
        let found = self
            .store
            .list::<CrawlRecord>(REFS, &keys)
            .await?
            .into_iter();
        Ok(found
            .map(|(_, stored)| SourceHealth::from(stored.body))
            .collect())
    }
}

// === impl SourceHealth ===

impl From<CrawlRecord> for SourceHealth {
    fn from(record: CrawlRecord) -> Self {
        Self {
            source: record.source,
            catalog: record.catalog,
            is_looking: record.cursor.is_some(),
            pass: record.pass,
            last_pass: record.last_pass,
            last_error: record.last_error,
        }
    }
}
