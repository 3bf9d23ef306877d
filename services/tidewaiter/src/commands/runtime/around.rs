//! What a container did around an incident: its processes as a tree, connections, ports, files. And
//! whom all containers speak with.

use std::{
    collections::HashMap,
    io::{self, Write},
};

use report::{Cell, Cut, Grid};
use serde_json::Value;

use super::pages::{clean, column, items, list, named, ports, text, whole};

/// How deep a tree is shown as one.
const DEPTH_MAX: usize = 12;

pub(super) fn write(around: &Value, width: Option<usize>, out: &mut dyn Write) -> io::Result<()> {
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
    part("processes", &lines, width, out)?;
    let place = |one: &Value| {
        let (address, port) = (text(&one["address"]), text(&one["port"]));
        format!("{address} port {port}/{}", text(&one["transport"]))
    };
    let all = |name: &str| items(&around[name]).map(place).collect::<Vec<_>>();
    part("connects to", &all("flows"), width, out)?;
    part("listens on", &all("listens"), width, out)?;
    let files: Vec<String> = items(&around["files"]).map(text).collect();
    part("opened", &files, width, out)?;
    if around["is_cut"] == true {
        writeln!(out, "\nmore happened than was kept")?;
    }
    Ok(())
}

pub(super) fn connections(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut grid = Grid::new(&[
        column("NODE", Cut::End),
        column("NAME", Cut::End),
        column("REACH", Cut::Never),
        column("PORTS", Cut::End),
        column("LISTENS", Cut::End),
        column("CONNECTS TO", Cut::End),
    ]);
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
            let mut row: Vec<Cell> = own
                .iter_mut()
                .map(|own| Cell::new(std::mem::take(own)))
                .collect();
            row.push(Cell::new(peer));
            grid.row(row);
        }
    }
    whole(&grid, (width, color), "no container was seen to speak", out)
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

fn part(
    title: &str,
    lines: &[String],
    width: Option<usize>,
    out: &mut dyn Write,
) -> io::Result<()> {
    if lines.is_empty() {
        return Ok(());
    }
    writeln!(out, "\n{title}")?;
    for line in lines {
        let line = clean(line);
        let line: String = match width {
            Some(width) => line.chars().take(width.saturating_sub(2)).collect(),
            None => line,
        };
        writeln!(out, "  {line}")?;
    }
    Ok(())
}
