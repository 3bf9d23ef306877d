//! Pages of lists: so many items, and where the next page begins.
//!
//! A cursor is the key of the last item that was looked at, so a list whose keys are in order is
//! stable under writes: what was there all the time comes once, whatever is added or taken out
//! meanwhile. To a client it is opaque.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::ApiError;

/// Items of a page where the caller names no limit.
pub const PAGE_LIMIT_DEFAULT: usize = 100;
/// Items of a page at most.
pub const PAGE_LIMIT_MAX: usize = 500;
const CURSOR_BYTES_MAX: usize = 4096;

/// A page of a list. It may be shorter than asked for, and even empty, while `next` is there.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PageOf{T}")]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Give it as `cursor` to get the next page; absent on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// What every list takes.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PageQuery {
    /// At most so many items; 100 where it is not said.
    #[schemars(with = "Option<usize>", range(min = 1, max = 500))]
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

// === impl Page ===

impl<T> Page<T> {
    /// A page of items that are in memory, in the order of their keys.
    pub fn of(
        all: impl IntoIterator<Item = (String, T)>,
        query: &PageQuery,
    ) -> Result<Self, ApiError> {
        let (limit, after) = (query.limit()?, query.after()?);
        let after = after.map(|key| String::from_utf8_lossy(&key).into_owned());
        let mut rest = all
            .into_iter()
            .filter(|(key, _)| after.as_ref().is_none_or(|at| key > at));
        let mut page = Self {
            items: Vec::new(),
            next: None,
        };
        let mut last = String::new();
        for (key, item) in rest.by_ref().take(limit) {
            page.items.push(item);
            last = key;
        }
        page.next = rest.next().map(|_| PageQuery::cursor(last.as_bytes()));
        Ok(page)
    }
}

// === impl PageQuery ===

impl PageQuery {
    /// For queries that have more parameters.
    pub const fn new(limit: Option<usize>, cursor: Option<String>) -> Self {
        Self { limit, cursor }
    }

    /// How many items.
    pub fn limit(&self) -> Result<usize, ApiError> {
        match self.limit {
            None => Ok(PAGE_LIMIT_DEFAULT),
            Some(limit) if (1..=PAGE_LIMIT_MAX).contains(&limit) => Ok(limit),
            Some(limit) => Err(bad(
                "limit",
                &format!("{limit} is not 1 to {PAGE_LIMIT_MAX}"),
            )),
        }
    }

    /// The key after which the page begins: the client's word.
    pub fn after(&self) -> Result<Option<Vec<u8>>, ApiError> {
        self.cursor.as_deref().map(decode).transpose()
    }

    /// A key as a cursor.
    pub fn cursor(key: &[u8]) -> String {
        super::hex(key)
    }

    /// The error for a cursor of another list.
    pub fn foreign() -> ApiError {
        bad(
            "cursor",
            "it is not the `next` of another page of this list",
        )
    }
}

fn decode(text: &str) -> Result<Vec<u8>, ApiError> {
    let fits = !text.is_empty() && text.len() <= CURSOR_BYTES_MAX && text.len().is_multiple_of(2);
    let digits: Option<Vec<u8>> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect();
    let digits = digits.filter(|_| fits).ok_or_else(PageQuery::foreign)?;
    Ok(digits
        .chunks_exact(2)
        .map(|pair| pair[0] << 4 | pair[1])
        .collect())
}

fn bad(name: &str, what: &str) -> ApiError {
    ApiError::new(
        StatusCode::BAD_REQUEST,
        format!("parameter `{name}`: {what}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(limit: usize, cursor: Option<String>) -> PageQuery {
        PageQuery::new(Some(limit), cursor)
    }

    #[test]
    fn cursors_round_trip_and_others_are_refused() {
        let key = b"default\0r/app\0\0".to_vec();
        let cursor = |text: &str| query(1, Some(text.to_owned())).after();
        assert_eq!(cursor(&PageQuery::cursor(&key)).unwrap(), Some(key));
        for text in ["", "zz", "abc", "ä0", &"0".repeat(5000)] {
            assert!(cursor(text).is_err(), "{text}");
        }
    }

    #[test]
    fn limits_have_a_limit() {
        assert_eq!(PageQuery::default().limit().unwrap(), 100);
        assert!(query(0, None).limit().is_err() && query(501, None).limit().is_err());
        assert_eq!(query(500, None).limit().unwrap(), 500);
    }

    #[test]
    fn pages_follow_each_other_though_items_come_and_go() {
        let items = |keys: &str| keys.chars().map(|c| (c.to_string(), c)).collect::<Vec<_>>();
        let page = Page::of(items("bdf"), &query(2, None)).unwrap();
        assert_eq!(page.items, ['b', 'd']);
        // `d` went, and two came: one before and one behind the cursor.
        let page = Page::of(items("abef"), &query(2, page.next)).unwrap();
        assert_eq!((page.items, page.next), (vec!['e', 'f'], None));
    }
}
