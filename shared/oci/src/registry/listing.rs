//! What a registry lists: its repositories, and the tags of one (OCI distribution-spec, "Content
//! discovery").
//!
//! Lists come in pages. Of the link to the next one only the query is taken: the host and the path
//! are always ours, so that a registry cannot send us anywhere else.

use reqwest::{
    Method, StatusCode,
    header::{self, HeaderMap},
};
use serde::{Deserialize, de::DeserializeOwned};
use url::Url;

use super::{
    Registry,
    endpoint::{Endpoint, Sent},
    http::{Answer, Ask},
};
use crate::{Missing, OciError};

/// Names asked for at once. Registries may give fewer, and some have a lower limit.
const PAGE_NAMES: usize = 100;
/// Bytes of one page: some registries answer with everything at once.
const PAGE_BYTES_MAX: u64 = 8 << 20;
/// Names of one page; what is beyond is refused.
const PAGE_NAMES_MAX: usize = 100_000;
/// Bytes of the query that leads to the next page.
const QUERY_BYTES_MAX: usize = 2048;
/// Bytes of an answer that refuses.
const ERROR_BYTES_MAX: u64 = 16 << 10;

/// A part of a list.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// Names, as the registry wrote them: whether they are names is for the caller to see.
    pub names: Vec<String>,
    /// How to ask for the next page; `None` after the last.
    pub next: Option<String>,
}

#[derive(Deserialize)]
pub(super) struct Repositories {
    #[serde(default)]
    repositories: Option<Vec<String>>,
}

#[derive(Deserialize)]
pub(super) struct Tags {
    #[serde(default)]
    tags: Option<Vec<String>>,
}

// === impl Registry ===

impl Registry {
    /// A page of the registry's repositories; `page` is [`Page::next`] of the one before. A registry
    /// that does not list them answers with [`OciError::Unsupported`] or
    /// [`OciError::Unauthorized`].
    pub async fn repositories(&self, page: Option<&str>) -> Result<Page, OciError> {
        let inner = &self.inner.origin;
        let what = format!("the catalog of `{}`", inner.host());
        let response = inner.list("v2/_catalog", "", page).await?;
        let refused = [
            StatusCode::NOT_FOUND,
            StatusCode::METHOD_NOT_ALLOWED,
            StatusCode::NOT_IMPLEMENTED,
            StatusCode::BAD_REQUEST,
        ];
        if refused.contains(&response.response.status()) {
            let advice = format!(
                "it answers {}; name its repositories in the configuration",
                response.response.status()
            );
            return Err(OciError::unsupported(what, advice));
        }
        let (list, next) = inner.page::<Repositories>(response, "", &what).await?;
        checked(list.repositories, next, &what)
    }

    /// A page of a repository's tags. A repository that the registry does not know is
    /// [`OciError::NotFound`]; one without tags has an empty page.
    pub async fn tags(&self, repository: &str, page: Option<&str>) -> Result<Page, OciError> {
        let inner = &self.inner.origin;
        let what = format!("the tags of `{}/{repository}`", inner.host());
        let path = inner.url(repository, "tags", "list")?;
        let path = path.path().trim_start_matches('/').to_owned();
        let response = inner.list(&path, repository, page).await?;
        if response.response.status() == StatusCode::NOT_FOUND {
            return Err(inner.unknown(response, repository, what).await);
        }
        let (list, next) = inner.page::<Tags>(response, repository, &what).await?;
        checked(list.tags, next, &what)
    }
}

// === impl Endpoint ===

impl Endpoint {
    async fn list(
        &self,
        path: &str,
        repository: &str,
        page: Option<&str>,
    ) -> Result<Sent, OciError> {
        let mut url = self.http.join(path)?;
        match page {
            Some(query) => url.set_query(Some(query)),
            None => url.set_query(Some(&format!("n={PAGE_NAMES}"))),
        }
        let ask = Ask::new(Method::GET, url);
        self.authorized(&ask, repository, self.patience()).await
    }

    /// The list that an answer holds, and the query of the next page.
    async fn page<T: DeserializeOwned>(
        &self,
        response: Sent,
        repository: &str,
        what: &str,
    ) -> Result<(T, Option<String>), OciError> {
        let response = self.accepted(response, repository).await?;
        let (headers, from) = (response.response.headers(), response.response.url());
        let next = next_page(headers, from, what)?;
        let bytes = self.body(response, PAGE_BYTES_MAX, what).await?;
        let list =
            serde_json::from_slice(&bytes).map_err(|error| OciError::malformed(what, error))?;
        Ok((list, next))
    }

    /// What a 404 means. Only a registry's own word makes a repository unknown: a proxy that lost
    /// its way must not make all its images look deleted.
    async fn unknown(&self, response: Sent, repository: &str, what: String) -> OciError {
        let body = self.body(response, ERROR_BYTES_MAX, "error").await;
        let answer = Answer::of(&body.unwrap_or_default());
        match answer.missing() {
            Missing::Repository => OciError::NotFound {
                what: repository.to_owned(),
                place: format!("`{}`", self.host()),
                missing: Missing::Repository,
            },
            _ => OciError::malformed(what, "404 Not Found, without a word of a registry's"),
        }
    }
}

fn checked(names: Option<Vec<String>>, next: Option<String>, what: &str) -> Result<Page, OciError> {
    let names = names.unwrap_or_default();
    if names.len() > PAGE_NAMES_MAX {
        return Err(OciError::TooLarge {
            what: what.to_owned(),
            limit: format!("{PAGE_NAMES_MAX} names in one page"),
        });
    }
    Ok(Page { names, next })
}

/// The query of the link with `rel="next"` (RFC 8288).
pub(super) fn next_page(
    headers: &HeaderMap,
    from: &Url,
    what: &str,
) -> Result<Option<String>, OciError> {
    let links = headers.get_all(header::LINK).iter();
    let links = links.filter_map(|value| value.to_str().ok());
    let next = links.flat_map(|value| value.split(',')).find_map(|link| {
        let (target, rest) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = rest.split(';').any(|parameter| {
            let parameter = parameter.trim().to_ascii_lowercase();
            parameter == "rel=next" || parameter == "rel=\"next\""
        });
        is_next.then(|| target.to_owned())
    });
    next.map(|target| query_of(from, &target, what)).transpose()
}

/// The query of a link that leads to the next part of the same list.
fn query_of(from: &Url, target: &str, what: &str) -> Result<String, OciError> {
    let bad = |why: &str| OciError::malformed(format!("the link to the next page of {what}"), why);
    let url = from.join(target).map_err(|_| bad("it is no URL"))?;
    if url.origin() != from.origin() {
        return Err(bad("it leads to another host"));
    }
    let query = url.query().filter(|query| !query.is_empty());
    let query = query.ok_or_else(|| bad("it has no query"))?;
    if query.len() > QUERY_BYTES_MAX {
        return Err(bad("it is too long"));
    }
    if from.query() == Some(query) {
        return Err(bad("it leads to the same page"));
    }
    Ok(query.to_owned())
}

#[cfg(test)]
mod tests {
    use axum::{
        Router,
        extract::RawQuery,
        http::{HeaderMap, HeaderValue},
        response::IntoResponse as _,
        routing::get,
    };
    use chassis::Cx;
    use testkit::{RegistryOptions, RegistryServer, clean_image};

    use super::*;
    use crate::RegistryConfig;

    fn registry(cx: &Cx, host: &str) -> Registry {
        let host = host.to_owned();
        Registry::new(
            cx,
            RegistryConfig {
                host,
                ..RegistryConfig::default()
            },
        )
        .unwrap()
    }

    async fn all(source: &Registry, repository: Option<&str>) -> Vec<Vec<String>> {
        let (mut pages, mut next) = (Vec::new(), None);
        loop {
            let page = match repository {
                Some(repository) => source.tags(repository, next.as_deref()).await,
                None => source.repositories(next.as_deref()).await,
            };
            let page = page.unwrap();
            pages.push(page.names);
            next = page.next;
            if next.is_none() {
                return pages;
            }
        }
    }

    #[tokio::test]
    async fn a_real_registry_lists_repositories_by_page_and_tags() {
        let Some(server) = RegistryServer::start(RegistryOptions::default()) else {
            return;
        };
        let image = clean_image();
        for number in 0..120 {
            server.push(image.clone(), &format!("team/app-{number:03}"), "1");
        }
        for tag in ["a", "b"] {
            server.push(image.clone(), "team/app-000", tag);
        }
        let cx = Cx::for_tests();
        let source = registry(&cx, &server.host());
        let pages = all(&source, None).await;
        assert_eq!(pages.iter().map(Vec::len).collect::<Vec<_>>(), [100, 20]);
        assert_eq!(pages[1][19], "team/app-119");
        let mut tags = all(&source, Some("team/app-000")).await.concat();
        tags.sort();
        assert_eq!(tags, ["1", "a", "b"]);
        let error = source.tags("no/such", None).await.unwrap_err();
        assert!(error.is_not_found(), "{error}");
        assert!(source.tags("../up", None).await.is_err());
    }

    /// A server whose lists and links are what the query of the first page says.
    async fn fake(cx: &Cx) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        let tags = async |RawQuery(query): RawQuery| {
            let last = query.unwrap_or_default();
            let (names, link) = match last.as_str() {
                "n=100" => (r#"["1", "2"]"#, r#"</v2/app/tags/list?last=2>; rel="next""#),
                "last=2" => (r#"["3"]"#, r#"<?last=3>; rel="next""#),
                _ => ("null", ""),
            };
            let mut headers = HeaderMap::new();
            if !link.is_empty() {
                headers.insert("link", HeaderValue::from_static(link));
            }
            (headers, format!(r#"{{"name": "app", "tags": {names}}}"#)).into_response()
        };
        let elsewhere = async || {
            let link = HeaderValue::from_static(r#"<http://169.254.169.254/v2/x?a=1>; rel="next""#);
            let headers = HeaderMap::from_iter([(header::LINK, link)]);
            (headers, r#"{"tags": ["1"]}"#).into_response()
        };
        let same = async || {
            let link = HeaderValue::from_static(r#"<?n=100>; rel="next""#);
            let headers = HeaderMap::from_iter([(header::LINK, link)]);
            (headers, r#"{"tags": ["1"]}"#).into_response()
        };
        let router = Router::new()
            .route("/v2/app/tags/list", get(tags))
            .route("/v2/elsewhere/tags/list", get(elsewhere))
            .route("/v2/same/tags/list", get(same))
            .route(
                "/v2/_catalog",
                get(async || StatusCode::METHOD_NOT_ALLOWED.into_response()),
            );
        let stop = cx.clone();
        cx.spawn("fake", async move {
            let stopped = async move { stop.stopped().await };
            let serving = axum::serve(listener, router).with_graceful_shutdown(stopped);
            serving.await.unwrap();
        });
        host
    }

    #[tokio::test]
    async fn pages_of_tags_are_followed_on_the_same_host_only() {
        let cx = Cx::for_tests();
        let source = registry(&cx, &fake(&cx).await);
        let pages = all(&source, Some("app")).await;
        assert_eq!(pages, [vec!["1", "2"], vec!["3"], vec![]]);
        let error = source.tags("elsewhere", None).await.unwrap_err();
        assert!(error.to_string().contains("another host"), "{error}");
        let error = source.tags("same", None).await.unwrap_err();
        assert!(error.to_string().contains("the same page"), "{error}");
        // Not a word of a registry's: the repository may be there all the same.
        let error = source.tags("lost", None).await.unwrap_err();
        assert!(!error.is_not_found(), "{error}");
        cx.stop();
    }

    #[tokio::test]
    async fn a_registry_without_a_catalog_says_so() {
        let cx = Cx::for_tests();
        let source = registry(&cx, &fake(&cx).await);
        let error = source.repositories(None).await.unwrap_err();
        assert!(matches!(error, OciError::Unsupported { .. }), "{error}");
        assert!(error.to_string().contains("405"), "{error}");
        cx.stop();
    }
}
