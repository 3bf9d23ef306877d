//! `GET /v1/images`, `GET /v1/images/{reference or digest}`.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::{Path, Query, State},
    http::Uri,
    response::{IntoResponse as _, Response},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use globset::{Glob, GlobMatcher};
use jiff::Timestamp;
use model::{Counts, Decision, Digest, Platform, SeenReference, Severity, Slug};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Caller, bad_parameter,
    checks::{self, Checks, Looked},
    containers, internal,
    join::Join,
    lookup::FoundBy,
    page::{self, Bounds},
    permit, reports,
};
use crate::{
    verdicts::{Marks, selects},
    view::{ImageView, NameKey, View},
};

const REPORT: &str = "/report";
const CONTAINERS: &str = "/containers";

/// Filters of the list. All that are given must fit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Part of `registry/repository`; with `*` or `?` a pattern for all of it, or for all of the
    /// repository.
    repository: Option<String>,
    /// A tag.
    tag: Option<String>,
    /// What policy says, as the list shows it.
    decision: Option<Decision>,
    /// A vulnerability, by any of its names.
    cve: Option<String>,
    /// A package's name.
    package: Option<String>,
    /// At least one vulnerability of this severity or worse.
    severity: Option<String>,
    /// A platform, as `linux/arm64`.
    platform: Option<String>,
    /// Whether a container of it runs on a node.
    active: Option<bool>,
    /// Whether it lies on a node's disk and no container of it runs anywhere.
    latent: Option<bool>,
    /// At most so many rows; 100 where it is not said.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// An image in a list: one row per name.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ImageRow")]
pub(super) struct Row {
    /// The name: `registry/repository` with a tag or a digest.
    reference: String,
    /// `registry/repository`.
    repository: String,
    /// The tag, where there is one.
    tag: Option<String>,
    #[serde(flatten)]
    image: Summary,
}

/// What lists and details have in common.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ImageSummary")]
struct Summary {
    /// The image: its manifest's digest.
    image: Digest,
    /// The config's digest: what runtimes call the image id.
    image_id: Option<Digest>,
    /// The platform.
    platform: Platform,
    /// How far it got.
    state: Progress,
    /// What the policy says that the name selects, else the worst of all; as it reads now.
    decision: Option<Decision>,
    /// Until when that holds; null: as long as nothing changes.
    #[schemars(with = "Option<model::schema::Time>")]
    valid_until: Option<Timestamp>,
    /// How many vulnerabilities it has.
    counts: Counts,
    /// How many packages it has.
    packages: u32,
    /// How many things could not be looked at.
    gaps: u32,
    /// When its layers were read.
    #[schemars(with = "Option<model::schema::Time>")]
    scanned_at: Option<Timestamp>,
    /// When it was matched with advisories.
    #[schemars(with = "Option<model::schema::Time>")]
    assessed_at: Option<Timestamp>,
    /// When a source was asked last whether a name of it still leads here; null where none of its
    /// sources is looked around in.
    #[schemars(with = "Option<model::schema::Time>")]
    checked_at: Option<Timestamp>,
    /// What each policy that has a say says.
    policies: Vec<PolicySays>,
    /// Where to find out when it was checked.
    #[serde(skip)]
    looked: BTreeSet<Looked>,
}

/// How far an image got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Progress {
    /// It was seen.
    Known,
    /// Its layers were read.
    Scanned,
    /// It was matched with advisories.
    Assessed,
    /// Policy has said what it says.
    Judged,
}

/// A policy's decision.
#[derive(Debug, Serialize, JsonSchema)]
struct PolicySays {
    /// The policy.
    policy: Slug,
    /// What it says now.
    decision: Decision,
    /// What it said before.
    previous: Option<Decision>,
    /// How many vulnerabilities count after waivers.
    counts: Counts,
    /// The policy's revision; 0 is the built-in one.
    policy_revision: u64,
    /// The advisory revision.
    advisory_revision: u64,
    /// When it was judged.
    #[schemars(with = "model::schema::Time")]
    judged_at: Timestamp,
    /// Until when that holds; null: as long as nothing changes.
    #[schemars(with = "Option<model::schema::Time>")]
    valid_until: Option<Timestamp>,
    /// Whether it is the policy that the name in the question selects.
    #[serde(skip)]
    selected: bool,
}

/// The answer to one reference or digest.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ImageDetails")]
pub(super) struct Details {
    /// What was asked for.
    query: String,
    /// How it named its images.
    kind: FoundBy,
    /// The index between, where there is exactly one.
    index_digest: Option<Digest>,
    /// The worst of all images; absent while one of them has no verdict.
    decision: Option<Decision>,
    /// The images that it leads to, one per platform.
    images: Vec<Detail>,
}

/// Everything that a list shows of an image, and more.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ImageDetail")]
struct Detail {
    #[serde(flatten)]
    summary: Summary,
    /// The indexes that hold it.
    indexes: Vec<Digest>,
    /// The names under which it was seen.
    references: Vec<SeenReference>,
    /// The config's labels.
    labels: BTreeMap<String, String>,
}

/// Filters, parsed.
struct Filter {
    repository: Option<Repository>,
    tag: Option<String>,
    decision: Option<Decision>,
    vulnerabilities: Option<BTreeSet<String>>,
    package: Option<String>,
    severity: Option<Severity>,
    platform: Option<Platform>,
    active: Option<bool>,
    latent: Option<bool>,
}

enum Repository {
    Part(String),
    Pattern(GlobMatcher),
}

/// `GET /v1/images`.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Row>>, ApiError> {
    let tenant = permit(caller)?;
    let page = PageQuery::new(query.limit, query.cursor.clone());
    let bounds = api.bounds(&page, &tenant)?;
    let mut filter = Filter::parse(&query)?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let of_view = tenant.clone();
    let mut page = api
        .read(move |view| {
            let tenant = of_view;
            if let Some(cve) = &query.cve {
                filter.vulnerabilities = Some(view.vulnerability_names(&tenant, cve)?);
            }
            let mut scan = Scan {
                view,
                tenant: &tenant,
                filter: &filter,
                marks: &marks,
                now,
                join: Join::new(view, &tenant, &marks, now),
            };
            scan.page(bounds)
        })
        .await?;
    let images = page.items.iter_mut().map(|row| &mut row.image);
    api.check_times(&tenant, images).await?;
    Ok(Json(page))
}

/// `GET /v1/images/{reference or digest}`, and `…/report` and `…/containers` of a digest.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(query): Path<String>,
    uri: Uri,
) -> Result<Response, ApiError> {
    let tenant = permit(caller)?;
    let of_digest = |suffix: &str| {
        let digest = query.strip_suffix(suffix);
        digest.filter(|rest| rest.starts_with("sha256:"))
    };
    if let Some(digest) = of_digest(CONTAINERS) {
        let page = parameters::<PageQuery>(&uri)?;
        let containers = containers::of_image(&api, &tenant, digest, &page).await?;
        return Ok(Json(containers).into_response());
    }
    let wanted = parameters::<reports::ReportQuery>(&uri)?;
    if let Some(digest) = of_digest(REPORT) {
        let report = reports::get(&api, &tenant, digest, &wanted).await?;
        return Ok(report.into_response());
    }
    let found = api.find(&tenant, &query).await?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let mut images: Vec<Detail> = found
        .images
        .into_iter()
        .map(|(digest, image)| Detail {
            summary: Summary::new((digest, &image), found.repository.as_deref(), &marks, now),
            indexes: image
                .known
                .iter()
                .flat_map(|known| known.indexes.clone())
                .collect(),
            references: image
                .known
                .iter()
                .flat_map(|known| known.references.clone())
                .collect(),
            labels: image.labels(),
        })
        .collect();
    let summaries = images.iter_mut().map(|image| &mut image.summary);
    api.check_times(&tenant, summaries).await?;
    let decisions: Option<Vec<_>> = images.iter().map(|image| image.summary.decision).collect();
    let decision = decisions.and_then(|decisions| decisions.into_iter().max());
    let (kind, index_digest) = (found.kind, found.index);
    Ok(Json(Details {
        query,
        kind,
        index_digest,
        decision,
        images,
    })
    .into_response())
}

/// The parameters of a question: which there are depends on how its path ends.
fn parameters<T: serde::de::DeserializeOwned>(uri: &Uri) -> Result<T, ApiError> {
    let Query(parameters) = Query::try_from_uri(uri)
        .map_err(|rejection| ApiError::bad_request(rejection.body_text()))?;
    Ok(parameters)
}

/// What policy says of an image that is named so, as it reads now.
pub(super) fn decision(
    image: (Digest, &ImageView),
    repository: Option<&str>,
    marks: &Marks,
    now: Timestamp,
) -> Option<Decision> {
    Summary::new(image, repository, marks, now).decision
}

// === impl Api ===

impl Api {
    /// Says of each image when it was checked last.
    async fn check_times(
        &self,
        tenant: &Slug,
        images: impl Iterator<Item = &mut Summary>,
    ) -> Result<(), ApiError> {
        let mut images: Vec<_> = images.collect();
        let wanted = images.iter().flat_map(|image| image.looked.iter().cloned());
        let checks = Checks::read(&self.store, tenant, wanted.collect()).await;
        let checks = checks.map_err(internal)?;
        for image in &mut images {
            image.checked_at = checks.newest(&image.looked);
        }
        Ok(())
    }
}

/// One pass over the names of a tenant.
struct Scan<'a> {
    view: &'a View,
    tenant: &'a Slug,
    filter: &'a Filter,
    marks: &'a Marks,
    now: Timestamp,
    join: Join<'a>,
}

// === impl Scan ===

impl Scan<'_> {
    fn page(&mut self, bounds: Bounds) -> Result<Page<Row>, CacheError> {
        let (view, tenant) = (self.view, self.tenant);
        let rows = |after: Option<&[u8]>, limit| {
            let found = view.names(tenant, after, limit)?;
            Ok(found
                .into_iter()
                .map(|name| (name.key.clone(), name))
                .collect())
        };
        page::fill(bounds, rows, |name: NameKey| self.row(&name))
    }

    /// The row of a name, if it fits.
    fn row(&mut self, name: &NameKey) -> Result<Option<Row>, CacheError> {
        if !self.filter.fits_name(name) {
            return Ok(None);
        }
        let Some(image) = self.view.image(self.tenant, name.image)? else {
            return Ok(None);
        };
        let repository = Some(name.repository.as_str());
        let summary = Summary::new((name.image, &image), repository, self.marks, self.now);
        if !self.filter.fits(&summary)
            || !self.fits_indexes(name.image)?
            || !self.fits_nodes(name.image, &image)?
        {
            return Ok(None);
        }
        let reference = match &name.tag {
            Some(tag) => format!("{}:{tag}", name.repository),
            None => format!("{}@{}", name.repository, name.image),
        };
        let (repository, tag) = (name.repository.clone(), name.tag.clone());
        Ok(Some(Row {
            reference,
            repository,
            tag,
            image: summary,
        }))
    }

    /// Whether it runs or lies on nodes as it should.
    fn fits_nodes(&mut self, digest: Digest, image: &ImageView) -> Result<bool, CacheError> {
        let Filter { active, latent, .. } = self.filter;
        if active.is_none() && latent.is_none() {
            return Ok(true);
        }
        let (is_active, is_latent) = self.join.stands(digest, image)?;
        Ok(active.is_none_or(|wanted| wanted == is_active)
            && latent.is_none_or(|wanted| wanted == is_latent))
    }

    fn fits_indexes(&self, image: Digest) -> Result<bool, CacheError> {
        if let Some(package) = &self.filter.package
            && !self.view.has_package(self.tenant, package, image)?
        {
            return Ok(false);
        }
        let Some(names) = &self.filter.vulnerabilities else {
            return Ok(true);
        };
        for name in names {
            if self.view.hits(self.tenant, name, image)?.is_some() {
                return Ok(true);
            }
        }
        Ok(false)
    }
}

// === impl Filter ===

impl Filter {
    fn parse(query: &ListQuery) -> Result<Self, ApiError> {
        let severity = query
            .severity
            .as_deref()
            .map(str::parse::<Severity>)
            .transpose();
        let platform = query
            .platform
            .as_deref()
            .map(str::parse::<Platform>)
            .transpose();
        Ok(Self {
            repository: query
                .repository
                .as_deref()
                .map(Repository::parse)
                .transpose()?,
            tag: query.tag.clone(),
            decision: query.decision,
            vulnerabilities: None,
            package: query.package.clone(),
            severity: severity.map_err(|error| bad_parameter("severity", error))?,
            platform: platform.map_err(|error| bad_parameter("platform", error))?,
            active: query.active,
            latent: query.latent,
        })
    }

    fn fits_name(&self, name: &NameKey) -> bool {
        self.repository
            .as_ref()
            .is_none_or(|wanted| wanted.fits(&name.repository))
            && self
                .tag
                .as_ref()
                .is_none_or(|tag| name.tag.as_ref() == Some(tag))
    }

    fn fits(&self, image: &Summary) -> bool {
        let has = |least: Severity| {
            let worse = Severity::ALL
                .into_iter()
                .filter(|severity| *severity >= least);
            worse
                .into_iter()
                .any(|severity| image.counts.of_severity(severity) > 0)
        };
        self.decision
            .is_none_or(|decision| image.decision == Some(decision))
            && self
                .platform
                .as_ref()
                .is_none_or(|platform| image.platform == *platform)
            && self.severity.is_none_or(has)
    }
}

// === impl Repository ===

impl Repository {
    fn parse(text: &str) -> Result<Self, ApiError> {
        if !text.contains(['*', '?', '[', '{']) {
            return Ok(Self::Part(text.to_owned()));
        }
        let glob = Glob::new(text).map_err(|error| bad_parameter("repository", error))?;
        Ok(Self::Pattern(glob.compile_matcher()))
    }

    fn fits(&self, name: &str) -> bool {
        match self {
            Self::Part(part) => name.contains(part.as_str()),
            Self::Pattern(pattern) => {
                let without_registry = name.split_once('/').map_or(name, |(_, rest)| rest);
                pattern.is_match(name) || pattern.is_match(without_registry)
            }
        }
    }
}

// === impl Summary ===

impl Summary {
    /// `repository` is the one by which the image was named, for it selects a policy.
    fn new(
        (digest, image): (Digest, &ImageView),
        repository: Option<&str>,
        marks: &Marks,
        now: Timestamp,
    ) -> Self {
        let live = image.judged.iter().filter(|(_, judged)| !judged.retired);
        let assessed = image.assessed.as_ref().map_or(0, |at| at.revision);
        let policies: Vec<PolicySays> = live
            .map(|(policy, judged)| {
                let (decision, valid_until) = judged.as_of((digest, assessed), marks, now);
                PolicySays {
                    policy: policy.clone(),
                    decision,
                    previous: judged.previous,
                    counts: judged.counts,
                    policy_revision: judged.policy_revision,
                    advisory_revision: judged.advisory_revision,
                    judged_at: judged.judged_at,
                    valid_until,
                    selected: selects(&judged.repositories, repository),
                }
            })
            .collect();
        let by_name = policies.iter().any(|says| says.selected);
        let deciding = || policies.iter().filter(|says| says.selected || !by_name);
        let state = match image {
            _ if !policies.is_empty() => Progress::Judged,
            ImageView {
                assessed: Some(_), ..
            } => Progress::Assessed,
            ImageView {
                scanned: Some(_), ..
            } => Progress::Scanned,
            _ => Progress::Known,
        };
        let ImageView {
            known,
            scanned,
            assessed,
            ..
        } = image;
        Self {
            image: digest,
            image_id: known.as_ref().and_then(|known| known.config),
            platform: image.platform(),
            state,
            decision: deciding().map(|says| says.decision).max(),
            valid_until: deciding().filter_map(|says| says.valid_until).min(),
            counts: assessed
                .as_ref()
                .map(|assessed| assessed.counts)
                .unwrap_or_default(),
            packages: scanned.as_ref().map_or(0, |scanned| scanned.packages),
            gaps: scanned.as_ref().map_or(0, |scanned| scanned.gaps),
            scanned_at: scanned.as_ref().map(|scanned| scanned.scanned_at),
            assessed_at: assessed.as_ref().map(|assessed| assessed.assessed_at),
            checked_at: None,
            policies,
            looked: known.iter().flat_map(checks::of_image).collect(),
        }
    }
}
