//! A server in OSV.dev's layout on this machine.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, Mutex},
};

use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use model::Digest;

use crate::stage::tests::records;

/// A server of files.
#[derive(Clone, Default)]
pub(crate) struct Site(pub(crate) Arc<Mutex<Files>>);

#[derive(Default)]
pub(crate) struct Files {
    pub(crate) files: BTreeMap<String, Bytes>,
    /// Answers break off after so many bytes, once.
    pub(crate) cut: Option<usize>,
    /// What is sent beside each file.
    pub(crate) headers: HeaderMap,
    pub(crate) redirect: Option<String>,
    asked: Vec<String>,
}

impl Site {
    /// Starts it; it ends with the test's runtime.
    pub(crate) async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(self.clone());
        let server = axum::serve(listener, app);
        #[expect(
            clippy::disallowed_methods,
            reason = "the server of a test ends with the test"
        )]
        tokio::spawn(async move { server.await.unwrap() });
        url
    }

    pub(crate) fn put(&self, path: &str, bytes: impl Into<Bytes>) {
        let mut files = self.0.lock().unwrap();
        files.files.insert(path.to_owned(), bytes.into());
    }

    /// What was asked for since the last time.
    pub(crate) fn asked(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock().unwrap().asked)
    }

    /// Puts the export of an ecosystem there: rows of (second of change, id, package, fixed).
    pub(crate) fn export(&self, ecosystem: &str, rows: &[(i64, &str, &str, &str)]) {
        let mut list = String::new();
        let mut all = Vec::new();
        for (second, id, package, fixed) in rows {
            let at = Timestamp::from_second(*second).unwrap();
            writeln!(list, "{at},{id}").unwrap();
            all.push((*id, ecosystem, *package, *fixed));
            self.put(
                &format!("/{ecosystem}/{id}.json"),
                record(id, ecosystem, package, fixed),
            );
        }
        self.put(&format!("/{ecosystem}/modified_id.csv"), list);
        self.put(&format!("/{ecosystem}/all.zip"), records(&all));
    }
}

pub(crate) fn record(id: &str, ecosystem: &str, package: &str, fixed: &str) -> String {
    format!(
        r#"{{"id": "{id}", "affected": [{{"package": {{"ecosystem": "{ecosystem}", "name": "{package}"}},
            "ranges": [{{"type": "ECOSYSTEM", "events": [{{"introduced": "0"}}, {{"fixed": "{fixed}"}}]}}]}}]}}"#
    )
}

async fn answer(State(site): State<Site>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let header = |name| {
        let value = request.headers().get(name);
        value.map(|value| value.to_str().unwrap().to_owned())
    };
    let mut site = site.0.lock().unwrap();
    let range = header(header::RANGE);
    site.asked.push(match &range {
        Some(range) => format!("{path} {range}"),
        None => path.clone(),
    });
    if let Some(to) = &site.redirect {
        return (StatusCode::FOUND, [(header::LOCATION, to.clone())]).into_response();
    }
    let Some(bytes) = site.files.get(&path).cloned() else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let etag = format!("\"{}\"", Digest::of(&bytes).hex());
    if header(header::IF_NONE_MATCH).as_ref() == Some(&etag) {
        return StatusCode::NOT_MODIFIED.into_response();
    }
    let from = range.filter(|_| header(header::IF_RANGE).as_ref() == Some(&etag));
    let from = from.and_then(|range| {
        let range = range.strip_prefix("bytes=")?.strip_suffix('-')?;
        range.parse::<usize>().ok()
    });
    let status = if from.is_some() {
        StatusCode::PARTIAL_CONTENT
    } else {
        StatusCode::OK
    };
    let rest = bytes.slice(from.unwrap_or_default()..);
    let mut headers = site.headers.clone();
    headers.insert(header::ETAG, etag.parse().unwrap());
    if !headers.contains_key(header::CONTENT_LENGTH) {
        headers.insert(header::CONTENT_LENGTH, rest.len().into());
    }
    let body = match site.cut.take().filter(|cut| *cut < rest.len()) {
        Some(cut) => Body::from_stream(stream::iter([Ok(rest.slice(..cut))]).chain(stream::once(
            async {
                // What was written so far goes out first.
                for _ in 0..100 {
                    tokio::task::yield_now().await;
                }
                Err(std::io::Error::other("the line is cut"))
            },
        ))),
        None => Body::from(rest),
    };
    (status, headers, body).into_response()
}
