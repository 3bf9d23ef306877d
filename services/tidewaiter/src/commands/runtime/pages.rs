//! Answers of a server as tables.

use std::io::{self, Write};

use report::{Cell, Column, Cut, Grid};
use serde_json::Value;

use super::around;

/// How an answer is written.
pub(in crate::commands) type Shape = fn(&Value, &mut Page<'_>) -> io::Result<()>;

/// Where an answer is written.
pub(in crate::commands) struct Page<'a> {
    /// How many columns there are; `None` where nobody counts them.
    pub(in crate::commands) width: Option<usize>,
    pub(in crate::commands) color: bool,
    pub(in crate::commands) out: &'a mut dyn Write,
}

/// Characters of an id that tell it from others.
const ID_CHARS: usize = 12;

// === impl Page ===

impl Page<'_> {
    /// Writes a table; `none` where it has no row.
    pub(in crate::commands) fn table<const N: usize>(
        &mut self,
        columns: [(&'static str, Cut); N],
        rows: impl IntoIterator<Item = [Cell; N]>,
        none: &str,
    ) -> io::Result<()> {
        let columns = columns.map(|(title, cut)| Column { title, cut });
        let mut grid = Grid::new(&columns);
        for row in rows {
            grid.row(row);
        }
        if grid.is_empty() {
            return writeln!(self.out, "{none}");
        }
        grid.write(self.width, self.color, self.out)
    }

    /// Writes a line for each value that is there.
    pub(in crate::commands) fn fields(
        &mut self,
        indent: &str,
        fields: &[(&str, String)],
    ) -> io::Result<()> {
        for (name, value) in fields {
            let value = value.trim();
            if !value.is_empty() {
                writeln!(self.out, "{indent}{name:<10} {}", clean(value))?;
            }
        }
        Ok(())
    }
}

pub(super) fn nodes(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let rows = items(answer).map(|item| {
        [
            cell(&item["node"]),
            cell(&item["state"]),
            cell(&item["running"]),
            cell(&item["containers"]),
            cell(&item["images"]),
            cell(&item["sensor"]),
            Cell::new(list(&item["runtimes"], ", ")),
            cell(&item["os"]),
            cell(&item["kernel"]),
        ]
    });
    page.table(
        [
            ("NODE", Cut::Last),
            ("STATE", Cut::Never),
            ("RUNNING", Cut::Never),
            ("CONTAINERS", Cut::Never),
            ("IMAGES", Cut::Never),
            ("SENSOR", Cut::Never),
            ("RUNTIMES", Cut::End),
            ("SYSTEM", Cut::End),
            ("KERNEL", Cut::End),
        ],
        rows,
        "no node has reported",
    )
}

pub(super) fn node(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    nodes(&Value::Array(vec![answer.clone()]), page)?;
    let sensors = &answer["sensors"];
    writeln!(
        page.out,
        "\nsees      {}",
        shown(&list(&sensors["sees"], ", "))
    )?;
    writeln!(
        page.out,
        "enforces  {}",
        shown(&list(&sensors["enforces"], ", "))
    )?;
    if let Some(missing) = sensors["missing"].as_object() {
        for (name, why) in missing {
            writeln!(page.out, "missing   {}: {}", clean(name), clean(&text(why)))?;
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
            page.out,
            "\nhost      {}, {} critical, {} high; `tidewaiter check {}` tells more",
            verdict(host),
            count("critical"),
            count("high"),
            clean(&name)
        )?;
    }
    writeln!(
        page.out,
        "\n{} images on its disk, {} of them latent: nothing runs them",
        items(&answer["images_on_disk"]).count(),
        text(&answer["latent"])
    )?;
    let rows = items(&answer["images_on_disk"]).map(|image| {
        let name = image["names"]
            .get(0)
            .map_or_else(|| text(&image["id"]), text);
        let is_active = image["active"] == true;
        let bytes = image["bytes"].as_u64().unwrap_or_default();
        [
            Cell::new(name),
            Cell::new(if is_active { "active" } else { "latent" }),
            Cell::new(verdict(image)),
            cell(&image["counts"]["critical"]),
            cell(&image["counts"]["high"]),
            Cell::new((bytes >> 20).to_string()),
        ]
    });
    page.table(
        [
            ("IMAGE", Cut::Start),
            ("USE", Cut::Never),
            ("VERDICT", Cut::Never),
            ("CRIT", Cut::Never),
            ("HIGH", Cut::Never),
            ("MIB", Cut::Never),
        ],
        rows,
        "none",
    )
}

pub(super) fn containers(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let rows = items(answer).map(|item| {
        [
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
        ]
    });
    page.table(
        [
            ("CONTAINER", Cut::Never),
            ("NAME", Cut::End),
            ("NODE", Cut::End),
            ("STATE", Cut::Never),
            ("VERDICT", Cut::Never),
            ("CRIT", Cut::Never),
            ("HIGH", Cut::Never),
            ("SETTINGS", Cut::Never),
            ("REACH", Cut::Never),
            ("IMAGE", Cut::Start),
        ],
        rows,
        "no container fits",
    )?;
    writeln!(page.out, "{} containers", items(answer).count())
}

pub(super) fn container(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
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
    page.fields("", &rows)?;
    let rows = items(&answer["misconfigurations"]).map(|found| {
        [
            cell(&found["severity"]),
            Cell::new(list(&found["clauses"], ", ")),
            cell(&found["title"]),
            cell(&found["evidence"]),
            cell(&found["remediation"]),
        ]
    });
    writeln!(page.out)?;
    page.table(
        [
            ("SEVERITY", Cut::Never),
            ("CLAUSE", Cut::Never),
            ("SETTING", Cut::End),
            ("SHOWN BY", Cut::End),
            ("TO MEND IT", Cut::End),
        ],
        rows,
        "nothing is wrong with its settings",
    )?;
    if items(&answer["incidents"]).next().is_some() {
        writeln!(page.out)?;
        incidents(&answer["incidents"], page)?;
    }
    Ok(())
}

pub(super) fn places(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let mut rows = Vec::new();
    for item in items(answer) {
        let name = item["references"]
            .get(0)
            .map_or_else(|| text(&item["image"]), text);
        let package = &item["packages"][0];
        for instance in items(&item["instances"]) {
            let is_exposed = instance["exposed"] == true;
            rows.push([
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
    let is_empty = rows.is_empty();
    page.table(
        [
            ("IMAGE", Cut::Start),
            ("PACKAGE", Cut::End),
            ("INSTALLED", Cut::End),
            ("FIXED", Cut::End),
            ("NODE", Cut::End),
            ("CONTAINER", Cut::Never),
            ("NAME", Cut::End),
            ("REACH", Cut::Never),
        ],
        rows,
        "nothing that runs has it",
    )?;
    if is_empty {
        return Ok(());
    }
    let count = |value: &Value| value.as_u64().unwrap_or_default();
    let containers: u64 = items(answer).map(|item| count(&item["containers"])).sum();
    let nodes: std::collections::BTreeSet<String> = items(answer)
        .flat_map(|item| items(&item["nodes"]).map(text))
        .collect();
    let exposed = items(answer).any(|item| item["exposed"] == true);
    let is_cut = items(answer).any(|item| item["is_cut"] == true);
    writeln!(
        page.out,
        "{}{containers} containers of {} images on {} nodes, {}",
        if is_cut { "more than " } else { "" },
        items(answer).count(),
        nodes.len(),
        if exposed {
            "some of them can be reached from outside"
        } else {
            "none of them can be reached from outside"
        }
    )
}

pub(super) fn incidents(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
    let rows = items(answer).map(|item| {
        let name = text(&item["container_name"]);
        let container = if name.is_empty() {
            id(&item["container"])
        } else {
            name
        };
        [
            cell(&item["id"]),
            cell(&item["severity"]),
            cell(&item["state"]),
            Cell::new(second(&item["last_at"])),
            cell(&item["node"]),
            Cell::new(container),
            cell(&item["title"]),
        ]
    });
    page.table(
        [
            ("INCIDENT", Cut::Last),
            ("SEVERITY", Cut::Never),
            ("STATE", Cut::Never),
            ("LAST", Cut::Never),
            ("NODE", Cut::End),
            ("CONTAINER", Cut::End),
            ("WHAT", Cut::End),
        ],
        rows,
        "no incident fits",
    )
}

pub(super) fn incident(answer: &Value, page: &mut Page<'_>) -> io::Result<()> {
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
    page.fields("", &rows)?;
    let rows = items(&answer["events"]).map(|event| {
        let process = &event["process"];
        let args = list(&process["args"], " ");
        let techniques = items(&event["techniques"]).map(|technique| text(&technique["id"]));
        [
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
        ]
    });
    writeln!(page.out)?;
    page.table(
        [
            ("AT", Cut::Never),
            ("SEVERITY", Cut::Never),
            ("RULE", Cut::End),
            ("WHAT", Cut::End),
            ("PROCESS", Cut::End),
            ("ATT&CK", Cut::End),
        ],
        rows,
        "its timeline is not kept any more",
    )?;
    around::write(&answer["around"], page)
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
pub(in crate::commands) fn second(value: &Value) -> String {
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
