//! The policies over HTTP: read them, put one in force, take one out.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{DefaultBodyLimit, Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{get, put},
};
use bus::{Store, StoreError};
use chassis::{
    Clock,
    http::{ApiError, Grant},
};
use model::{PolicyRecord, Slug, event::CONFIG};
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    document::{DOCUMENT_BYTES_MAX, Policy},
    library::{PutPolicyError, delete_policy, put_policy},
    set::PolicySet,
};

const READ: &str = "read";
const ADMIN: &str = "admin";

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) policies: watch::Receiver<Arc<PolicySet>>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A policy as the list shows it.
#[derive(Serialize)]
struct Summary {
    name: Slug,
    description: String,
    /// 0: the built-in one.
    revision: u64,
    repositories: Vec<String>,
    rules: Vec<String>,
    waivers: usize,
    age_max: Option<String>,
}

/// The routes. Who calls them was found out before: they ask for an `Extension<Grant>`.
pub(crate) fn router(api: Api) -> Router {
    Router::new()
        .route("/v1/policies", get(list))
        .route("/v1/policies/{name}", put(replace).get(read).delete(remove))
        .layer(DefaultBodyLimit::max(DOCUMENT_BYTES_MAX))
        .with_state(api)
}

async fn list(
    State(api): State<Api>,
    grant: Option<Extension<Grant>>,
) -> Result<Json<Vec<Summary>>, ApiError> {
    permit(grant, READ)?;
    let policies = Arc::clone(&api.policies.borrow());
    Ok(Json(
        policies
            .all()
            .map(|policy| Summary::from(&**policy))
            .collect(),
    ))
}

async fn read(
    State(api): State<Api>,
    Path(name): Path<String>,
    grant: Option<Extension<Grant>>,
) -> Result<Response, ApiError> {
    permit(grant, READ)?;
    let name = parse(&name)?;
    let stored = api
        .store
        .get::<PolicyRecord>(CONFIG, &crate::library::key(&name))
        .await;
    let yaml = match stored.map_err(internal)? {
        Some(stored) => stored.body.yaml,
        None if name.as_str() == crate::DEFAULT => crate::document::BUILTIN.to_owned(),
        None => return Err(ApiError::not_found(format!("there is no policy `{name}`"))),
    };
    Ok(([(header::CONTENT_TYPE, "application/yaml")], yaml).into_response())
}

async fn replace(
    State(api): State<Api>,
    Path(name): Path<String>,
    grant: Option<Extension<Grant>>,
    yaml: String,
) -> Result<Json<Summary>, ApiError> {
    let grant = permit(grant, ADMIN)?;
    let name = parse(&name)?;
    let given = Policy::parse(&yaml).map_err(|error| ApiError::bad_request(error.to_string()))?;
    if given.name != name {
        let what = format!(
            "the document's name is `{}`, and the address says `{name}`",
            given.name
        );
        return Err(ApiError::bad_request(what));
    }
    let put = put_policy(&api.store, &yaml, api.clock.now()).await;
    let policy = put.map_err(|error| match error {
        PutPolicyError::Store(error) => internal(error),
        error => ApiError::bad_request(error.to_string()),
    })?;
    tracing::info!(
        policy.name = %name,
        policy.revision = policy.revision,
        token.name = grant.name,
        "policy `{name}` was put by `{}`",
        grant.name,
    );
    Ok(Json(Summary::from(&policy)))
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    grant: Option<Extension<Grant>>,
) -> Result<StatusCode, ApiError> {
    let grant = permit(grant, ADMIN)?;
    let name = parse(&name)?;
    delete_policy(&api.store, &name).await.map_err(internal)?;
    tracing::info!(
        policy.name = %name,
        token.name = grant.name,
        "policy `{name}` was deleted by `{}`",
        grant.name,
    );
    Ok(StatusCode::NO_CONTENT)
}

/// Without a grant nobody asked who calls: that is no permission.
fn permit(grant: Option<Extension<Grant>>, scope: &str) -> Result<Grant, ApiError> {
    let refused = |detail: &str| Err(ApiError::new(StatusCode::FORBIDDEN, detail));
    match grant {
        Some(Extension(grant)) if grant.allows(scope) => Ok(grant),
        Some(_) => refused(&format!("the token lacks the scope `{scope}`")),
        None => refused("this needs a token"),
    }
}

fn parse(name: &str) -> Result<Slug, ApiError> {
    name.parse()
        .map_err(|error: model::SlugError| ApiError::bad_request(error.to_string()))
}

fn internal(error: StoreError) -> ApiError {
    anyhow::Error::from(error).into()
}

impl From<&Policy> for Summary {
    fn from(policy: &Policy) -> Self {
        Self {
            name: policy.name.clone(),
            description: policy.description.clone(),
            revision: policy.revision,
            repositories: policy.repositories.texts().to_vec(),
            rules: policy
                .rules
                .iter()
                .map(|rule| rule.name.to_string())
                .collect(),
            waivers: policy.waivers.len(),
            age_max: policy.age_max().map(|age| age.to_string()),
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::Request,
    };
    use chassis::SystemClock;
    use tower::ServiceExt as _;

    use super::*;

    const WEB: &str = "name: web\nrepositories: ['r.example/**']\n";

    struct World {
        store: Store,
        routes: Router,
    }

    impl World {
        fn new() -> Self {
            let store = Store::memory();
            let (_, policies) = watch::channel(Arc::default());
            let api = Api {
                store: store.clone(),
                policies,
                clock: Arc::new(SystemClock),
            };
            Self {
                store,
                routes: router(api),
            }
        }

        async fn ask(&self, scopes: &[&str], request: &str, body: &str) -> (u16, String) {
            let (method, uri) = request.split_once(' ').unwrap();
            let request = Request::builder().method(method).uri(uri);
            let mut request = request.body(Body::from(body.to_owned())).unwrap();
            if !scopes.is_empty() {
                request.extensions_mut().insert(Grant {
                    name: "tester".to_owned(),
                    tenant: "default".to_owned(),
                    scopes: scopes.iter().map(|scope| (*scope).to_owned()).collect(),
                });
            }
            let response = self.routes.clone().oneshot(request).await.unwrap();
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), 1 << 20).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        }
    }

    #[tokio::test]
    async fn a_policy_is_put_read_and_deleted() {
        let world = World::new();
        let (status, body) = world.ask(&["admin"], "PUT /v1/policies/web", WEB).await;
        assert_eq!(status, 200);
        insta::assert_snapshot!(body, @r#"{"name":"web","description":"","revision":1,"repositories":["r.example/**"],"rules":[],"waivers":0,"age_max":"7 days"}"#);
        let read = world.ask(&["read"], "GET /v1/policies/web", "").await;
        assert_eq!(read, (200, WEB.to_owned()));
        assert_eq!(
            world.ask(&["admin"], "DELETE /v1/policies/web", "").await.0,
            204
        );
        assert_eq!(
            world.ask(&["read"], "GET /v1/policies/web", "").await.0,
            404
        );
    }

    #[tokio::test]
    async fn the_builtin_policy_can_be_read() {
        let world = World::new();
        let (status, body) = world.ask(&["read"], "GET /v1/policies", "").await;
        assert_eq!(status, 200);
        insta::assert_snapshot!(body, @r#"[{"name":"default","description":"refuse what can be fixed, show what cannot","revision":0,"repositories":[],"rules":["fixable-high-or-critical","unfixed-high-or-critical","malware","secret"],"waivers":0,"age_max":"7 days"}]"#);
        let (_, body) = world.ask(&["read"], "GET /v1/policies/default", "").await;
        assert_eq!(Policy::parse(&body).unwrap().name.as_str(), "default");
    }

    #[tokio::test]
    async fn only_an_administrator_changes_policies() {
        let world = World::new();
        for scopes in [[].as_slice(), &["read"], &["scan"]] {
            for request in ["PUT /v1/policies/web", "DELETE /v1/policies/web"] {
                assert_eq!(
                    world.ask(scopes, request, WEB).await.0,
                    403,
                    "{scopes:?} {request}"
                );
            }
        }
        assert_eq!(world.ask(&[], "GET /v1/policies", "").await.0, 403);
        assert!(
            world
                .store
                .list::<PolicyRecord>(CONFIG, "")
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_bad_document_is_refused_and_says_why() {
        let world = World::new();
        let refused = async |uri: &str, body: &str| {
            let (status, body) = world.ask(&["admin"], &format!("PUT {uri}"), body).await;
            format!("{status} {body}")
        };
        insta::assert_snapshot!(refused("/v1/policies/web", "name: web\nrulez: []").await, @r#"400 {"detail":"unknown field `rulez`, expected one of name, description, repositories, defaults, rules, waivers, tests at line 2, column 1","error":"bad_request","status":400}"#);
        insta::assert_snapshot!(refused("/v1/policies/other", WEB).await, @r#"400 {"detail":"the document's name is `web`, and the address says `other`","error":"bad_request","status":400}"#);
        insta::assert_snapshot!(refused("/v1/policies/UP", WEB).await, @r#"400 {"detail":"`UP` is not a name of 1 to 64 characters `a-z`, `0-9`, `_`, `-`","error":"bad_request","status":400}"#);
        let large = "x".repeat(DOCUMENT_BYTES_MAX + 1);
        assert!(refused("/v1/policies/web", &large).await.starts_with("413"));
    }
}
