//! What is answered to a scan request.

use bus::{Store, StoreError};
use jiff::Timestamp;
use model::{
    Decision, Digest, Reason, ScanRequestRecord, Slug, Verdict, answer,
    event::{Event as _, REFS, ScanRequested},
};
use serde_json::{Value, json};

const TYPE: &str = "io.tidewaiter.scan.answered.v1";
/// Reasons and images that an answer lists; the report has the others.
const REASONS_MAX: usize = 50;
const IMAGES_MAX: usize = 100;

/// How far a request got, and what came of it.
#[derive(Debug)]
pub(crate) struct Answered {
    record: Option<ScanRequestRecord>,
    images: Vec<(Digest, Option<Verdict>)>,
}

// === impl Answered ===

impl Answered {
    pub(crate) async fn find(
        store: &Store,
        tenant: &Slug,
        request: &ScanRequested,
        now: Timestamp,
    ) -> Result<Self, StoreError> {
        let key = ScanRequestRecord::key(tenant, &request.id);
        let Some(record) = store.get::<ScanRequestRecord>(REFS, &key).await? else {
            return Ok(Self {
                record: None,
                images: Vec::new(),
            });
        };
        let record = record.body;
        let mut images = Vec::with_capacity(record.images.len());
        for image in &record.images {
            let answers = store.verdicts(tenant, *image, now).await?;
            let chosen = answer::of_request(&record, image, &answers);
            images.push((*image, chosen.map(|answer| answer.verdict.clone())));
        }
        Ok(Self {
            record: Some(record),
            images,
        })
    }

    /// Whether nothing more will come.
    pub(crate) fn is_final(&self) -> bool {
        self.state() != "pending"
    }

    fn state(&self) -> &'static str {
        match &self.record {
            Some(record) if record.error.is_some() => "failed",
            Some(_) if self.verdict().is_some() => "done",
            Some(_) | None => "pending",
        }
    }

    /// The worst verdict, once every image has one.
    fn verdict(&self) -> Option<&Verdict> {
        let all: Option<Vec<&Verdict>> = self
            .images
            .iter()
            .map(|(_, verdict)| verdict.as_ref())
            .collect();
        all.and_then(answer::worst)
    }

    /// The event to post.
    pub(crate) fn event(&self, tenant: &Slug, request: &ScanRequested) -> Value {
        let verdict = self.verdict();
        let record = self.record.as_ref();
        let at = verdict
            .map(|verdict| verdict.evaluated_at)
            .or_else(|| record.map(|record| record.resolved_at));
        let images = self.images.iter().take(IMAGES_MAX);
        let images: Vec<Value> = images
            .map(|(digest, verdict)| image(digest, verdict.as_ref()))
            .collect();
        json!({
            "specversion": "1.0",
            "id": format!("{}:answer", request.message_id(tenant)),
            "source": "/alerting",
            "type": TYPE,
            "subject": request.id,
            "time": at.unwrap_or(request.requested_at),
            "tenant": tenant,
            "datacontenttype": "application/json",
            "data": {
                "request": request.id,
                "reference": request.reference.to_string(),
                "state": self.state(),
                "error": record.and_then(|record| record.error.as_ref()),
                "decision": verdict.map(|verdict| verdict.decision),
                "policy": verdict.map(|verdict| &verdict.policy),
                "valid_until": verdict.and_then(|verdict| verdict.valid_until),
                "reasons": verdict.map(|verdict| reasons(&verdict.reasons)),
                "index_digest": record.and_then(|record| record.index),
                "images": images,
                "status": format!("/v1/scans/{}", request.id),
            },
        })
    }
}

fn image(digest: &Digest, verdict: Option<&Verdict>) -> Value {
    let decision: Option<Decision> = verdict.map(|verdict| verdict.decision);
    json!({
        "image": digest,
        "decision": decision,
        "report": format!("/v1/images/{digest}/report"),
    })
}

fn reasons(reasons: &[Reason]) -> Vec<Value> {
    let listed = reasons.iter().take(REASONS_MAX).map(|reason| {
        json!({
            "rule": reason.rule,
            "decision": reason.decision,
            "message": reason.message,
            "remediation": reason.remediation,
        })
    });
    listed.collect()
}
