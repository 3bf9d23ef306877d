//! Whom containers speak with, and which container an address is of.

use std::{collections::BTreeSet, net::IpAddr};

use cache::{Batch, CacheError};
use model::{
    Slug,
    runtime::{Connections, Container, NodeConnections},
};

use super::{ADDRESSES, CONNECTIONS, NodeKey, Placed, View, keys};

/// Containers of one node whose connections are taken up.
const CONTAINERS_MAX: usize = 10_000;
/// Containers with one address that are looked at.
const SHARERS_MAX: usize = 64;

// === impl View ===

impl View {
    /// Whom a container speaks with.
    pub(crate) fn connections(
        &self,
        tenant: &Slug,
        node: &Slug,
        id: &str,
    ) -> Result<Option<Connections>, CacheError> {
        let key = keys::container(tenant, node, id);
        self.database.get_as(CONNECTIONS, &key)
    }

    /// The container that an address is of, for who is on a node: the one of that node, else a pod,
    /// for pods have addresses of the whole fleet. `None` where several could be meant.
    pub(crate) fn at_address(
        &self,
        (tenant, node): (&Slug, &Slug),
        address: IpAddr,
    ) -> Result<Option<Placed>, CacheError> {
        let everywhere = keys::address_of(tenant, address);
        // A bridge of the runtime has the same addresses on every node: that of this one is looked
        // at by itself, however many others there are.
        let here = keys::address_at(tenant, address, node);
        let mut found = self.at((tenant, &everywhere), &here)?;
        if found.is_empty() {
            found = self.at((tenant, &everywhere), &everywhere)?;
            if found.len() >= SHARERS_MAX {
                return Ok(None);
            }
            found.retain(|placed| placed.container.pod.is_some());
        }
        // Containers of one pod share its address: any of them says which pod it is.
        let pod = |placed: &Placed| (placed.node.clone(), placed.container.pod.clone());
        let pods: BTreeSet<_> = found.iter().map(pod).collect();
        let is_one =
            found.len() == 1 || (pods.len() == 1 && pods.iter().all(|(_, pod)| pod.is_some()));
        Ok(found.into_iter().next().filter(|_| is_one))
    }

    /// What runs of the first rows of an address that begin so.
    fn at(
        &self,
        (tenant, of): (&Slug, &[u8]),
        beginning: &[u8],
    ) -> Result<Vec<Placed>, CacheError> {
        let pairs = self
            .database
            .scan_prefix(ADDRESSES, beginning, None, SHARERS_MAX)?;
        let mut found = Vec::new();
        for (key, _) in pairs {
            if let Some((node, id)) = keys::holder_of(&key, of) {
                found.extend(self.container(tenant, &node, id)?);
            }
        }
        found.retain(Placed::runs);
        Ok(found)
    }

    pub(super) fn take_connections(
        &self,
        batch: &mut Batch<'_>,
        NodeKey { tenant, node }: &NodeKey,
        record: Option<&NodeConnections>,
    ) -> Result<(), CacheError> {
        let prefix = keys::node(tenant, node);
        let old = self
            .database
            .scan_prefix(CONNECTIONS, &prefix, None, CONTAINERS_MAX)?;
        for (key, _) in old {
            batch.delete(CONNECTIONS, &key)?;
        }
        let new = record.into_iter().flat_map(|record| &record.containers);
        for (id, connections) in new
            .take(CONTAINERS_MAX)
            .filter(|(id, _)| super::nodes::is_id(id))
        {
            let key = keys::container(tenant, node, id);
            batch.put_as(CONNECTIONS, &key, connections)?;
        }
        Ok(())
    }

    /// Forgets whom containers speak with, of all tenants.
    pub(super) fn forget_connections(&self) -> Result<(), CacheError> {
        loop {
            let page = self
                .database
                .scan_prefix(CONNECTIONS, &[], None, CONTAINERS_MAX)?;
            if page.is_empty() {
                return Ok(());
            }
            for (row, _) in page {
                self.database.delete(CONNECTIONS, &row)?;
            }
        }
    }
}

/// The rows that lead from a container's addresses to it.
pub(super) fn addresses<'a>(
    NodeKey { tenant, node }: &'a NodeKey,
    id: &'a str,
    container: &'a Container,
) -> impl Iterator<Item = Vec<u8>> + 'a {
    let addresses = container.addresses.iter();
    addresses.map(move |address| keys::address(tenant, *address, node, id))
}
