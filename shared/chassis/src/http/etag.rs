//! `ETag` and `If-None-Match`: who has an answer already is not sent it again (RFC 9110, "Conditional
//! Requests").
//!
//! The tag is the digest of the answer's bytes, so it costs no bookkeeping and cannot be wrong; the
//! price is that the answer is made before it is found to be known. An answer whose length is not
//! known beforehand is a stream, and passes as it is.

use axum::{
    body::{Body, Bytes, HttpBody as _, to_bytes},
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};

/// Whether answers can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Validator {
    /// They cannot.
    Never,
    /// They mean the same: they are computed.
    Weak,
    /// They are the same bytes.
    Strong,
}

// === impl Validator ===

impl Validator {
    /// What the caller has.
    pub(super) fn known(self, headers: &HeaderMap) -> Vec<HeaderValue> {
        if self == Self::Never {
            return Vec::new();
        }
        headers
            .get_all(header::IF_NONE_MATCH)
            .iter()
            .cloned()
            .collect()
    }

    /// Tags an answer, or says that the caller has it.
    pub(super) async fn apply(self, known: &[HeaderValue], response: Response) -> Response {
        let whole = response.body().size_hint().exact().is_some();
        if self == Self::Never || response.status() != StatusCode::OK || !whole {
            return response;
        }
        let (mut head, body) = response.into_parts();
        // It is in memory already.
        let Ok(body) = to_bytes(body, usize::MAX).await else {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        };
        let tag = self.tag(&body);
        // Of one caller, and to be asked for again each time: tokens are revoked.
        let caching = HeaderValue::from_static("private, no-cache");
        head.headers.insert(header::CACHE_CONTROL, caching);
        head.headers
            .insert(header::VARY, HeaderValue::from_static("authorization"));
        let fits = known.iter().any(|header| names(header, &tag));
        if let Ok(tag) = HeaderValue::try_from(tag) {
            head.headers.insert(header::ETAG, tag);
        }
        if !fits {
            return Response::from_parts(head, Body::from(body));
        }
        head.status = StatusCode::NOT_MODIFIED;
        head.headers.remove(header::CONTENT_TYPE);
        head.headers.remove(header::CONTENT_LENGTH);
        Response::from_parts(head, Body::empty())
    }

    fn tag(self, body: &Bytes) -> String {
        let digest = super::sha256_hex(body);
        let short: String = digest.chars().take(32).collect();
        match self {
            Self::Strong => format!("\"{short}\""),
            Self::Weak | Self::Never => format!("W/\"{short}\""),
        }
    }
}

/// Whether a list of tags holds one, by weak comparison.
fn names(list: &HeaderValue, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let wanted = opaque(tag);
    let Ok(list) = list.to_str() else {
        return false;
    };
    // Our tags hold no comma.
    list.split(',')
        .any(|one| one.trim() == "*" || opaque(one) == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn ask(validator: Validator, known: &str, body: Body) -> (u16, Option<String>, usize) {
        let known = [HeaderValue::from_str(known).unwrap()];
        let response = validator.apply(&known, Response::new(body)).await;
        let tag = response.headers().get(header::ETAG);
        let tag = tag.map(|tag| tag.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = to_bytes(response.into_body(), 100).await.unwrap();
        (status, tag, body.len())
    }

    #[tokio::test]
    async fn who_has_an_answer_is_not_sent_it_again() {
        for validator in [Validator::Weak, Validator::Strong] {
            let (status, tag, bytes) = ask(validator, "\"x\"", Body::from("answer")).await;
            assert_eq!((status, bytes), (200, 6));
            let tag = tag.unwrap();
            assert_eq!(tag.starts_with("W/"), validator == Validator::Weak);
            let strong = tag.trim_start_matches("W/");
            for known in [&tag, strong, &format!("\"x\", {tag}"), "*"] {
                let (status, again, bytes) = ask(validator, known, Body::from("answer")).await;
                assert_eq!((status, bytes), (304, 0), "{known}");
                assert_eq!(again.as_ref(), Some(&tag));
                let other = ask(validator, strong, Body::from("other")).await;
                assert_eq!(other.0, 200);
            }
        }
    }

    #[tokio::test]
    async fn streams_and_errors_pass_as_they_are() {
        let pieces = futures::stream::iter([Ok::<_, std::io::Error>("a"), Ok("b")]);
        let (status, tag, bytes) = ask(Validator::Weak, "*", Body::from_stream(pieces)).await;
        assert_eq!((status, tag, bytes), (200, None, 2));
        let (status, tag, _) = ask(Validator::Never, "*", Body::from("x")).await;
        assert_eq!((status, tag), (200, None));
        let mut response = Response::new(Body::from("no"));
        *response.status_mut() = StatusCode::NOT_FOUND;
        let response = Validator::Weak
            .apply(&["*".parse().unwrap()], response)
            .await;
        assert_eq!(response.status(), StatusCode::NOT_FOUND);
    }
}
