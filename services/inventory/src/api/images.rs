//! `GET /v1/images`, `GET /v1/images/{reference or digest}`.

use std::collections::{BTreeMap, BTreeSet};

use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse as _, Response},
};
use cache::CacheError;
use chassis::http::ApiError;
use globset::{Glob, GlobMatcher};
use jiff::Timestamp;
use model::{Counts, Decision, Digest, Platform, SeenReference, Severity, Slug};
use serde::{Deserialize, Serialize};

use super::{
    Api, Caller, bad_parameter, internal,
    lookup::FoundBy,
    page::{Page, PageQuery, encode},
    permit, reports,
};
use crate::{
    verdicts::{Marks, selects},
    view::{ImageView, NameKey, View},
};

/// Rows that are read at once.
const CHUNK: usize = 256;
const REPORT: &str = "/report";

/// Filters of the list. All that are given must fit.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Part of `registry/repository`; with `*` or `?` a pattern for all of it, or for all of the
    /// repository.
    repository: Option<String>,
    tag: Option<String>,
    decision: Option<Decision>,
    /// A vulnerability, by any of its names.
    cve: Option<String>,
    /// A package's name.
    package: Option<String>,
    /// At least one vulnerability of this severity or worse.
    severity: Option<String>,
    platform: Option<String>,
    limit: Option<usize>,
    cursor: Option<String>,
}

/// An image in a list: one row per name.
#[derive(Debug, Serialize)]
struct Row {
    reference: String,
    repository: String,
    tag: Option<String>,
    #[serde(flatten)]
    image: Summary,
}

/// What lists and details have in common.
#[derive(Debug, Serialize)]
struct Summary {
    image: Digest,
    image_id: Option<Digest>,
    platform: Platform,
    state: Progress,
    /// What the policy says that the name selects, else the worst of all; as it reads now.
    decision: Option<Decision>,
    valid_until: Option<Timestamp>,
    counts: Counts,
    packages: u32,
    gaps: u32,
    scanned_at: Option<Timestamp>,
    assessed_at: Option<Timestamp>,
    policies: Vec<PolicySays>,
}

/// How far an image got.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Progress {
    Known,
    Scanned,
    Assessed,
    Judged,
}

/// A policy's decision.
#[derive(Debug, Serialize)]
struct PolicySays {
    policy: Slug,
    decision: Decision,
    previous: Option<Decision>,
    counts: Counts,
    policy_revision: u64,
    advisory_revision: u64,
    judged_at: Timestamp,
    valid_until: Option<Timestamp>,
    /// Whether it is the policy that the name in the question selects.
    #[serde(skip)]
    selected: bool,
}

/// The answer to one reference or digest.
#[derive(Debug, Serialize)]
struct Details {
    query: String,
    kind: FoundBy,
    index_digest: Option<Digest>,
    /// The worst of all images; absent while one of them has no verdict.
    decision: Option<Decision>,
    images: Vec<Detail>,
}

#[derive(Debug, Serialize)]
struct Detail {
    #[serde(flatten)]
    summary: Summary,
    indexes: Vec<Digest>,
    references: Vec<SeenReference>,
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
) -> Result<Response, ApiError> {
    let tenant = permit(caller)?;
    let page = PageQuery::new(query.limit, query.cursor.clone());
    let (limit, after) = (page.limit()?, page.after(&tenant)?);
    let mut filter = Filter::parse(&query)?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let examined_max = api.rows_examined_max;
    let page = api
        .read(move |view| {
            if let Some(cve) = &query.cve {
                filter.vulnerabilities = Some(view.vulnerability_names(&tenant, cve)?);
            }
            let scan = Scan {
                view,
                tenant: &tenant,
                filter: &filter,
                marks: &marks,
                now,
            };
            scan.page(after, limit, examined_max)
        })
        .await?;
    Ok(Json(page).into_response())
}

/// `GET /v1/images/{reference or digest}`, and `…/report` of a digest.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Path(query): Path<String>,
    Query(wanted): Query<reports::ReportQuery>,
) -> Result<Response, ApiError> {
    let tenant = permit(caller)?;
    if let Some(digest) = query
        .strip_suffix(REPORT)
        .filter(|rest| rest.starts_with("sha256:"))
    {
        return reports::get(&api, &tenant, digest, &wanted).await;
    }
    let found = api.find(&tenant, &query).await?;
    let now = api.now();
    let marks = api.marks.get(&api.store, now).await.map_err(internal)?;
    let images: Vec<Detail> = found
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
            labels: image.known.map(|known| known.labels).unwrap_or_default(),
        })
        .collect();
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

/// One pass over the names of a tenant.
struct Scan<'a> {
    view: &'a View,
    tenant: &'a Slug,
    filter: &'a Filter,
    marks: &'a Marks,
    now: Timestamp,
}

// === impl Scan ===

impl Scan<'_> {
    fn page(
        &self,
        mut after: Option<Vec<u8>>,
        limit: usize,
        examined_max: usize,
    ) -> Result<Page<Row>, CacheError> {
        let mut items = Vec::new();
        let mut examined: usize = 0;
        loop {
            let names = self.view.names(self.tenant, after.as_deref(), CHUNK)?;
            let is_last = names.len() < CHUNK;
            for name in names {
                if items.len() >= limit || examined >= examined_max {
                    let next = after.map(|key| encode(&key));
                    return Ok(Page { items, next });
                }
                examined = examined.saturating_add(1);
                items.extend(self.row(&name)?);
                after = Some(name.key);
            }
            if is_last {
                return Ok(Page { items, next: None });
            }
        }
    }

    /// The row of a name, if it fits.
    fn row(&self, name: &NameKey) -> Result<Option<Row>, CacheError> {
        if !self.filter.fits_name(name) {
            return Ok(None);
        }
        let Some(image) = self.view.image(self.tenant, name.image)? else {
            return Ok(None);
        };
        let repository = Some(name.repository.as_str());
        let summary = Summary::new((name.image, &image), repository, self.marks, self.now);
        if !self.filter.fits(&summary) || !self.fits_indexes(name.image)? {
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
            platform: known
                .as_ref()
                .map(|known| known.platform.clone())
                .unwrap_or_default(),
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
            policies,
        }
    }
}
