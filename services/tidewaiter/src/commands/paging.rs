//! Every row of a list of the server, whatever its length; nothing is left out without a word.

use std::collections::HashSet;

use anyhow::{Context as _, bail};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use crate::client::Client;

/// Rows of a page that is asked for.
const PAGE_ROWS: usize = 500;
/// Pages that are fetched at the most; a filter narrows what is more.
const PAGES_MAX: usize = 1_000;
/// How often the beginning of a list is read again for what moved there.
const AGAIN_MAX: usize = 8;

/// A page of a list.
#[derive(Debug, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    #[serde(default)]
    next: Option<String>,
}

/// Every row of a list.
pub(super) async fn rows<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    filters: &[(&'static str, String)],
) -> anyhow::Result<Vec<T>> {
    let fetched = fetch(client, path, filters);
    let walked = walk(path, fetched, |_: &[T]| false).await?;
    Ok(walked.rows)
}

/// Every row of a list in which what changes moves to the front, by the field that names it. What
/// moves while pages are read was not on them, so the beginning is read again until one page has all
/// that is new.
pub(super) async fn latest(
    client: &Client,
    path: &str,
    filters: &[(&'static str, String)],
    name: &str,
) -> anyhow::Result<Vec<Value>> {
    settled(path, || fetch(client, path, filters), name).await
}

/// Pages of a path, each by the cursor of the one before.
fn fetch<T: DeserializeOwned>(
    client: &Client,
    path: &str,
    filters: &[(&'static str, String)],
) -> impl AsyncFn(Option<String>) -> anyhow::Result<Page<T>> {
    async move |cursor| {
        let mut query = filters.to_vec();
        query.push(("limit", PAGE_ROWS.to_string()));
        query.extend(cursor.map(|cursor| ("cursor", cursor)));
        let page = client.get::<Page<T>>(path, &query).await?;
        page.with_context(|| format!("the server has no `{path}`; does it run the inventory role?"))
    }
}

/// Rows that were walked over, and how many pages that took.
struct Walked<T> {
    rows: Vec<T>,
    pages: usize,
}

/// Walks over pages to the last one, or to the first that `ends` it.
async fn walk<T>(
    path: &str,
    fetch: impl AsyncFn(Option<String>) -> anyhow::Result<Page<T>>,
    ends: impl Fn(&[T]) -> bool,
) -> anyhow::Result<Walked<T>> {
    let (mut rows, mut cursor) = (Vec::new(), None::<String>);
    for pages in 1..=PAGES_MAX {
        let page = fetch(cursor.clone()).await?;
        let is_end = ends(&page.items);
        rows.extend(page.items);
        if page.next.is_none() || is_end {
            return Ok(Walked { rows, pages });
        }
        if page.next == cursor {
            bail!("`{path}` of the server has no end: a page leads to itself");
        }
        cursor = page.next;
    }
    bail!(
        "`{path}` has more than {PAGES_MAX} pages, {} rows so far: ask for less with a filter, or page \
         through it over REST",
        rows.len()
    )
}

async fn settled<F>(path: &str, fetch: impl Fn() -> F, name: &str) -> anyhow::Result<Vec<Value>>
where
    F: AsyncFn(Option<String>) -> anyhow::Result<Page<Value>>,
{
    let Walked { mut rows, pages } = walk(path, fetch(), |_| false).await?;
    if pages == 1 {
        return Ok(rows);
    }
    for _ in 0..AGAIN_MAX {
        let again = walk(path, fetch(), |page| {
            page.iter().any(|row| rows.contains(row))
        })
        .await?;
        let Walked { rows: first, pages } = again;
        let new: HashSet<Option<&str>> = first.iter().map(|row| row[name].as_str()).collect();
        rows.retain(|row| !new.contains(&row[name].as_str()));
        rows.splice(..0, first);
        if pages == 1 {
            return Ok(rows);
        }
    }
    bail!("`{path}` changes faster than it can be read: ask for less with a filter")
}

#[cfg(test)]
mod tests {
    use std::{cell::RefCell, collections::VecDeque};

    use serde_json::json;

    use super::*;

    /// A list with the newest first, of which one row changes before each page that is read.
    struct Server {
        rows: RefCell<Vec<(String, u32)>>,
        changes: RefCell<VecDeque<&'static str>>,
        page: usize,
    }

    impl Server {
        fn new(count: usize, page: usize, changes: &[&'static str]) -> Self {
            let rows = (0..count).map(|n| (format!("r{n}"), 0)).collect();
            Self {
                rows: RefCell::new(rows),
                changes: RefCell::new(changes.iter().copied().collect()),
                page,
            }
        }

        /// A cursor is the row after which the next page begins, as it was then.
        fn fetch(&self, cursor: Option<&str>) -> Page<Value> {
            let mut rows = self.rows.borrow_mut();
            if let Some(changed) = self.changes.borrow_mut().pop_front()
                && let Some(at) = rows.iter().position(|(name, _)| name == changed)
            {
                let (name, version) = rows.remove(at);
                rows.insert(0, (name, version + 1));
            }
            let order = |name: &str| name[1..].parse::<usize>().unwrap();
            let from = cursor.map_or(0, |after| {
                let old =
                    |(name, version): &(String, u32)| *version == 0 && order(name) > order(after);
                rows.iter().position(old).unwrap_or(rows.len())
            });
            let until = rows.len().min(from + self.page);
            let items = rows[from..until].iter();
            let items = items.map(|(name, version)| json!({ "id": name, "version": version }));
            let next = (until < rows.len()).then(|| rows[until - 1].0.clone());
            Page {
                items: items.collect(),
                next,
            }
        }

        async fn latest(&self) -> anyhow::Result<Vec<String>> {
            let fetch = || async |cursor: Option<String>| Ok(self.fetch(cursor.as_deref()));
            let rows = settled("/v1/incidents", fetch, "id").await?;
            Ok(rows
                .iter()
                .map(|row| format!("{}.{}", row["id"].as_str().unwrap(), row["version"]))
                .collect())
        }
    }

    #[tokio::test]
    async fn what_moves_to_the_front_while_pages_are_read_is_not_lost() {
        // `r5` is on the third page, and on the first one before anybody gets there.
        let server = Server::new(6, 2, &["none", "r5"]);
        let rows = server.latest().await.unwrap();
        assert_eq!(rows, ["r5.1", "r0.0", "r1.0", "r2.0", "r3.0", "r4.0"]);
        // What was read already and changes is there once, as it is now.
        let server = Server::new(6, 2, &["none", "none", "r0"]);
        let rows = server.latest().await.unwrap();
        assert_eq!(rows, ["r0.1", "r1.0", "r2.0", "r3.0", "r4.0", "r5.0"]);
        // Nothing changes.
        let server = Server::new(5, 2, &[]);
        assert_eq!(server.latest().await.unwrap().len(), 5);
    }

    #[tokio::test]
    async fn a_list_without_an_end_is_an_error_and_not_a_part() {
        let walked = walk(
            "/v1/images",
            async |_| Ok(page(Some("c"))),
            |_: &[u8]| false,
        )
        .await;
        let error = walked.err().unwrap().to_string();
        assert_eq!(
            error,
            "`/v1/images` of the server has no end: a page leads to itself"
        );
        let count = RefCell::new(0);
        let grows = async |_| {
            *count.borrow_mut() += 1;
            Ok(page(Some(&count.borrow().to_string())))
        };
        let walked = walk("/v1/images", grows, |_: &[u8]| false).await;
        let error = walked.err().unwrap().to_string();
        assert!(error.contains("more than 1000 pages, 1000 rows"), "{error}");
        // The last page that is allowed may be the last.
        *count.borrow_mut() = 0;
        let ends = async |_| {
            *count.borrow_mut() += 1;
            let next = count.borrow().to_string();
            Ok(page((*count.borrow() < PAGES_MAX).then_some(&*next)))
        };
        let walked = walk("/v1/images", ends, |_: &[u8]| false).await.unwrap();
        assert_eq!((walked.rows.len(), walked.pages), (PAGES_MAX, PAGES_MAX));
    }

    fn page(next: Option<&str>) -> Page<u8> {
        Page {
            items: vec![7],
            next: next.map(ToOwned::to_owned),
        }
    }
}
