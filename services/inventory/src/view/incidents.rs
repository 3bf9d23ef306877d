//! Incidents, and their order: what happened last is first.

use std::str::FromStr;

use cache::{Batch, CacheError};
use model::{
    Slug,
    runtime::{Incident, IncidentState},
};

use super::{INCIDENT_ORDER, INCIDENTS, View, keys};

/// Characters of an incident's id.
const ID_CHARS_MAX: usize = 128;
/// Incidents that are gone through at once.
const PAGE: usize = 1_000;
/// The value of an open incident in the order; any other is closed.
const OPEN: u8 = b'o';
const CLOSED: u8 = b'c';

/// The key of an incident: `<tenant>.<id>`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IncidentKey {
    pub(crate) tenant: Slug,
    pub(crate) id: String,
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

// === impl View ===

impl View {
    /// An incident.
    pub(crate) fn incident(&self, tenant: &Slug, id: &str) -> Result<Option<Incident>, CacheError> {
        self.database.get_as(INCIDENTS, &keys::incident(tenant, id))
    }

    /// Incidents, what happened last first, after a key, with their keys.
    pub(crate) fn incidents(
        &self,
        tenant: &Slug,
        after: Option<&[u8]>,
        limit: usize,
    ) -> Result<Vec<(Vec<u8>, Incident)>, CacheError> {
        let from = after.map(keys::after);
        let prefix = keys::tenant(tenant);
        let pairs = self
            .database
            .scan_prefix(INCIDENT_ORDER, &prefix, from.as_deref(), limit)?;
        let mut incidents = Vec::with_capacity(pairs.len());
        for (key, _) in pairs {
            let Some(id) = keys::incident_of(&key) else {
                continue;
            };
            // One that changed since stands elsewhere in the order.
            if let Some(incident) = self.incident(tenant, id)? {
                incidents.push((key, incident));
            }
        }
        Ok(incidents)
    }

    /// How many incidents of all tenants are open.
    pub(crate) fn open_incidents(&self) -> Result<u64, CacheError> {
        let (mut open, mut from): (u64, Option<Vec<u8>>) = (0, None);
        loop {
            let page = self
                .database
                .scan_prefix(INCIDENT_ORDER, &[], from.as_deref(), PAGE)?;
            let of_page = page.iter().filter(|(_, value)| value.as_slice() == [OPEN]);
            open = open.saturating_add(of_page.count() as u64);
            match page.last() {
                Some((key, _)) if page.len() == PAGE => from = Some(keys::after(key)),
                _ => return Ok(open),
            }
        }
    }

    pub(super) fn take_incident(
        &self,
        batch: &mut Batch<'_>,
        key: &IncidentKey,
        incident: Option<&Incident>,
    ) -> Result<(), CacheError> {
        let IncidentKey { tenant, id } = key;
        if let Some(old) = self.incident(tenant, id)? {
            batch.delete(
                INCIDENT_ORDER,
                &keys::incident_order(tenant, old.last_at, id),
            )?;
        }
        let row = keys::incident(tenant, id);
        let Some(incident) = incident else {
            return batch.delete(INCIDENTS, &row);
        };
        let state = match incident.state {
            IncidentState::Open => OPEN,
            IncidentState::Closed => CLOSED,
        };
        let order = keys::incident_order(tenant, incident.last_at, id);
        batch.put(INCIDENT_ORDER, &order, &[state])?;
        batch.put_as(INCIDENTS, &row, incident)
    }

    /// Forgets all incidents, of all tenants.
    pub(super) fn forget_incidents(&self) -> Result<(), CacheError> {
        for family in [INCIDENTS, INCIDENT_ORDER] {
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
