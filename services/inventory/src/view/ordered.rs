//! Incidents and the answers to them, and their order: what happened last is first.

use std::str::FromStr;

use cache::{Batch, CacheError};
use jiff::Timestamp;
use model::{
    Slug,
    runtime::{Incident, IncidentState, ResponseRecord},
};
use serde::{Serialize, de::DeserializeOwned};

use super::{View, keys, nodes::is_id};

/// Characters of an incident's id.
const ID_CHARS_MAX: usize = 128;
/// Rows that are gone through at once.
const PAGE: usize = 1_000;

/// What [`Ordered::INCIDENTS`] keeps in the order: whether it is open.
pub(super) const OPEN: u8 = b'o';
const CLOSED: u8 = b'c';
/// What [`Ordered::RESPONSES`] keeps in the order: bits.
const WAITING: u8 = 1;
const ACTIVE: u8 = 2;

/// Two families: rows by id, and ids by time with one byte that lists ask for. For some a third: ids
/// by container and time.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ordered {
    rows: &'static str,
    order: &'static str,
    places: Option<&'static str>,
}

/// The key of an incident or of the answer to it: `<tenant>.<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IncidentKey {
    pub(crate) tenant: Slug,
    pub(crate) id: String,
}

/// A row of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) id: String,
    mark: u8,
}

/// What has a place in an order.
pub(super) trait Dated: Serialize + DeserializeOwned {
    const OF: Ordered;

    /// When it happened.
    fn at(&self) -> Timestamp;

    /// The byte that lists ask for.
    fn mark(&self) -> u8;

    /// The node and the container that it happened to.
    fn place(&self) -> (&Slug, &str);
}

// === impl Ordered ===

impl Ordered {
    pub(crate) const INCIDENTS: Self = Self {
        rows: super::INCIDENTS,
        order: super::INCIDENT_ORDER,
        places: Some(super::INCIDENT_PLACES),
    };
    pub(crate) const RESPONSES: Self = Self {
        rows: super::RESPONSES,
        order: super::RESPONSE_ORDER,
        places: None,
    };
}

// === impl IncidentKey ===

impl FromStr for IncidentKey {
    type Err = ();

    fn from_str(key: &str) -> Result<Self, ()> {
        let (tenant, id) = key.split_once('.').ok_or(())?;
        let has_length = (1..=ID_CHARS_MAX).contains(&id.len());
        if !has_length || !id.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(());
        }
        Ok(Self {
            tenant: tenant.parse().map_err(|_| ())?,
            id: id.to_owned(),
        })
    }
}

// === impl Entry ===

impl Entry {
    /// Of the answer to an incident: whether somebody must decide about it.
    pub(crate) const fn is_waiting(&self) -> bool {
        self.mark & WAITING != 0
    }

    /// Of the answer to an incident: whether a node shall do something.
    pub(crate) const fn is_active(&self) -> bool {
        self.mark & ACTIVE != 0
    }
}

// === impl Dated ===

impl Dated for Incident {
    const OF: Ordered = Ordered::INCIDENTS;

    fn at(&self) -> Timestamp {
        self.last_at
    }

    fn mark(&self) -> u8 {
        match self.state {
            IncidentState::Open => OPEN,
            IncidentState::Closed => CLOSED,
        }
    }

    fn place(&self) -> (&Slug, &str) {
        (&self.node, &self.container)
    }
}

impl Dated for ResponseRecord {
    const OF: Ordered = Ordered::RESPONSES;

    fn at(&self) -> Timestamp {
        self.updated_at
    }

    fn mark(&self) -> u8 {
        let stages = || self.responses.iter().map(|one| one.stage);
        let is_waiting = stages().any(model::runtime::Stage::waits);
        let is_active = stages().any(model::runtime::Stage::is_desired);
        u8::from(is_waiting) * WAITING + u8::from(is_active) * ACTIVE
    }

    fn place(&self) -> (&Slug, &str) {
        (&self.node, &self.container)
    }
}

// === impl View ===

impl View {
    /// An incident.
    pub(crate) fn incident(&self, tenant: &Slug, id: &str) -> Result<Option<Incident>, CacheError> {
        self.dated(tenant, id)
    }

    /// The answer to an incident.
    pub(crate) fn response(
        &self,
        tenant: &Slug,
        id: &str,
    ) -> Result<Option<ResponseRecord>, CacheError> {
        self.dated(tenant, id)
    }

    fn dated<T: Dated>(&self, tenant: &Slug, id: &str) -> Result<Option<T>, CacheError> {
        self.database.get_as(T::OF.rows, &keys::row(tenant, id))
    }

    /// What happened last first, after a key, with the keys of the order. Its row may have changed
    /// since: then it stands elsewhere in the order too.
    pub(crate) fn latest(
        &self,
        of: Ordered,
        tenant: &Slug,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Entry)>, CacheError> {
        let from = after.map(keys::after);
        let prefix = keys::tenant(tenant);
        let pairs = self
            .database
            .scan_prefix(of.order, &prefix, from.as_deref(), limit)?;
        let entries = pairs.into_iter().map(|(key, value)| {
            // A key without an id leads to no row.
            let id = keys::id_of_order(&key).unwrap_or_default().to_owned();
            let mark = value.first().copied().unwrap_or_default();
            (key, Entry { id, mark })
        });
        Ok(entries.collect())
    }

    /// Incidents of a container, what happened last first.
    pub(crate) fn incidents_of(
        &self,
        tenant: &Slug,
        (node, container): (&Slug, &str),
        limit: usize,
    ) -> Result<Vec<Incident>, CacheError> {
        let prefix = keys::container(tenant, node, container);
        let pairs = self
            .database
            .scan_prefix(super::INCIDENT_PLACES, &prefix, None, limit)?;
        let mut found = Vec::with_capacity(pairs.len());
        for (key, _) in pairs {
            if let Some(id) = keys::id_of_place(&key, &prefix) {
                found.extend(self.incident(tenant, id)?);
            }
        }
        Ok(found)
    }

    /// How many incidents of all tenants are open.
    pub(crate) fn open_incidents(&self) -> Result<u64, CacheError> {
        let (mut open, mut from): (u64, Option<Vec<u8>>) = (0, None);
        loop {
            let order = Ordered::INCIDENTS.order;
            let page = self
                .database
                .scan_prefix(order, &[], from.as_deref(), PAGE)?;
            let of_page = page.iter().filter(|(_, value)| value.as_slice() == [OPEN]);
            open = open.saturating_add(of_page.count() as u64);
            match page.last() {
                Some((key, _)) if page.len() == PAGE => from = Some(keys::after(key)),
                _ => return Ok(open),
            }
        }
    }

    /// Takes up what became of an incident, or of the answer to it.
    pub(super) fn take_dated<T: Dated>(
        &self,
        batch: &mut Batch<'_>,
        key: &IncidentKey,
        new: Option<&T>,
    ) -> Result<(), CacheError> {
        let IncidentKey { tenant, id } = key;
        // A container whose name is none has no place; what happened to it is in the order.
        let place = |of: &T| {
            let (node, container) = of.place();
            is_id(container).then(|| keys::place((tenant, node), container, of.at(), id))
        };
        if let Some(old) = self.dated::<T>(tenant, id)? {
            batch.delete(T::OF.order, &keys::order(tenant, old.at(), id))?;
            if let (Some(places), Some(place)) = (T::OF.places, place(&old)) {
                batch.delete(places, &place)?;
            }
        }
        let row = keys::row(tenant, id);
        let Some(new) = new else {
            return batch.delete(T::OF.rows, &row);
        };
        let order = keys::order(tenant, new.at(), id);
        batch.put(T::OF.order, &order, &[new.mark()])?;
        if let (Some(places), Some(place)) = (T::OF.places, place(new)) {
            batch.put(places, &place, &[])?;
        }
        batch.put_as(T::OF.rows, &row, new)
    }

    /// Forgets all of an order, of all tenants.
    pub(super) fn forget_ordered(&self, of: Ordered) -> Result<(), CacheError> {
        for family in [of.rows, of.order].into_iter().chain(of.places) {
            loop {
                let page = self.database.scan_prefix(family, &[], None, PAGE)?;
                if page.is_empty() {
                    break;
                }
                for (row, _) in page {
                    self.database.delete(family, &row)?;
                }
            }
        }
        Ok(())
    }
}
