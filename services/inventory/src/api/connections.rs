//! `GET /v1/connections`: who talks to whom.

use std::net::IpAddr;

use axum::{
    Json,
    extract::{Query, State},
};
use cache::CacheError;
use chassis::http::{ApiError, Page, PageQuery};
use model::{
    Slug,
    runtime::{Connections, Container, Listen, NetworkFlow, PortMapping, Transport},
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Api, Caller, bad_parameter,
    page::{self, Bounds},
    permit,
};
use crate::{
    settings,
    view::{Placed, View},
};

/// Filters of the list. All that are given must fit.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "ConnectionsQuery")]
pub(super) struct ListQuery {
    /// A node.
    node: Option<String>,
    /// The orchestrator's namespace.
    namespace: Option<String>,
    /// Whether the outside can reach it over its host.
    exposed: Option<bool>,
    /// At most so many rows; 100 where it is not said.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
    /// The `next` of the page before.
    cursor: Option<String>,
}

/// A container that runs, with whom it speaks and who can speak with it.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ConnectionsRow")]
pub(super) struct Row {
    #[serde(flatten)]
    container: Named,
    /// The addresses of its network, where that is its own.
    addresses: Vec<IpAddr>,
    /// Whether the outside can reach it over its host.
    exposed: bool,
    /// Published ports.
    ports: Vec<PortMapping>,
    /// The ports that it was seen to listen on.
    listens: Vec<Listen>,
    /// Whom it was seen to speak with.
    connects_to: Vec<Peer>,
    /// Whether it spoke with more than are remembered.
    is_cut: bool,
}

/// A container, by the names that people know it by.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "NamedContainer")]
struct Named {
    /// The node.
    node: Slug,
    /// The runtime's id.
    id: String,
    /// Its name.
    name: String,
    /// The pod.
    pod: Option<String>,
    /// The orchestrator's namespace.
    namespace: Option<String>,
    /// The image's name as it was asked for.
    image: String,
}

/// The other side of a connection.
#[derive(Debug, Serialize, JsonSchema)]
struct Peer {
    /// The protocol.
    transport: Transport,
    /// Its address.
    address: IpAddr,
    /// Its port.
    port: u16,
    /// The container that has the address now; null where none is known to.
    container: Option<Named>,
}

/// `GET /v1/connections`.
pub(super) async fn list(
    State(api): State<Api>,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Json<Page<Row>>, ApiError> {
    let tenant = permit(caller)?;
    let page = PageQuery::new(query.limit, query.cursor.clone());
    let bounds = api.bounds(&page, &tenant)?;
    let node = query.node.as_deref().map(str::parse::<Slug>).transpose();
    let node = node.map_err(|error| bad_parameter("node", error))?;
    let page = api
        .read(move |view| {
            let scan = Scan {
                view,
                tenant: &tenant,
                node: node.as_ref(),
                query: &query,
            };
            scan.page(bounds)
        })
        .await?;
    Ok(Json(page))
}

/// One pass over the containers of a tenant.
struct Scan<'a> {
    view: &'a View,
    tenant: &'a Slug,
    node: Option<&'a Slug>,
    query: &'a ListQuery,
}

// === impl Scan ===

impl Scan<'_> {
    fn page(&self, bounds: Bounds) -> Result<Page<Row>, CacheError> {
        let rows = |after: Option<&[u8]>, limit| {
            let found = self.view.containers(self.tenant, self.node, after, limit)?;
            Ok(found.into_iter().map(Placed::keyed).collect())
        };
        page::fill(bounds, rows, |placed: Placed| {
            if self.fits(&placed) {
                self.row(placed)
            } else {
                Ok(None)
            }
        })
    }

    fn fits(&self, placed: &Placed) -> bool {
        let ListQuery {
            namespace, exposed, ..
        } = self.query;
        placed.runs()
            && (namespace.is_none() || *namespace == placed.container.namespace)
            && exposed.is_none_or(|exposed| exposed == settings::is_exposed(&placed.container))
    }

    /// The row of a container; `None` where nobody can reach it and it speaks with nobody.
    fn row(
        &self,
        Placed {
            node, container, ..
        }: Placed,
    ) -> Result<Option<Row>, CacheError> {
        let seen = self.view.connections(self.tenant, &node, &container.id)?;
        let Connections {
            flows,
            listens,
            is_cut,
        } = seen.unwrap_or_default();
        let exposed = settings::is_exposed(&container);
        if flows.is_empty() && listens.is_empty() && container.ports.is_empty() && !exposed {
            return Ok(None);
        }
        let mut connects_to = Vec::with_capacity(flows.len());
        for flow in flows {
            connects_to.push(self.peer(&node, &flow)?);
        }
        Ok(Some(Row {
            addresses: container.addresses.clone(),
            ports: container.ports.clone(),
            container: Named::new(node, container),
            exposed,
            listens,
            connects_to,
            is_cut,
        }))
    }

    fn peer(&self, node: &Slug, flow: &NetworkFlow) -> Result<Peer, CacheError> {
        let NetworkFlow {
            transport,
            address,
            port,
        } = flow;
        let placed = self.view.at_address((self.tenant, node), *address)?;
        Ok(Peer {
            transport: *transport,
            address: *address,
            port: *port,
            container: placed.map(|placed| Named::new(placed.node, placed.container)),
        })
    }
}

// === impl Named ===

impl Named {
    fn new(node: Slug, container: Container) -> Self {
        Self {
            node,
            id: container.id,
            name: container.name,
            pod: container.pod,
            namespace: container.namespace,
            image: container.image,
        }
    }
}
