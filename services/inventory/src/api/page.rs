//! Pages: so many items, and where the next page begins.

use chassis::http::ApiError;
use model::Slug;
use serde::{Deserialize, Serialize};

use super::bad_parameter;
use crate::view::tenant_prefix;

const LIMIT_DEFAULT: usize = 100;
const LIMIT_MAX: usize = 500;
const CURSOR_BYTES_MAX: usize = 4096;

/// A page of a list. It may be shorter than asked for, and even empty, while `next` is there.
#[derive(Debug, Serialize)]
pub(super) struct Page<T> {
    pub(super) items: Vec<T>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next: Option<String>,
}

/// What every list takes.
#[derive(Clone, Debug, Default, Deserialize)]
pub(super) struct PageQuery {
    limit: Option<usize>,
    cursor: Option<String>,
}

// === impl PageQuery ===

impl PageQuery {
    pub(super) const fn new(limit: Option<usize>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    pub(super) fn limit(&self) -> Result<usize, ApiError> {
        match self.limit {
            None => Ok(LIMIT_DEFAULT),
            Some(limit) if (1..=LIMIT_MAX).contains(&limit) => Ok(limit),
            Some(limit) => Err(bad_parameter(
                "limit",
                format!("{limit} is not 1 to {LIMIT_MAX}"),
            )),
        }
    }

    /// The key after which the page begins. It is the client's word, so it must be of its tenant.
    pub(super) fn after(&self, tenant: &Slug) -> Result<Option<Vec<u8>>, ApiError> {
        let Some(cursor) = &self.cursor else {
            return Ok(None);
        };
        let key = decode(cursor).filter(|key| key.starts_with(&tenant_prefix(tenant)));
        let wrong = || {
            bad_parameter(
                "cursor",
                "it is not the `next` of another page of this list",
            )
        };
        key.map(Some).ok_or_else(wrong)
    }
}

/// A key as a cursor.
pub(super) fn encode(key: &[u8]) -> String {
    model::hex(key)
}

fn decode(text: &str) -> Option<Vec<u8>> {
    if text.len() > CURSOR_BYTES_MAX || !text.is_ascii() || !text.len().is_multiple_of(2) {
        return None;
    }
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| digit.to_digit(16).and_then(|d| u8::try_from(d).ok()))
        .collect();
    Some(
        digits?
            .chunks_exact(2)
            .map(|pair| pair[0] << 4 | pair[1])
            .collect(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_round_trip_and_others_are_refused() {
        let tenant = Slug::default_tenant();
        let key = b"default\0r/app\0\0".to_vec();
        let query = |cursor: &str| PageQuery::new(None, Some(cursor.to_owned()));
        assert_eq!(query(&encode(&key)).after(&tenant).unwrap(), Some(key));
        for cursor in ["", "zz", "abc", &encode(b"other\0r/app"), &"0".repeat(5000)] {
            assert!(query(cursor).after(&tenant).is_err(), "{cursor}");
        }
    }

    #[test]
    fn limits_have_a_limit() {
        assert_eq!(PageQuery::default().limit().unwrap(), 100);
        assert!(PageQuery::new(Some(0), None).limit().is_err());
        assert!(PageQuery::new(Some(501), None).limit().is_err());
    }
}
