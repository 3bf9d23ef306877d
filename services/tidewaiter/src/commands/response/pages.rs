//! Responses as tables.

use std::io::{self, Write};

use report::{Cell, Cut, Grid};
use serde_json::Value;

use crate::commands::runtime::pages::{cell, clean, column, id, items, list, text, whole};

pub(super) fn responses(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut grid = Grid::new(&[
        column("INCIDENT", Cut::Never),
        column("NODE", Cut::End),
        column("CONTAINER", Cut::End),
        column("ACTION", Cut::Never),
        column("STAGE", Cut::Never),
        column("MODE", Cut::Never),
        column("BY", Cut::End),
        column("CHANGED", Cut::Never),
    ]);
    for record in items(answer) {
        for response in items(&record["responses"]) {
            grid.row([
                cell(&record["incident"]),
                cell(&record["node"]),
                Cell::new(container(record)),
                Cell::new(action(&response["action"])),
                cell(&response["stage"]),
                cell(&response["mode"]),
                Cell::new(by(response)),
                cell(&record["updated_at"]),
            ]);
        }
        if items(&record["responses"]).next().is_none() {
            let last = items(&record["orders"]).last().cloned().unwrap_or_default();
            grid.row([
                cell(&record["incident"]),
                cell(&record["node"]),
                Cell::new(container(record)),
                Cell::new(""),
                cell(&last["stage"]),
                Cell::new(""),
                cell(&last["by"]),
                cell(&record["updated_at"]),
            ]);
        }
    }
    whole(
        &grid,
        (width, color),
        "nothing was done about any incident",
        out,
    )
}

pub(super) fn response(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    for (name, value) in [
        ("incident", text(&answer["incident"])),
        ("node", text(&answer["node"])),
        (
            "container",
            format!("{} {}", container(answer), id(&answer["container"])),
        ),
        ("image", text(&answer["image_name"])),
    ] {
        writeln!(out, "{name:<10} {}", clean(value.trim()))?;
    }
    for response in items(&answer["responses"]) {
        writeln!(
            out,
            "\n{} ({}): {}",
            clean(&action(&response["action"])),
            clean(&text(&response["mode"])),
            clean(&text(&response["stage"])),
        )?;
        for (name, value) in [
            ("response", text(&response["id"])),
            ("by", by(response)),
            ("because", text(&response["reason"])),
            ("until", text(&response["expires_at"])),
            ("before", text(&response["before"])),
            ("after", text(&response["after"])),
        ] {
            if !value.is_empty() {
                writeln!(out, "  {name:<9} {}", clean(&value))?;
            }
        }
        for object in items(&response["evidence"]) {
            let (digest, bytes) = (text(&object["digest"]), text(&object["bytes"]));
            writeln!(
                out,
                "  evidence  {} ({} bytes)",
                clean(&digest),
                clean(&bytes)
            )?;
        }
        steps(&response["steps"], out)?;
    }
    if items(&answer["orders"]).next().is_some() {
        writeln!(out, "\norders")?;
        steps(&answer["orders"], out)?;
    }
    if items(&answer["responses"]).next().is_none() {
        let empty = Grid::new(&[column("", Cut::End)]);
        whole(&empty, (width, color), "no response", out)?;
    }
    Ok(())
}

fn steps(steps: &Value, out: &mut dyn Write) -> io::Result<()> {
    for step in items(steps) {
        writeln!(
            out,
            "  {}  {:<10} {}  {}",
            clean(&text(&step["at"])),
            clean(&text(&step["stage"])),
            clean(&text(&step["by"])),
            clean(&text(&step["detail"])),
        )?;
    }
    Ok(())
}

pub(super) fn replayed(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut grid = Grid::new(&[
        column("AT", Cut::Never),
        column("SEVERITY", Cut::Never),
        column("NODE", Cut::End),
        column("CONTAINER", Cut::End),
        column("ACTION", Cut::Never),
        column("STAGE", Cut::Never),
        column("RULE", Cut::End),
        column("HELD BY", Cut::End),
    ]);
    for incident in items(&answer["items"]) {
        for response in items(&incident["responses"]) {
            grid.row([
                cell(&incident["at"]),
                cell(&incident["severity"]),
                cell(&incident["node"]),
                cell(&incident["container_name"]),
                cell(&response["action"]),
                cell(&response["stage"]),
                cell(&response["rule"]),
                Cell::new(list(&response["guards"], "; ")),
            ]);
        }
    }
    whole(&grid, (width, color), "nothing would have been done", out)?;
    let count = items(&answer["items"]).count();
    let left_out = answer["left_out"].as_u64().unwrap_or_default();
    writeln!(
        out,
        "{count} incidents, {left_out} older ones left out; nothing was changed"
    )
}

pub(super) fn replacements(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut grid = Grid::new(&[
        column("IMAGE", Cut::Start),
        column("OLD", Cut::Never),
        column("VERDICT", Cut::Never),
        column("NEW", Cut::Never),
        column("VERDICT", Cut::Never),
        column("STILL OLD", Cut::Never),
        column("NEW RUN", Cut::Never),
        column("NODES LEFT", Cut::End),
    ]);
    for item in items(answer) {
        grid.row([
            cell(&item["image"]),
            Cell::new(short(&item["old"])),
            cell(&item["old_decision"]),
            Cell::new(short(&item["new"])),
            cell(&item["new_decision"]),
            cell(&item["old_running"]),
            cell(&item["new_running"]),
            Cell::new(list(&item["old_nodes"], ", ")),
        ]);
    }
    whole(
        &grid,
        (width, color),
        "no image that runs has a better successor",
        out,
    )
}

fn short(digest: &Value) -> String {
    let text = text(digest);
    let hex = text.strip_prefix("sha256:").unwrap_or(&text);
    hex.chars().take(12).collect()
}

fn container(record: &Value) -> String {
    let name = text(&record["container_name"]);
    if name.is_empty() {
        id(&record["container"])
    } else {
        name
    }
}

/// `pause`, or `{"quarantine": …}`.
fn action(action: &Value) -> String {
    let named = action
        .as_object()
        .and_then(|fields| fields.keys().next().cloned());
    named.unwrap_or_else(|| text(action))
}

fn by(response: &Value) -> String {
    let approval = text(&response["approval"]["by"]);
    if approval.is_empty() {
        text(&response["rule"])
    } else {
        approval
    }
}
