//! What every crate and every service is mentioned in.

use crate::repo::{Member, files, members, text, verdict};

const CONFIG: &str = "deploy/config/tidewaiter.yaml";

#[test]
fn every_service_has_a_config_section() {
    let config = text(CONFIG).unwrap_or_default();
    let wrong: Vec<String> = services()
        .filter(|service| {
            !config
                .lines()
                .any(|line| line.starts_with(&format!("{}:", service.name)))
        })
        .map(|service| format!("{CONFIG}: add the section `{}:`", service.name))
        .collect();
    verdict("configuration", &wrong);
}

#[test]
fn every_crate_has_a_row_in_the_readme() {
    let readme = text("README.md").unwrap_or_default();
    let rows: Vec<&str> = readme
        .lines()
        .filter(|line| line.starts_with('|'))
        .collect();
    let mut wrong = Vec::new();
    for member in members() {
        let link = format!("({})", member.path);
        if !rows.iter().any(|row| row.contains(&link)) {
            wrong.push(format!(
                "README.md: add a row for `{}` that links to {link}",
                member.name
            ));
        }
    }
    verdict("the map in the README", &wrong);
}

#[test]
fn every_link_of_the_readme_leads_somewhere() {
    let readme = text("README.md").unwrap_or_default();
    let links = readme
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split(')').next());
    let wrong: Vec<String> = links
        .filter(|link| !link.contains("://") && !link.starts_with('#'))
        .map(|link| {
            link.split('#')
                .next()
                .unwrap_or_default()
                .trim_end_matches('/')
        })
        .filter(|path| {
            let inside = format!("{path}/");
            !files()
                .iter()
                .any(|file| file == path || file.starts_with(&inside))
        })
        .map(|path| format!("README.md links to `{path}`, which is not there"))
        .collect();
    verdict("links of the README", &wrong);
}

/// Files of [`services_have_the_same_files`] that a service does without, and why.
const WITHOUT: &[(&str, &str, &str)] = &[
    (
        "gateway",
        "handler.rs",
        "its handler is a role with a name: router.rs",
    ),
    (
        "inventory",
        "handler.rs",
        "it takes no event: it follows records, in feed.rs",
    ),
];

#[test]
fn services_have_the_same_files() {
    let mut wrong = Vec::new();
    for service in services() {
        for file in ["lib.rs", "config.rs", "handler.rs", "metrics.rs"] {
            let path = format!("{}/src/{file}", service.path);
            let excused = WITHOUT.iter().any(|(name, without, reason)| {
                *name == service.name && *without == file && !reason.is_empty()
            });
            if !excused && !files().contains(&path) {
                wrong.push(format!(
                    "{path} is missing: who knows one service knows all"
                ));
            }
        }
    }
    verdict("the inside of a service", &wrong);
}

/// Services that are roles of the binary.
fn services() -> impl Iterator<Item = &'static Member> {
    let binaries = ["tidewaiter", "agent"];
    let services = members()
        .iter()
        .filter(|member| member.path.starts_with("services/"));
    services.filter(move |member| !binaries.contains(&member.name.as_str()))
}
