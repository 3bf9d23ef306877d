//! What a fuzz target reads as an answer of a registry or of its token server.

use jiff::Timestamp;
use reqwest::header::{HeaderMap, HeaderValue, LINK, WWW_AUTHENTICATE};
use url::Url;

use super::{
    challenge,
    listing::{Repositories, Tags, next_page},
    token::Answer,
};

/// A line that is a header's value, and a body.
pub(crate) fn answer(head: &[u8], body: &[u8]) {
    let mut headers = HeaderMap::new();
    if let Ok(value) = HeaderValue::from_bytes(head) {
        headers.append(WWW_AUTHENTICATE, value.clone());
        headers.append(LINK, value);
    }
    let _challenges = challenge::parse_all(&headers);
    let from: Url = "https://registry.example/v2/_catalog?n=100"
        .parse()
        .expect("it is a URL");
    if let Ok(Some(query)) = next_page(&headers, &from, "a list") {
        let mut next = from.clone();
        next.set_query(Some(&query));
        assert_eq!(next.host_str(), from.host_str());
    }
    let token = serde_json::from_slice::<Answer>(body).ok();
    if let Some(token) = token.and_then(|answer| answer.into_token(Timestamp::UNIX_EPOCH)) {
        let header = HeaderValue::from_str(&format!("Bearer {}", token.text.expose()));
        header.expect("a token that was accepted fits into a header");
    }
    let _lists = (
        serde_json::from_slice::<Repositories>(body),
        serde_json::from_slice::<Tags>(body),
    );
}
