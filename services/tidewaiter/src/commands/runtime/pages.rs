//! Answers of a server as tables.

use std::io::{self, Write};

use report::{Cell, Column, Cut, Grid};
use serde_json::Value;

use super::around;

/// How an answer is written: with how many columns, and whether in color.
pub(in crate::commands) type Shape =
    fn(&Value, Option<usize>, bool, &mut dyn Write) -> io::Result<()>;

/// Characters of an id that tell it from others.
const ID_CHARS: usize = 12;

pub(super) fn nodes(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut grid = Grid::new(&[
        column("NODE", Cut::Last),
        column("STATE", Cut::Never),
        column("RUNNING", Cut::Never),
        column("CONTAINERS", Cut::Never),
        column("IMAGES", Cut::Never),
        column("SENSOR", Cut::Never),
        column("RUNTIMES", Cut::End),
        column("SYSTEM", Cut::End),
        column("KERNEL", Cut::End),
    ]);
    for item in items(answer) {
        grid.row([
            cell(&item["node"]),
            cell(&item["state"]),
            cell(&item["running"]),
            cell(&item["containers"]),
            cell(&item["images"]),
            cell(&item["sensor"]),
            Cell::new(list(&item["runtimes"], ", ")),
            cell(&item["os"]),
            cell(&item["kernel"]),
        ]);
    }
    whole(&grid, (width, color), "no node has reported", out)
}

pub(super) fn node(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    nodes(&Value::Array(vec![answer.clone()]), width, color, out)?;
    let sensors = &answer["sensors"];
    writeln!(out, "\nsees      {}", shown(&list(&sensors["sees"], ", ")))?;
    writeln!(
        out,
        "enforces  {}",
        shown(&list(&sensors["enforces"], ", "))
    )?;
    if let Some(missing) = sensors["missing"].as_object() {
        for (name, why) in missing {
            writeln!(out, "missing   {}: {}", clean(name), clean(&text(why)))?;
        }
    }
    let host = &answer["host_image"];
    if host.is_object() {
        let name = text(&host["names"][0]);
        let count = |level: &str| match &host["counts"][level] {
            Value::Null => "-".to_owned(),
            count => text(count),
        };
        writeln!(
            out,
            "\nhost      {}, {} critical, {} high; `tidewaiter check {}` tells more",
            verdict(host),
            count("critical"),
            count("high"),
            clean(&name)
        )?;
    }
    writeln!(
        out,
        "\n{} images on its disk, {} of them latent: nothing runs them",
        items(&answer["images_on_disk"]).count(),
        text(&answer["latent"])
    )?;
    let mut grid = Grid::new(&[
        column("IMAGE", Cut::Start),
        column("USE", Cut::Never),
        column("VERDICT", Cut::Never),
        column("CRIT", Cut::Never),
        column("HIGH", Cut::Never),
        column("MIB", Cut::Never),
    ]);
    for image in items(&answer["images_on_disk"]) {
        let name = image["names"]
            .get(0)
            .map_or_else(|| text(&image["id"]), text);
        let is_active = image["active"] == true;
        let bytes = image["bytes"].as_u64().unwrap_or_default();
        grid.row([
            Cell::new(name),
            Cell::new(if is_active { "active" } else { "latent" }),
            Cell::new(verdict(image)),
            cell(&image["counts"]["critical"]),
            cell(&image["counts"]["high"]),
            Cell::new((bytes >> 20).to_string()),
        ]);
    }
    whole(&grid, (width, color), "none", out)
}

pub(super) fn containers(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut grid = Grid::new(&[
        column("CONTAINER", Cut::Never),
        column("NAME", Cut::End),
        column("NODE", Cut::End),
        column("STATE", Cut::Never),
        column("VERDICT", Cut::Never),
        column("CRIT", Cut::Never),
        column("HIGH", Cut::Never),
        column("SETTINGS", Cut::Never),
        column("REACH", Cut::Never),
        column("IMAGE", Cut::Start),
    ]);
    for item in items(answer) {
        grid.row([
            Cell::new(id(&item["id"])),
            Cell::new(named(item)),
            cell(&item["node"]),
            cell(&item["state"]),
            Cell::new(verdict(item)),
            cell(&item["counts"]["critical"]),
            cell(&item["counts"]["high"]),
            Cell::new(settings(item)),
            Cell::new(if item["exposed"] == true {
                "exposed"
            } else {
                ""
            }),
            cell(&item["image"]),
        ]);
    }
    whole(&grid, (width, color), "no container fits", out)?;
    writeln!(out, "{} containers", items(answer).count())
}

pub(super) fn container(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let rows = [
        ("container", text(&answer["id"])),
        ("name", named(answer)),
        ("node", text(&answer["node"])),
        ("state", text(&answer["state"])),
        ("image", text(&answer["image"])),
        ("digest", text(&answer["image_digest"])),
        ("verdict", verdict(answer)),
        ("because", text(&answer["unauthorized"]["detail"])),
        ("user", text(&answer["security"]["user"])),
        ("ports", ports(answer)),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:<10} {}", clean(value))?;
    }
    let mut grid = Grid::new(&[
        column("SEVERITY", Cut::Never),
        column("CLAUSE", Cut::Never),
        column("SETTING", Cut::End),
        column("SHOWN BY", Cut::End),
        column("TO MEND IT", Cut::End),
    ]);
    for found in items(&answer["misconfigurations"]) {
        grid.row([
            cell(&found["severity"]),
            Cell::new(list(&found["clauses"], ", ")),
            cell(&found["title"]),
            cell(&found["evidence"]),
            cell(&found["remediation"]),
        ]);
    }
    writeln!(out)?;
    whole(
        &grid,
        (width, color),
        "nothing is wrong with its settings",
        out,
    )?;
    if items(&answer["incidents"]).next().is_some() {
        writeln!(out)?;
        incidents(&answer["incidents"], width, color, out)?;
    }
    Ok(())
}

pub(super) fn places(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut grid = Grid::new(&[
        column("IMAGE", Cut::Start),
        column("PACKAGE", Cut::End),
        column("INSTALLED", Cut::End),
        column("FIXED", Cut::End),
        column("NODE", Cut::End),
        column("CONTAINER", Cut::Never),
        column("NAME", Cut::End),
        column("REACH", Cut::Never),
    ]);
    for item in items(answer) {
        let name = item["references"]
            .get(0)
            .map_or_else(|| text(&item["image"]), text);
        let package = item["packages"].get(0).cloned().unwrap_or_default();
        for instance in items(&item["instances"]) {
            let is_exposed = instance["exposed"] == true;
            grid.row([
                Cell::new(&name),
                cell(&package["package"]),
                cell(&package["installed"]),
                Cell::new(list(&package["fixed"], ", ")),
                cell(&instance["node"]),
                Cell::new(id(&instance["id"])),
                Cell::new(named(instance)),
                Cell::new(if is_exposed { "exposed" } else { "" }),
            ]);
        }
    }
    if grid.is_empty() {
        return writeln!(out, "nothing that runs has it");
    }
    whole(&grid, (width, color), "", out)?;
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let containers: u64 = items(answer).map(|item| count(&item["containers"])).sum();
    let nodes: std::collections::BTreeSet<String> = items(answer)
        .flat_map(|item| items(&item["nodes"]).map(text))
        .collect();
    let exposed = items(answer).any(|item| item["exposed"] == true);
    writeln!(
        out,
        "{containers} containers of {} images on {} nodes, {}",
        items(answer).count(),
        nodes.len(),
        if exposed {
            "some of them can be reached from outside"
        } else {
            "none of them can be reached from outside"
        }
    )
}

pub(super) fn incidents(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut grid = Grid::new(&[
        column("INCIDENT", Cut::Last),
        column("SEVERITY", Cut::Never),
        column("STATE", Cut::Never),
        column("LAST", Cut::Never),
        column("NODE", Cut::End),
        column("CONTAINER", Cut::End),
        column("WHAT", Cut::End),
    ]);
    for item in items(answer) {
        let name = text(&item["container_name"]);
        let container = if name.is_empty() {
            id(&item["container"])
        } else {
            name
        };
        grid.row([
            cell(&item["id"]),
            cell(&item["severity"]),
            cell(&item["state"]),
            Cell::new(second(&item["last_at"])),
            cell(&item["node"]),
            Cell::new(container),
            cell(&item["title"]),
        ]);
    }
    whole(&grid, (width, color), "no incident fits", out)
}

pub(super) fn incident(
    answer: &Value,
    width: Option<usize>,
    color: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let rows = [
        ("incident", text(&answer["id"])),
        ("what", text(&answer["title"])),
        ("severity", text(&answer["severity"])),
        ("state", text(&answer["state"])),
        ("container", text(&answer["container"])),
        ("name", text(&answer["container_name"])),
        ("image", text(&answer["image_name"])),
        ("findings", findings(&answer["image_now"])),
        ("node", text(&answer["node"])),
        ("host", text(&answer["host"])),
        ("first", second(&answer["first_at"])),
        ("last", second(&answer["last_at"])),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        writeln!(out, "{name:<10} {}", clean(value))?;
    }
    let mut grid = Grid::new(&[
        column("AT", Cut::Never),
        column("SEVERITY", Cut::Never),
        column("RULE", Cut::End),
        column("WHAT", Cut::End),
        column("PROCESS", Cut::End),
        column("ATT&CK", Cut::End),
    ]);
    for event in items(&answer["events"]) {
        let process = &event["process"];
        let args = list(&process["args"], " ");
        let techniques = items(&event["techniques"]).map(|technique| text(&technique["id"]));
        grid.row([
            Cell::new(second(&event["at"])),
            cell(&event["severity"]),
            cell(&event["rule"]),
            cell(&event["title"]),
            Cell::new(if args.is_empty() {
                text(&process["path"])
            } else {
                args
            }),
            Cell::new(techniques.collect::<Vec<_>>().join(", ")),
        ]);
    }
    writeln!(out)?;
    whole(
        &grid,
        (width, color),
        "its timeline is not kept any more",
        out,
    )?;
    around::write(&answer["around"], width, out)
}

/// What is known of an image, in a few words.
fn findings(image: &Value) -> String {
    let count = |level: &str| {
        let count = image["counts"][level].as_u64().filter(|count| *count > 0)?;
        Some(format!("{count} {level}"))
    };
    let levels = ["critical", "high", "medium", "low"];
    let counts: Vec<String> = levels.into_iter().filter_map(count).collect();
    let decision = text(&image["decision"]);
    match (decision.is_empty(), counts.is_empty()) {
        (true, _) => counts.join(", "),
        (false, true) => decision,
        (false, false) => format!("{decision}: {}", counts.join(", ")),
    }
}

pub(in crate::commands) fn whole(
    grid: &Grid,
    (width, color): (Option<usize>, bool),
    none: &str,
    out: &mut dyn Write,
) -> io::Result<()> {
    if grid.is_empty() {
        return writeln!(out, "{none}");
    }
    grid.write(width, color, out)
}

/// What policy says, or why the container should not run.
fn verdict(item: &Value) -> String {
    let reason = text(&item["unauthorized"]["reason"]);
    match reason.as_str() {
        "" | "denied" => {
            let decision = text(&item["decision"]);
            if decision.is_empty() {
                "pending".to_owned()
            } else {
                decision
            }
        }
        reason => reason.replace('_', " "),
    }
}

fn settings(item: &Value) -> String {
    match item["settings_failed"].as_u64() {
        None | Some(0) => String::new(),
        Some(failed) => format!("{failed} {}", text(&item["settings_worst"])),
    }
}

/// The pod is what people of orchestrators know a container by.
pub(super) fn named(item: &Value) -> String {
    let (pod, name) = (text(&item["pod"]), text(&item["name"]));
    let namespace = text(&item["namespace"]);
    if pod.is_empty() {
        return name;
    }
    format!("{namespace}/{pod}/{name}")
}

pub(super) fn ports(item: &Value) -> String {
    let each = items(&item["ports"]).map(|port| {
        format!(
            "{}:{} to {}/{}",
            text(&port["host_address"]),
            text(&port["host_port"]),
            text(&port["container_port"]),
            text(&port["protocol"])
        )
    });
    each.collect::<Vec<_>>().join(", ")
}

pub(in crate::commands) fn items(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

pub(in crate::commands) fn list(values: &Value, between: &str) -> String {
    items(values).map(text).collect::<Vec<_>>().join(between)
}

pub(in crate::commands) fn text(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

pub(in crate::commands) fn id(value: &Value) -> String {
    text(value).chars().take(ID_CHARS).collect()
}

/// A time to the second.
fn second(value: &Value) -> String {
    let text = text(value);
    let parsed = text.parse::<jiff::Timestamp>();
    parsed.map_or(text, |at| format!("{at:.0}"))
}

/// Text of containers and their images is hostile: nothing in it may command the terminal.
pub(in crate::commands) fn clean(text: &str) -> String {
    report::clean(text).into_owned()
}

fn shown(text: &str) -> String {
    if text.is_empty() {
        "nothing".to_owned()
    } else {
        clean(text)
    }
}

pub(in crate::commands) fn cell(value: &Value) -> Cell {
    Cell::new(text(value))
}

pub(in crate::commands) const fn column(title: &'static str, cut: Cut) -> Column {
    Column { title, cut }
}
