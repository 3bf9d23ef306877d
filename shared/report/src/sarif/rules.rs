//! Rules: what each finding is an instance of.

use std::{borrow::Cow, collections::HashMap};

use model::{Confidence, Severity, Vulnerability};

use super::{
    document::{Configuration, Help, Rule, RuleProperties},
    item::Item,
    text::{description, markdown, message},
};
use crate::clean::web_address;

/// The rules of a run, each once.
#[derive(Default)]
pub(super) struct Rules<'a> {
    rules: Vec<Rule<'a>>,
    numbers: HashMap<Cow<'a, str>, usize>,
}

/// What a rule is made of.
struct Text {
    name: &'static str,
    short: String,
    full: String,
    /// Lines of the help: what it is about, and what it says.
    help: Vec<(&'static str, String)>,
    /// What to do, in one sentence.
    advice: String,
}

// === impl Rules ===

impl<'a> Rules<'a> {
    /// The number of the item's rule. The worst item comes first and gives the rule its severity.
    pub(super) fn number(&mut self, item: Item<'a>) -> usize {
        let id = item.rule_id();
        if let Some(number) = self.numbers.get(&id) {
            return *number;
        }
        let number = self.rules.len();
        self.numbers.insert(id.clone(), number);
        self.rules.push(rule(id, item));
        number
    }

    pub(super) fn into_vec(self) -> Vec<Rule<'a>> {
        self.rules
    }
}

/// `error`, `warning` or `note`.
pub(super) const fn level(severity: Severity) -> &'static str {
    match severity {
        Severity::Critical | Severity::High => "error",
        Severity::Medium => "warning",
        Severity::Low | Severity::Negligible | Severity::Unknown => "note",
    }
}

fn rule<'a>(id: Cow<'a, str>, item: Item<'a>) -> Rule<'a> {
    let text = text(item);
    let url = match item {
        Item::Vulnerability(found) => web_address(&found.url),
        _ => None,
    };
    Rule {
        id,
        name: text.name,
        short_description: description(&text.short).into(),
        full_description: description(&text.full).into(),
        help: help(&text, url),
        help_uri: url,
        default_configuration: Configuration {
            level: level(item.severity()),
        },
        properties: RuleProperties {
            tags: tags(item),
            precision: precision(item),
            security_severity: score(item).map(|score| format!("{score:.1}")),
        },
    }
}

fn text(item: Item<'_>) -> Text {
    match item {
        Item::Vulnerability(found) => of_vulnerability(found),
        Item::Secret(found) => Text {
            name: "Secret",
            short: found.title.clone(),
            full: format!("{} in a file of the image", found.title),
            help: vec![("Severity", found.severity.to_string())],
            advice: found.advice.clone(),
        },
        Item::Misconfiguration(found) => Text {
            name: "Misconfiguration",
            short: found.title.clone(),
            full: found.title.clone(),
            help: vec![
                ("Severity", found.severity.to_string()),
                ("Clauses", found.clauses.join(", ")),
            ],
            advice: found.remediation.clone(),
        },
        Item::Malware(found) => Text {
            name: "Malware",
            short: format!("malware: {}", found.rule),
            full: format!("the rule {} of {} fires", found.rule, found.ruleset),
            help: vec![("Severity", found.severity.to_string())],
            advice: "do not run the image; find out how the file came into it".to_owned(),
        },
        Item::Tampered(_) => Text {
            name: "TamperedFile",
            short: "a file is not as its package made it".to_owned(),
            full: "a file that a package installed has another digest than the package's records \
                   say"
            .to_owned(),
            help: Vec::new(),
            advice: "compare the file with the one of the package, or install the package again"
                .to_owned(),
        },
    }
}

fn of_vulnerability(found: &Vulnerability) -> Text {
    let title = if found.title.is_empty() {
        format!("vulnerability of {}", found.package)
    } else {
        found.title.clone()
    };
    let ratings: Vec<_> = found
        .cvss
        .iter()
        .map(|cvss| {
            format!(
                "{} {} ({} {})",
                cvss.score, cvss.source, cvss.version, cvss.vector
            )
        })
        .collect();
    let epss = found.epss.map(|epss| format!("{:.1} %", epss * 100.0));
    let help = [
        ("Severity", Some(found.severity.to_string())),
        ("CVSS", Some(ratings.join(", "))),
        ("EPSS", epss),
        (
            "Exploited",
            found.kev.then(|| "known to be, says CISA".to_owned()),
        ),
        ("Also known as", Some(found.aliases.join(", "))),
        ("Source", Some(found.source.clone())),
    ];
    let help = help
        .into_iter()
        .filter_map(|(name, value)| Some((name, value.filter(|value| !value.is_empty())?)));
    Text {
        name: if found.kind.is_os() {
            "OsPackageVulnerability"
        } else {
            "LanguagePackageVulnerability"
        },
        short: format!("{}: {title}", found.id),
        full: title,
        help: help.collect(),
        advice: "install a version of the package that has the fix; each result names it, where \
                 there is one"
            .to_owned(),
    }
}

fn help(text: &Text, url: Option<&str>) -> Help {
    let mut plain = vec![message(&text.full)];
    let mut marked = vec![markdown(&text.full), String::new()];
    if !text.help.is_empty() {
        marked.push("| | |\n|---|---|".to_owned());
    }
    for (name, value) in &text.help {
        plain.push(format!("{name}: {}", message(value)));
        marked.push(format!("| {name} | {} |", markdown(value)));
    }
    plain.push(message(&text.advice));
    marked.extend([String::new(), markdown(&text.advice)]);
    if let Some(url) = url {
        plain.push(url.to_owned());
        marked.extend([String::new(), format!("<{url}>")]);
    }
    Help {
        text: plain.join("\n"),
        markdown: marked.join("\n"),
    }
}

fn tags(item: Item<'_>) -> Vec<String> {
    let mut tags = vec!["security".to_owned()];
    match item {
        Item::Vulnerability(found) => {
            tags.extend(["vulnerability".to_owned(), found.kind.to_string()]);
            if found.kev {
                tags.push("known-exploited".to_owned());
            }
        }
        Item::Secret(_) => tags.push("secret".to_owned()),
        Item::Misconfiguration(_) => tags.push("misconfiguration".to_owned()),
        Item::Malware(_) => tags.push("malware".to_owned()),
        Item::Tampered(_) => tags.push("integrity".to_owned()),
    }
    tags
}

fn precision(item: Item<'_>) -> &'static str {
    match item {
        Item::Vulnerability(found) => match found.matched.confidence {
            Confidence::High => "very-high",
            Confidence::Medium => "high",
            Confidence::Low => "low",
        },
        Item::Misconfiguration(_) | Item::Tampered(_) => "very-high",
        Item::Secret(_) | Item::Malware(_) => "high",
    }
}

/// The worst CVSS score of our severity's band, else a score of that band.
fn score(item: Item<'_>) -> Option<f64> {
    let severity = item.severity();
    let scores = match item {
        Item::Vulnerability(found) => found.cvss.iter().map(|cvss| cvss.score).collect(),
        _ => Vec::new(),
    };
    let of_band = scores
        .into_iter()
        .filter(|score| Severity::from_score(*score) == severity && *score <= 10.0);
    let representative = match severity {
        Severity::Critical => 9.5,
        Severity::High => 8.0,
        Severity::Medium => 5.5,
        Severity::Low => 2.0,
        Severity::Negligible => 0.1,
        Severity::Unknown => return None,
    };
    of_band.max_by(f64::total_cmp).or(Some(representative))
}
