//! Pages of the view's rows: cursors are keys, and a key is of one tenant.

use chassis::http::{ApiError, PageQuery};
use model::Slug;

use crate::view::tenant_prefix;

/// The key after which a page begins. It is the client's word, so it must be of its tenant.
pub(super) fn after(query: &PageQuery, tenant: &Slug) -> Result<Option<Vec<u8>>, ApiError> {
    match query.after()? {
        Some(key) if !key.starts_with(&tenant_prefix(tenant)) => Err(PageQuery::foreign()),
        after => Ok(after),
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
}
