//! `GET /v1/verdicts?image=REFERENCE_OR_DIGEST&policy=NAME`: may this image be used?

use axum::{
    Json,
    extract::{Query, State},
};
use chassis::http::ApiError;
use model::{Decision, Digest, Platform, Slug, Verdict};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Api, Caller, bad_parameter, internal, lookup::FoundBy, permit};
use crate::verdicts::{Choice, choose, worst};

#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct VerdictQuery {
    /// A reference, or the digest of an image, index or config.
    image: String,
    /// Whose verdict; the worst where none is named and no name selects one.
    #[serde(default)]
    policy: Option<String>,
}

/// The answer. `decision` and `verdict` are absent while an image has no verdict.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct VerdictAnswer {
    /// What was asked for.
    query: String,
    /// How it named its images.
    kind: FoundBy,
    /// The index between, where there is exactly one.
    index_digest: Option<Digest>,
    /// The worst of all images; null while one of them has no verdict.
    decision: Option<Decision>,
    /// That verdict.
    verdict: Option<Verdict>,
    /// Each image's.
    images: Vec<ImageVerdict>,
}

/// The verdict on one image.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(super) struct ImageVerdict {
    /// The image.
    pub(super) image: Digest,
    /// Its platform.
    pub(super) platform: Platform,
    /// Its verdict; null while there is none.
    pub(super) verdict: Option<Verdict>,
}

/// `GET /v1/verdicts`.
pub(super) async fn get(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<VerdictQuery>,
) -> Result<Json<VerdictAnswer>, ApiError> {
    let tenant = permit(caller)?;
    let policy: Option<Slug> = query
        .policy
        .as_deref()
        .map(str::parse)
        .transpose()
        .map_err(|error| bad_parameter("policy", error))?;
    let found = api.find(&tenant, &query.image).await?;
    let choice = Choice {
        policy: policy.as_ref(),
        repository: found.repository.as_deref(),
    };
    let mut images = Vec::with_capacity(found.images.len());
    for (image, view) in found.images {
        let answers = api
            .store
            .verdicts(&tenant, image, api.now())
            .await
            .map_err(internal)?;
        if let Some(policy) = &policy
            && !answers.is_empty()
            && answers
                .iter()
                .all(|answer| answer.verdict.policy != *policy)
        {
            return Err(other_policy(
                policy,
                answers.iter().map(|answer| &answer.verdict),
            ));
        }
        let verdict = choose(&answers, choice).map(|answer| answer.verdict.clone());
        images.push(ImageVerdict {
            image,
            platform: view.platform(),
            verdict,
        });
    }
    let verdict = overall(&images);
    Ok(Json(VerdictAnswer {
        query: query.image,
        kind: found.kind,
        index_digest: found.index,
        decision: verdict.as_ref().map(|verdict| verdict.decision),
        verdict,
        images,
    }))
}

/// The worst verdict, once every image has one: an image that nobody judged is not `allow`.
pub(super) fn overall(images: &[ImageVerdict]) -> Option<Verdict> {
    let all: Option<Vec<&Verdict>> = images.iter().map(|image| image.verdict.as_ref()).collect();
    all.and_then(|all| worst(all).cloned())
}

fn other_policy<'a>(policy: &Slug, verdicts: impl Iterator<Item = &'a Verdict>) -> ApiError {
    let names: Vec<_> = verdicts
        .map(|verdict| format!("`{}`", verdict.policy))
        .collect();
    ApiError::not_found(format!("policy `{policy}` has no say about this image"))
        .hint(format!("it is judged by: {}", names.join(", ")))
}
