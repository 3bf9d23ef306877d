//! The policies over HTTP: read them, put one in force, take one out.

use std::sync::Arc;

use axum::{
    Extension, Json, Router,
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use bus::Store;
use chassis::{
    Clock,
    http::{Access, ApiError, Grant, Operation, Page, PageQuery, Route, body_limit},
};
use model::Slug;
use schemars::JsonSchema;
use serde::Serialize;
use tokio::sync::watch;

use crate::{
    document::{DOCUMENT_BYTES_MAX, Policy},
    documents::{self, YAML},
    set::PolicySet,
};

const READ: Access = Access::Scope("read");
const ADMIN: Access = Access::Scope("admin");

/// What the routes need.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) store: Store,
    pub(crate) policies: watch::Receiver<Arc<PolicySet>>,
    pub(crate) clock: Arc<dyn Clock>,
}

/// A policy as the list shows it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "PolicySummary")]
struct Summary {
    /// Its name.
    name: Slug,
    /// What it is for.
    description: String,
    /// Which edition; 0 is the built-in one.
    revision: u64,
    /// Patterns of the repositories that select it.
    repositories: Vec<String>,
    /// Its rules.
    rules: Vec<String>,
    /// How many findings it accepts.
    waivers: usize,
    /// How old advisory data may be; null: as old as they like.
    age_max: Option<String>,
}

/// The routes; whoever mounts them brings an `Extension<Arc<dyn Tokens>>`.
pub(crate) fn router(api: Api) -> Router {
    chassis::http::router(table(), api).layer(body_limit(DOCUMENT_BYTES_MAX))
}

/// What is to be said of the routes.
pub(crate) fn operations() -> Vec<Operation> {
    chassis::http::operations(table())
}

/// The table of routes.
fn table() -> Vec<Route<Api>> {
    let named = |route: Route<Api>| {
        route
            .path::<Slug>("name", "the policy")
            .refuses(StatusCode::BAD_REQUEST, "that is no name, or no policy")
    };
    let (ok, not_found) = (StatusCode::OK, StatusCode::NOT_FOUND);
    vec![
        READ.get("/v1/policies", "listPolicies", "Policies in force", list)
            .query::<PageQuery>()
            .answers::<Page<Summary>>(ok, "a page of the list, in the order of names"),
        named(READ.get(
            "/v1/policies/{name}",
            "getPolicy",
            "A policy as its author wrote it",
            read,
        ))
        .strong()
        .answers_with(ok, YAML, "the document")
        .refuses(not_found, "there is no such policy"),
        named(ADMIN.put(
            "/v1/policies/{name}",
            "putPolicy",
            "Puts a policy into force",
            replace,
        ))
        .detail("What is stored is judged again by it; nothing is scanned.")
        .body_of(YAML)
        .answers::<Summary>(ok, "it is in force"),
        named(ADMIN.delete(
            "/v1/policies/{name}",
            "deletePolicy",
            "Takes a policy out of force",
            remove,
        ))
        .answers_nothing(StatusCode::NO_CONTENT, "it is not in force, or never was"),
    ]
}

async fn list(
    State(api): State<Api>,
    Query(query): Query<PageQuery>,
) -> Result<Json<Page<Summary>>, ApiError> {
    let policies = Arc::clone(&api.policies.borrow());
    let mut all: Vec<_> = policies
        .all()
        .map(|policy| (policy.name.to_string(), Summary::from(&**policy)))
        .collect();
    all.sort_by(|(a, _), (b, _)| a.cmp(b));
    Page::of(all, &query).map(Json)
}

async fn read(State(api): State<Api>, Path(name): Path<String>) -> Result<Response, ApiError> {
    documents::read::<Policy>(&api.store, &name).await
}

async fn replace(
    State(api): State<Api>,
    Path(name): Path<String>,
    Extension(grant): Extension<Grant>,
    yaml: String,
) -> Result<Json<Summary>, ApiError> {
    let at = (&api.store, api.clock.now());
    let policy: Policy = documents::replace(at, &name, &grant, &yaml).await?;
    Ok(Json(Summary::from(&policy)))
}

async fn remove(
    State(api): State<Api>,
    Path(name): Path<String>,
    Extension(grant): Extension<Grant>,
) -> Result<StatusCode, ApiError> {
    documents::remove::<Policy>(&api.store, &name, &grant).await?;
    Ok(StatusCode::NO_CONTENT)
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
    use chassis::SystemClock;
    use model::{PolicyRecord, event::CONFIG};

    use super::*;
    use crate::testing::Client;

    const WEB: &str = "name: web\nrepositories: ['r.example/**']\n";

    fn client(store: &Store) -> Client {
        let (_, policies) = watch::channel(Arc::default());
        let api = Api {
            store: store.clone(),
            policies,
            clock: Arc::new(SystemClock),
        };
        Client::new(router(api), &operations())
    }

    #[tokio::test]
    async fn a_policy_is_put_read_and_deleted() {
        let world = client(&Store::memory());
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
        let world = client(&Store::memory());
        let (status, body) = world.ask(&["read"], "GET /v1/policies", "").await;
        assert_eq!(status, 200);
        insta::assert_snapshot!(body, @r#"{"items":[{"name":"default","description":"refuse what can be fixed, show what cannot","revision":0,"repositories":[],"rules":["fixable-high-or-critical","unfixed-high-or-critical","malware","secret"],"waivers":0,"age_max":"7 days"}]}"#);
        let (_, body) = world.ask(&["read"], "GET /v1/policies/default", "").await;
        assert_eq!(Policy::parse(&body).unwrap().name.as_str(), "default");
    }

    #[tokio::test]
    async fn only_an_administrator_changes_policies() {
        let store = Store::memory();
        let world = client(&store);
        for (scopes, status) in [([].as_slice(), 401), (&["read"], 403), (&["scan"], 403)] {
            for request in ["PUT /v1/policies/web", "DELETE /v1/policies/web"] {
                let asked = world.ask(scopes, request, WEB).await.0;
                assert_eq!(asked, status, "{scopes:?} {request}");
            }
        }
        assert_eq!(world.ask(&[], "GET /v1/policies", "").await.0, 401);
        assert!(
            store
                .list::<PolicyRecord>(CONFIG, "")
                .await
                .unwrap()
                .is_empty()
        );
    }

    #[tokio::test]
    async fn a_bad_document_is_refused_and_says_why() {
        let world = client(&Store::memory());
        let refused = async |uri: &str, body: &str| {
            let (status, body) = world.ask(&["admin"], &format!("PUT {uri}"), body).await;
            format!("{status} {body}")
        };
        insta::assert_snapshot!(refused("/v1/policies/web", "name: web\nrulez: []").await, @r#"400 {"detail":"unknown field `rulez`, expected one of name, description, repositories, defaults, rules, checks, waivers, tests at line 2, column 1","error":"bad_request","status":400}"#);
        insta::assert_snapshot!(refused("/v1/policies/other", WEB).await, @r#"400 {"detail":"the document's name is `web`, and the address says `other`","error":"bad_request","status":400}"#);
        insta::assert_snapshot!(refused("/v1/policies/UP", WEB).await, @r#"400 {"detail":"`UP` is not a name of 1 to 64 characters `a-z`, `0-9`, `_`, `-`","error":"bad_request","status":400}"#);
        let large = "x".repeat(DOCUMENT_BYTES_MAX + 1);
        assert!(refused("/v1/policies/web", &large).await.starts_with("413"));
    }

    #[tokio::test]
    async fn who_has_a_policy_is_not_sent_it_again_and_nobody_else_learns_that() {
        let world = client(&Store::memory());
        world.ask(&["admin"], "PUT /v1/policies/web", WEB).await;
        let path = "GET /v1/policies/web";
        let ((_, tag), _) = world.answer(&["read"], path, "").await;
        let tag = tag.unwrap();
        assert!(tag.starts_with('"'), "{tag}: the document is its content");
        let again = format!("{path} if not {tag}");
        assert_eq!(world.answer(&["read"], &again, "").await.0.0, 304);
        assert_eq!(world.answer(&["scan"], &again, "").await.0.0, 403);
        assert_eq!(world.answer(&[], &again, "").await.0.0, 401);
        world
            .ask(
                &["admin"],
                "PUT /v1/policies/web",
                &format!("{WEB}# edited\n"),
            )
            .await;
        assert_eq!(world.answer(&["read"], &again, "").await.0.0, 200);
    }

    #[tokio::test]
    async fn every_answer_that_is_described_is_given() {
        let world = client(&Store::memory());
        let ask = async |scopes: &[&str], request: &str, body: &str| {
            world.ask(scopes, request, body).await.0
        };
        let large = "x".repeat(DOCUMENT_BYTES_MAX + 1);
        let requests = [
            "GET /v1/policies",
            "GET /v1/policies/web",
            "PUT /v1/policies/web",
            "DELETE /v1/policies/web",
        ];
        for request in requests {
            ask(&[], request, WEB).await;
            ask(&["scan"], request, WEB).await;
            ask(&["read", "admin"], &request.replace("web", "UP"), WEB).await;
        }
        for (request, body) in [
            ("GET /v1/policies?limit=0", ""),
            ("GET /v1/policies", ""),
            ("GET /v1/policies if not *", ""),
            ("GET /v1/policies/none", ""),
            ("PUT /v1/policies/web", WEB),
            ("PUT /v1/policies/web", &large),
            ("GET /v1/policies/web", ""),
            ("GET /v1/policies/web if not *", ""),
            ("DELETE /v1/policies/web", ""),
        ] {
            ask(&["read", "admin"], request, body).await;
        }
        assert_eq!(world.unseen(), [""; 0]);
    }
}
