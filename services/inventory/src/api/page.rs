//! Pages of the view's rows: cursors are keys, and a key is of one tenant.

use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use model::Slug;

use crate::view::tenant_prefix;

/// Rows that are read at once.
const CHUNK: usize = 256;

/// Where a page begins, and how far it goes.
#[derive(Clone, Debug, Default)]
pub(super) struct Bounds {
    /// The key after which it begins.
    pub(super) after: Option<Vec<u8>>,
    /// Items that it has at most.
    pub(super) limit: usize,
    /// Rows that are looked at for it at most.
    pub(super) examined_max: usize,
}

/// The key after which a page begins. It is the client's word, so it must be of its tenant.
pub(super) fn after(query: &PageQuery, tenant: &Slug) -> Result<Option<Vec<u8>>, ApiError> {
    match query.after()? {
        Some(key) if !key.starts_with(&tenant_prefix(tenant)) => Err(PageQuery::foreign()),
        after => Ok(after),
    }
}

/// A page of what `item` makes of rows in the order of their keys. `rows` gives so many after a key;
/// fewer are the last.
pub(super) fn fill<R, T>(
    bounds: Bounds,
    rows: impl Fn(Option<&[u8]>, usize) -> Result<Vec<(Vec<u8>, R)>, CacheError>,
    mut item: impl FnMut(R) -> Result<Option<T>, CacheError>,
) -> Result<Page<T>, CacheError> {
    let Bounds {
        mut after,
        limit,
        examined_max,
    } = bounds;
    let (mut items, mut examined) = (Vec::new(), 0_usize);
    loop {
        let found = rows(after.as_deref(), CHUNK)?;
        let is_last = found.len() < CHUNK;
        for (key, row) in found {
            if items.len() >= limit || examined >= examined_max {
                let next = after.map(|key| PageQuery::cursor(&key));
                return Ok(Page { items, next });
            }
            examined = examined.saturating_add(1);
            items.extend(item(row)?);
            after = Some(key);
        }
        if is_last {
            return Ok(Page { items, next: None });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_of_another_tenant_is_refused() {
        let tenant = Slug::default_tenant();
        let query = |key: &[u8]| PageQuery::new(None, Some(PageQuery::cursor(key)));
        let key = b"default\0r/app\0\0";
        assert_eq!(after(&query(key), &tenant).unwrap(), Some(key.to_vec()));
        assert!(after(&query(b"other\0r/app"), &tenant).is_err());
        assert_eq!(after(&PageQuery::default(), &tenant).unwrap(), None);
    }

    /// The items of every page, where one row in ten is an item.
    fn pages(count: u32, limit: usize, examined_max: usize) -> Vec<Vec<u32>> {
        let rows = |after: Option<&[u8]>, limit: usize| {
            let first = after.map_or(0, |key| u32::from_be_bytes(key.try_into().unwrap()) + 1);
            let rows = (first..count).take(limit);
            Ok(rows.map(|n| (n.to_be_bytes().to_vec(), n)).collect())
        };
        let (mut pages, mut query) = (Vec::new(), PageQuery::default());
        loop {
            let bounds = Bounds {
                after: query.after().unwrap(),
                limit,
                examined_max,
            };
            let item = |n: u32| Ok(n.is_multiple_of(10).then_some(n));
            let page = fill(bounds, rows, item).unwrap();
            pages.push(page.items);
            match page.next {
                Some(next) => query = PageQuery::new(None, Some(next)),
                None => return pages,
            }
        }
    }

    #[test]
    fn every_row_is_on_one_page_however_they_are_bounded() {
        let all: Vec<u32> = (0..1_000).step_by(10).collect();
        for (limit, examined_max, count) in [(500, 10_000, 1), (7, 10_000, 15), (500, 300, 4)] {
            let pages = pages(1_000, limit, examined_max);
            assert_eq!(pages.len(), count, "{limit} {examined_max}");
            assert!(pages.iter().all(|page| page.len() <= limit));
            assert_eq!(pages.concat(), all);
        }
        assert_eq!(pages(0, 1, 1), [[0_u32; 0]]);
    }
}
