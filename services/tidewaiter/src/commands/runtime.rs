//! `nodes`, `containers`, `where`, `connections`, `incidents`: what runs where, as a server knows it.

mod around;
pub(super) mod pages;

use anyhow::Context as _;
use serde_json::Value;

use self::{
    around::connections,
    pages::{Page, Shape, container, containers, incident, incidents, node, nodes, places},
};
use crate::{
    cli::{ConnectionsArgs, ContainersArgs, IncidentsArgs, NodesArgs, Shown, WhereArgs},
    client::Client,
    commands::{paging, print},
    exit::Exit,
    terminal,
};

pub(crate) async fn run_nodes(args: NodesArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    if let Some(name) = &args.node {
        let path = format!("/v1/nodes/{}", segment(name));
        let found = one(&client, &path, &format!("no node `{name}` has reported")).await?;
        return show(&args.shown, &found, node);
    }
    let all = list(&client, "/v1/nodes", &[]).await?;
    show(&args.shown, &all, nodes)
}

pub(crate) async fn run_containers(args: ContainersArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    if let Some(id) = &args.id {
        let path = format!("/v1/containers/{}", segment(id));
        let found = one(&client, &path, &format!("no node has a container `{id}`")).await?;
        return show(&args.shown, &found, container);
    }
    let filters = &args.filters;
    let mut query = given(&[
        ("node", &filters.node),
        ("image", &filters.image),
        ("namespace", &filters.namespace),
        ("state", &filters.state),
        ("severity", &filters.severity),
        ("check", &filters.check),
    ]);
    let flags = [
        ("unauthorized", filters.unauthorized),
        ("vulnerable", filters.vulnerable),
        ("exposed", filters.exposed),
    ];
    let set = flags.into_iter().filter(|(_, is_set)| *is_set);
    query.extend(set.map(|(name, _)| (name, "true".to_owned())));
    let all = list(&client, "/v1/containers", &query).await?;
    show(&args.shown, &all, containers)
}

pub(crate) async fn run_where(args: WhereArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let path = format!("/v1/vulnerabilities/{}/containers", segment(&args.id));
    let all = list(&client, &path, &[]).await?;
    show(&args.shown, &all, places)
}

pub(crate) async fn run_connections(args: ConnectionsArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let mut query = given(&[("node", &args.node), ("namespace", &args.namespace)]);
    query.extend(args.exposed.then(|| ("exposed", "true".to_owned())));
    let all = list(&client, "/v1/connections", &query).await?;
    show(&args.shown, &all, connections)
}

pub(crate) async fn run_incidents(args: IncidentsArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    if let Some(id) = &args.id {
        let path = format!("/v1/incidents/{}", segment(id));
        let found = one(&client, &path, &format!("there is no incident `{id}`")).await?;
        return show(&args.shown, &found, incident);
    }
    let query = given(&[
        ("state", &args.state),
        ("severity", &args.severity),
        ("node", &args.node),
        ("container", &args.container),
    ]);
    let all = paging::latest(&client, "/v1/incidents", &query, "id").await?;
    show(&args.shown, &Value::Array(all), incidents)
}

fn given(filters: &[(&'static str, &Option<String>)]) -> Vec<(&'static str, String)> {
    let given = filters.iter();
    given
        .filter_map(|(name, value)| Some((*name, value.as_ref()?.clone())))
        .collect()
}

/// Every row of a list.
pub(super) async fn list(
    client: &Client,
    path: &str,
    filters: &[(&'static str, String)],
) -> anyhow::Result<Value> {
    paging::rows(client, path, filters).await.map(Value::Array)
}

/// One thing, or why there is none.
pub(super) async fn one(client: &Client, path: &str, missing: &str) -> anyhow::Result<Value> {
    let found = client.get::<Value>(path, &[]).await?;
    found.with_context(|| missing.to_owned())
}

pub(super) fn show(shown: &Shown, answer: &Value, shape: Shape) -> anyhow::Result<Exit> {
    if shown.is_json() {
        print(&format!("{}\n", serde_json::to_string_pretty(answer)?))?;
    } else {
        let mut out = Vec::new();
        let mut page = Page {
            width: terminal::width(),
            color: terminal::color_out(),
            out: &mut out,
        };
        shape(answer, &mut page)?;
        print(&String::from_utf8(out)?)?;
    }
    Ok(Exit::Ok)
}

/// A text as one segment of a path, whatever is in it.
pub(super) fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~:".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.extend(format!("%{byte:02X}").chars());
        }
    }
    segment
}

#[cfg(test)]
mod tests;
