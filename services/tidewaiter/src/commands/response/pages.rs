//! Responses as tables.

use std::io;

use report::{Cell, Cut};
use serde_json::Value;

use crate::commands::runtime::pages::{Page, cell, clean, id, items, list, second, text};

pub(super) fn responses(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let mut rows = Vec::new();
    for record in items(answer) {
        // Of what came to nothing the last order says why.
        let last = items(&record["orders"]).last();
        let is_empty = items(&record["responses"]).next().is_none();
        let orders = last.filter(|_| is_empty);
        for response in items(&record["responses"]).chain(orders) {
            rows.push([
                cell(&record["incident"]),
                cell(&record["node"]),
                Cell::new(container(record)),
                Cell::new(action(&response["action"])),
                cell(&response["stage"]),
                cell(&response["mode"]),
                Cell::new(by(response)),
                Cell::new(second(&record["updated_at"])),
            ]);
        }
    }
    page.table(
        [
            ("INCIDENT", Cut::Last),
            ("NODE", Cut::End),
            ("CONTAINER", Cut::End),
            ("ACTION", Cut::Never),
            ("STAGE", Cut::Never),
            ("MODE", Cut::Never),
            ("BY", Cut::End),
            ("CHANGED", Cut::Never),
        ],
        rows,
        "nothing was done about any incident",
    )
}

pub(super) fn response(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let called = format!("{} {}", container(answer), id(&answer["container"]));
    page.fields(
        "",
        &[
            ("incident", text(&answer["incident"])),
            ("node", text(&answer["node"])),
            ("container", called),
            ("image", text(&answer["image_name"])),
        ],
    )?;
    for response in items(&answer["responses"]) {
        writeln!(
            page.out,
            "\n{} ({}): {}",
            clean(&action(&response["action"])),
            clean(&text(&response["mode"])),
            clean(&text(&response["stage"])),
        )?;
        let stage = text(&response["stage"]);
        let until = match stage.as_str() {
            "proposed" | "held" => "decide by",
            _ => "until",
        };
        page.fields(
            "  ",
            &[
                ("response", text(&response["id"])),
                ("by", by(response)),
                ("because", text(&response["reason"])),
                (until, text(&response["expires_at"])),
                ("before", text(&response["before"])),
                ("after", text(&response["after"])),
            ],
        )?;
        for object in items(&response["evidence"]) {
            let (digest, bytes) = (text(&object["digest"]), text(&object["bytes"]));
            page.fields("  ", &[("evidence", format!("{digest} ({bytes} bytes)"))])?;
        }
        steps(&response["steps"], page)?;
        if ["proposed", "held", "lapsed"].contains(&stage.as_str()) {
            decisions(answer, response, page)?;
        }
    }
    if items(&answer["orders"]).next().is_some() {
        writeln!(page.out, "\norders")?;
        steps(&answer["orders"], page)?;
    }
    if items(&answer["responses"]).next().is_none() {
        writeln!(page.out, "no response")?;
    }
    Ok(())
}

/// How somebody decides about a response that waits.
fn decisions(answer: &Value, response: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let (incident, id) = (text(&answer["incident"]), text(&response["id"]));
    for verb in ["approve", "deny"] {
        let command = format!("  tidewaiter response {verb} {incident} {id}");
        writeln!(page.out, "{}", clean(&command))?;
    }
    Ok(())
}

fn steps(steps: &Value, page: &mut Page<'_>) -> io::Result<()> {
    for step in items(steps) {
        let line = format!(
            "  {}  {:<10} {}  {}",
            second(&step["at"]),
            text(&step["stage"]),
            text(&step["by"]),
            text(&step["detail"]),
        );
        writeln!(page.out, "{}", clean(line.trim_end()))?;
    }
    Ok(())
}

pub(super) fn replayed(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let rows = items(&answer["items"]).flat_map(|incident| {
        items(&incident["responses"]).map(move |response| {
            [
                Cell::new(second(&incident["at"])),
                cell(&incident["severity"]),
                cell(&incident["node"]),
                cell(&incident["container_name"]),
                cell(&response["action"]),
                cell(&response["stage"]),
                cell(&response["rule"]),
                Cell::new(list(&response["guards"], "; ")),
            ]
        })
    });
    page.table(
        [
            ("AT", Cut::Never),
            ("SEVERITY", Cut::Never),
            ("NODE", Cut::End),
            ("CONTAINER", Cut::End),
            ("ACTION", Cut::Never),
            ("STAGE", Cut::Never),
            ("RULE", Cut::End),
            ("HELD BY", Cut::End),
        ],
        rows,
        "nothing would have been done",
    )?;
    let count = items(&answer["items"]).count();
    let left_out = answer["left_out"].as_u64().unwrap_or_default();
    writeln!(
        page.out,
        "{count} incidents, {left_out} older ones left out; nothing was changed"
    )
}

pub(super) fn replacements(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let rows = items(answer).map(|item| {
        [
            cell(&item["image"]),
            Cell::new(short(&item["old"])),
            cell(&item["old_decision"]),
            Cell::new(short(&item["new"])),
            cell(&item["new_decision"]),
            cell(&item["old_running"]),
            cell(&item["new_running"]),
            Cell::new(list(&item["old_nodes"], ", ")),
        ]
    });
    page.table(
        [
            ("IMAGE", Cut::Start),
            ("OLD", Cut::Never),
            ("VERDICT", Cut::Never),
            ("NEW", Cut::Never),
            ("VERDICT", Cut::Never),
            ("STILL OLD", Cut::Never),
            ("NEW RUN", Cut::Never),
            ("NODES LEFT", Cut::End),
        ],
        rows,
        "no image that runs has a better successor",
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

/// Who decided it, asks for it, or ordered it.
fn by(response: &Value) -> String {
    let names = [
        &response["approval"]["by"],
        &response["rule"],
        &response["by"],
    ];
    let mut names = names.into_iter().map(text);
    names.find(|name| !name.is_empty()).unwrap_or_default()
}

#[cfg(test)]
mod tests;
