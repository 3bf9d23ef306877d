//! `GET /v1/images/{digest}/report`: everything that is known of an image.

use std::collections::BTreeMap;

use axum::Json;
use chassis::http::ApiError;
use model::{
    Assessed, Assessment, Digest, Fingerprint, ImageReport, REPORTS_SCHEMA, RecordKey, Report,
    Reports, Scanned, ScannedFindings, ScannedPackages, Slug, Tool, Waived, What,
    event::REPORT_OBJECTS,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{Api, bad_parameter, internal, lookup::FoundBy};
use crate::verdicts::{Answer, Choice, choose, worst};

/// A report is built in memory, so an index gives at most so many.
const REPORTS_MAX: usize = 32;

#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct ReportQuery {
    /// Whose verdict stands in it; the worst where none is named.
    policy: Option<String>,
}

/// The report of an image, or of each image of an index.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(untagged)]
pub(super) enum ReportAnswer {
    One(Box<Report>),
    Each(Reports),
}

/// The report of an image or config; the reports of an index.
pub(super) async fn get(
    api: &Api,
    tenant: &Slug,
    digest: &str,
    query: &ReportQuery,
) -> Result<Json<ReportAnswer>, ApiError> {
    let policy: Option<Slug> = query
        .policy
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error| bad_parameter("policy", error))?;
    let found = api.find(tenant, digest).await?;
    if found.images.len() > REPORTS_MAX {
        let what = format!(
            "it leads to {} images, more than {REPORTS_MAX}",
            found.images.len()
        );
        return Err(ApiError::bad_request(what).hint("ask for the report of each image's digest"));
    }
    let mut reports = Vec::with_capacity(found.images.len());
    for (image, _) in &found.images {
        reports.push(api.report(tenant, *image, policy.as_ref()).await?);
    }
    if found.kind != FoundBy::Index && reports.len() == 1 {
        return Ok(Json(ReportAnswer::One(Box::new(reports.remove(0)))));
    }
    let Some(verdict) = worst(reports.iter().map(|report| &report.verdict)).cloned() else {
        return Err(not_yet("it has no images"));
    };
    let index_digest = digest
        .parse()
        .map_err(|error| bad_parameter("image", error))?;
    let schema = REPORTS_SCHEMA.to_owned();
    Ok(Json(ReportAnswer::Each(Reports {
        schema,
        index_digest,
        reports,
        verdict,
    })))
}

// === impl Api ===

impl Api {
    async fn report(
        &self,
        tenant: &Slug,
        image: Digest,
        policy: Option<&Slug>,
    ) -> Result<Report, ApiError> {
        let key = RecordKey::new(tenant, image, What::Scanned);
        let scanned = self.store.record::<Scanned>(&key).await.map_err(internal)?;
        let scanned = scanned
            .ok_or_else(|| not_yet("it is not scanned yet"))?
            .body;
        let key = key.sibling(What::Assessed);
        let assessed = self
            .store
            .record::<Assessed>(&key)
            .await
            .map_err(internal)?;
        let assessed = assessed
            .ok_or_else(|| not_yet("it is scanned, and not matched yet"))?
            .body;
        let packages: ScannedPackages = self.object(&scanned.packages).await?;
        let mut findings: ScannedFindings = self.object(&assessed.findings).await?;
        let assessment: Assessment = self.object(&assessed.assessment).await?;
        let Answer {
            verdict,
            waived,
            checks,
            ..
        } = self.answer(tenant, image, policy).await?;
        findings.findings.misconfigurations.extend(checks);
        let report = ImageReport {
            image,
            target: findings.target,
            analyzers: scanned.analyzers,
            packages: packages.packages,
            findings: findings.findings,
            gaps: packages.gaps,
        };
        let tool = Tool::tidewaiter(env!("CARGO_PKG_VERSION"));
        let created_at = scanned.scanned_at;
        let mut report = Report::new(report, assessment, verdict, tool, created_at);
        mark(&mut report, &waived);
        Ok(report)
    }

    async fn answer(
        &self,
        tenant: &Slug,
        image: Digest,
        policy: Option<&Slug>,
    ) -> Result<Answer, ApiError> {
        let answers = self
            .store
            .verdicts(tenant, image, self.now())
            .await
            .map_err(internal)?;
        choose(
            &answers,
            Choice {
                policy,
                repository: None,
            },
        )
        .cloned()
        .ok_or_else(|| match policy {
            Some(policy) => not_yet(&format!("it has no verdict of policy `{policy}`")),
            None => not_yet("it is matched, and not judged yet"),
        })
    }

    /// An object that a record names. It is deleted an hour after the record was replaced.
    async fn object<T: DeserializeOwned>(&self, digest: &Digest) -> Result<T, ApiError> {
        let found = self
            .store
            .object::<T>(REPORT_OBJECTS, digest)
            .await
            .map_err(internal)?;
        found.ok_or_else(|| {
            ApiError::conflict("the image was scanned again meanwhile").hint("ask again")
        })
    }
}

/// Marks the findings that waivers accept.
fn mark(report: &mut Report, waived: &BTreeMap<Fingerprint, Waived>) {
    let of = |fingerprint: &Fingerprint| waived.get(fingerprint).cloned();
    for found in &mut report.vulnerabilities {
        found.waived = of(&found.fingerprint);
    }
    for found in &mut report.secrets {
        found.waived = of(&found.fingerprint);
    }
    for found in &mut report.misconfigurations {
        found.waived = of(&found.fingerprint);
    }
    for found in &mut report.malware {
        found.waived = of(&found.fingerprint);
    }
    for found in &mut report.licenses {
        found.waived = of(&found.fingerprint);
    }
}

fn not_yet(why: &str) -> ApiError {
    ApiError::not_found(format!("there is no report of this image yet: {why}"))
        .hint("ask again later; `GET /v1/images/{digest}` shows how far it got")
}
