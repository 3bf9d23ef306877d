//! What a container did around an incident: its processes as a tree, connections, ports, files. And
//! whom all containers speak with.

use std::{collections::HashMap, io};

use report::{Cell, Cut};
use serde_json::Value;

use super::pages::{Page, clean, items, list, named, ports, text};

/// How deep a tree is shown as one.
const DEPTH_MAX: usize = 12;

pub(super) fn write(around: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let mut depths: HashMap<String, usize> = HashMap::new();
    let mut lines = Vec::new();
    // Parents are before their children.
    for node in items(&around["processes"]) {
        let process = &node["process"];
        let above = depths.get(&node["parent"].to_string());
        let depth = above.map_or(0, |depth| depth.saturating_add(1));
        depths.insert(process["key"].to_string(), depth);
        let args = list(&process["args"], " ");
        let what = if args.is_empty() {
            text(&process["path"])
        } else {
            args
        };
        let ended = if node["ended"] == true { ", ended" } else { "" };
        let pid = text(&process["key"]["pid"]);
        let indent = "  ".repeat(depth.min(DEPTH_MAX));
        lines.push(format!("{indent}{what} ({pid}{ended})"));
    }
    part("processes", &lines, page)?;
    let place = |one: &Value| {
        let (address, port) = (text(&one["address"]), text(&one["port"]));
        format!("{address} port {port}/{}", text(&one["transport"]))
    };
    let all = |name: &str| items(&around[name]).map(place).collect::<Vec<_>>();
    part("connects to", &all("flows"), page)?;
    part("listens on", &all("listens"), page)?;
    let files: Vec<String> = items(&around["files"]).map(text).collect();
    part("opened", &files, page)?;
    if around["is_cut"] == true {
        writeln!(page.out, "\nmore happened than was kept")?;
    }
    Ok(())
}

pub(super) fn connections(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let mut rows = Vec::new();
    for item in items(answer) {
        let listens = items(&item["listens"]).map(|one| {
            let port = text(&one["port"]);
            format!("{port}/{}", text(&one["transport"]))
        });
        // A line for each peer; what is the container's own stands in the first one.
        let mut own = [
            text(&item["node"]),
            named(item),
            if item["exposed"] == true {
                "exposed".to_owned()
            } else {
                String::new()
            },
            ports(item),
            listens.collect::<Vec<_>>().join(", "),
        ];
        let mut peers: Vec<String> = items(&item["connects_to"]).map(peer).collect();
        if peers.is_empty() {
            peers.push(String::new());
        }
        for peer in peers {
            let [node, name, reach, ports, listens] = std::mem::take(&mut own);
            rows.push([node, name, reach, ports, listens, peer].map(Cell::new));
        }
    }
    page.table(
        [
            ("NODE", Cut::End),
            ("NAME", Cut::End),
            ("REACH", Cut::Never),
            ("PORTS", Cut::End),
            ("LISTENS", Cut::End),
            ("CONNECTS TO", Cut::End),
        ],
        rows,
        "no container was seen to speak",
    )
}

/// Whom a container speaks with: by name where it is one of ours.
fn peer(peer: &Value) -> String {
    let (address, port) = (text(&peer["address"]), text(&peer["port"]));
    let transport = text(&peer["transport"]);
    let known = named(&peer["container"]);
    if known.is_empty() {
        format!("{address} port {port}/{transport}")
    } else {
        format!("{known} port {port}/{transport} ({address})")
    }
}

fn part(title: &str, lines: &[String], page: &mut Page<'_>) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(page.out, "\n{title}")?;
    for line in lines {
        let line = clean(line);
        let line: String = match page.width {
            Some(width) => line.chars().take(width.saturating_sub(2)).collect(),
            None => line,
        };
        writeln!(page.out, "  {line}")?;
    }
    Ok(())
}
