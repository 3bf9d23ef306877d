//! CSAF 2.0 VEX documents (docs.oasis-open.org/csaf): of one vulnerability which product is affected,
//! fixed, or never was.
//!
//! A statement names a component of a platform by an id; that the two belong together is in the
//! document's relationships, what they are in its product tree: a purl for the component, a CPE or a
//! name for the platform. Between them may stand a module stream, or it is in the component's purl.

mod component;
mod document;

use std::collections::{BTreeMap, BTreeSet, HashMap};

use model::{FixState, Severity, ShardKey};

pub(super) use self::document::Product;
use self::{
    component::{Component, module_of_purl},
    document::{Branch, Document, Head, Score, Tree, Vulnerability},
};
use super::{MalformedVendor, STATEMENTS_MAX, Said, Take, clip, is_name, rating, time};
use crate::{
    osv,
    shard::{ShardAdvisory, Window, WindowEnd},
};

/// How often a platform may itself be a part of another one.
const PARTS_MAX: usize = 4;
/// How many ratings of one package are kept.
const SCORES_MAX: usize = 4;

/// What differs between vendors.
pub(super) struct Dialect {
    pub(super) feed: &'static str,
    /// What the documents are.
    pub(super) what: &'static str,
    /// The ecosystem of a platform; `None` for one that no image is looked up in.
    pub(super) ecosystem: fn(&Product<'_>) -> Option<String>,
    /// What an ecosystem is a part of: "never affected" counts where nothing in it is.
    pub(super) release: fn(&str) -> &str,
}

/// The product tree, to look up in.
struct Products<'a> {
    by_id: HashMap<&'a str, &'a Product<'a>>,
    relations: HashMap<&'a str, (&'a str, &'a str)>,
}

/// About what a statement is: ecosystem, package, module stream.
type Subject = (String, String, Option<String>);

/// What is said about one package.
#[derive(Default)]
struct Statement {
    fixed: BTreeSet<String>,
    unfixed: Option<FixState>,
    rating: Option<Severity>,
    scores: Vec<usize>,
}

/// What a vulnerability's remarks say, by product; under the empty id what they say of all.
struct Remarks<'a> {
    states: HashMap<&'a str, FixState>,
    ratings: HashMap<&'a str, Severity>,
    scores: HashMap<&'a str, Vec<usize>>,
}

/// Reads a document.
pub(super) fn read(
    dialect: &Dialect,
    bytes: &[u8],
    take: Take<'_>,
) -> Result<Said, MalformedVendor> {
    let malformed = |error| MalformedVendor::Json(dialect.what, error);
    let document: Document<'_> = serde_json::from_slice(bytes).map_err(malformed)?;
    let own = document.document.tracking.id.trim();
    if !is_name(own) {
        return Err(MalformedVendor::Id);
    }
    let mut said = Said::default();
    said.ids.push(own.to_owned());
    let products = Products::of(&document.product_tree);
    for vulnerability in &document.vulnerabilities {
        let id = vulnerability.cve.as_deref().unwrap_or(own).trim();
        if !is_name(id) {
            said.refuse(own, "a vulnerability in it has no usable id");
            continue;
        }
        if id != own {
            said.ids.push(id.to_owned());
        }
        let statements = statements(dialect, vulnerability, &products)?;
        give(
            dialect,
            (&document.document, vulnerability, id),
            statements,
            take,
        );
    }
    Ok(said)
}

/// What is said of packages, by package.
fn statements(
    dialect: &Dialect,
    vulnerability: &Vulnerability<'_>,
    products: &Products<'_>,
) -> Result<BTreeMap<Subject, Statement>, MalformedVendor> {
    let status = &vulnerability.product_status;
    let remarks = Remarks::of(vulnerability);
    let groups = [
        (&status.fixed, Group::Fixed),
        (&status.recommended, Group::Fixed),
        (&status.known_affected, Group::Affected),
        (&status.under_investigation, Group::Investigated),
        (&status.known_not_affected, Group::Unaffected),
    ];
    let count: usize = groups.iter().map(|(ids, _)| ids.len()).sum();
    if count > STATEMENTS_MAX {
        return Err(MalformedVendor::TooMuch);
    }
    let mut found: BTreeMap<Subject, Statement> = BTreeMap::new();
    for (ids, group) in groups {
        for id in ids {
            let Some((component, ecosystem)) = products.resolve(dialect, id) else {
                continue;
            };
            let subject = (ecosystem, component.package, component.module);
            let statement = found.entry(subject).or_default();
            match (group, component.version) {
                (Group::Fixed, Some(version)) => {
                    statement.fixed.insert(version);
                }
                // Without a version it says nothing that could be compared.
                (Group::Fixed, None) | (Group::Unaffected, _) => {}
                (Group::Affected, _) => {
                    statement.unfixed = Some(remarks.state(id));
                }
                (Group::Investigated, _) => {
                    statement.unfixed.get_or_insert(FixState::Investigating);
                }
            }
            if statement.rating.is_none() {
                statement.rating = remarks.rating(id);
                statement.scores = remarks.scores(id);
            }
        }
    }
    Ok(found)
}

#[derive(Clone, Copy)]
enum Group {
    Fixed,
    Affected,
    Investigated,
    Unaffected,
}

/// Gives what was said as parts of an advisory.
fn give(
    dialect: &Dialect,
    (head, vulnerability, id): (&Head<'_>, &Vulnerability<'_>, &str),
    statements: BTreeMap<Subject, Statement>,
    take: Take<'_>,
) {
    let title = clip(&vulnerability.title);
    let overall = head.aggregate_severity.as_ref();
    let overall = overall.and_then(|words| rating(&words.text));
    let common = ShardAdvisory {
        id: id.to_owned(),
        feed: dialect.feed.to_owned(),
        // SUSE's say nothing but the id.
        title: if title == id { String::new() } else { title },
        published: time(&vulnerability.release_date)
            .or_else(|| time(&head.tracking.initial_release_date)),
        modified: time(&head.tracking.current_release_date),
        ..ShardAdvisory::default()
    };
    let positive: BTreeSet<(String, String)> = statements
        .iter()
        .filter(|(_, statement)| !statement.is_negative())
        .map(|((ecosystem, package, _), _)| {
            ((dialect.release)(ecosystem).to_owned(), package.clone())
        })
        .collect();
    for ((ecosystem, package, module), statement) in statements {
        let release = (dialect.release)(&ecosystem).to_owned();
        if statement.is_negative() && positive.contains(&(release, package.clone())) {
            continue;
        }
        let mut part = ShardAdvisory {
            rating: statement.rating.or(overall),
            windows: statement.windows(),
            unfixed: statement.unfixed.filter(|_| statement.fixed.is_empty()),
            modules: module.into_iter().collect(),
            package,
            ..common.clone()
        };
        for score in &statement.scores {
            let vectors = vulnerability.scores.get(*score).into_iter();
            for vector in vectors.flat_map(Score::vectors) {
                osv::rate_vector(&vector.text, dialect.feed, &mut part);
            }
        }
        take(ShardKey::of(ecosystem, &part.package), part);
    }
}

// === impl Products ===

impl<'a> Products<'a> {
    fn of(tree: &'a Tree<'a>) -> Self {
        let mut by_id = HashMap::new();
        for product in &tree.full_product_names {
            by_id.insert(&*product.product_id, product);
        }
        let mut open: Vec<&Branch<'_>> = tree.branches.iter().collect();
        while let Some(branch) = open.pop() {
            if let Some(product) = &branch.product {
                by_id.insert(&*product.product_id, product);
            }
            open.extend(&branch.branches);
        }
        let relations = tree.relationships.iter().map(|one| {
            let of = (&*one.product_reference, &*one.relates_to_product_reference);
            (&*one.full_product_name.product_id, of)
        });
        Self {
            relations: relations.collect(),
            by_id,
        }
    }

    /// The component and the ecosystem that an id stands for; `None` where it is about something
    /// that no package of an image is.
    fn resolve(&self, dialect: &Dialect, id: &str) -> Option<(Component, String)> {
        let (component, mut platform) = *self.relations.get(id)?;
        let mut module = None;
        for _ in 0..PARTS_MAX {
            let Some((part, of)) = self.relations.get(platform) else {
                break;
            };
            let purl = self.by_id.get(part).map(|part| &*part.helper.purl);
            module = purl.and_then(module_of_purl).or(module);
            platform = of;
        }
        let ecosystem = (dialect.ecosystem)(self.by_id.get(platform)?)?;
        let mut component = Component::of(self.by_id.get(component)?)?;
        component.module = component.module.or(module);
        Some((component, ecosystem))
    }
}

// === impl Statement ===

impl Statement {
    /// Whether it says that no version is affected.
    fn is_negative(&self) -> bool {
        self.fixed.is_empty() && self.unfixed.is_none()
    }

    fn windows(&self) -> Vec<Window> {
        let ends = self.fixed.iter().cloned().map(WindowEnd::Fixed);
        let mut ends: Vec<WindowEnd> = ends.collect();
        if ends.is_empty() {
            ends.push(match self.unfixed {
                Some(_) => WindowEnd::Open,
                None => WindowEnd::Fixed("0".to_owned()),
            });
        }
        let window = |end| Window {
            introduced: None,
            end,
        };
        ends.into_iter().map(window).collect()
    }
}

// === impl Remarks ===

impl<'a> Remarks<'a> {
    fn of(vulnerability: &'a Vulnerability<'a>) -> Self {
        let mut states = HashMap::new();
        for remark in &vulnerability.remediations {
            let Some(state) = remark.state() else {
                continue;
            };
            for id in remark.ids() {
                states.insert(id, state);
            }
        }
        let mut ratings = HashMap::new();
        let impacts = vulnerability.threats.iter();
        for remark in impacts.filter(|remark| remark.category == "impact") {
            let Some(word) = rating(&remark.details) else {
                continue;
            };
            for id in remark.ids() {
                ratings.insert(id, word);
            }
        }
        let mut scores: HashMap<&str, Vec<usize>> = HashMap::new();
        for (index, score) in vulnerability.scores.iter().enumerate() {
            for id in &score.products {
                let known = scores.entry(id).or_default();
                if known.len() < SCORES_MAX {
                    known.push(index);
                }
            }
        }
        Self {
            states,
            ratings,
            scores,
        }
    }

    /// What becomes of what is affected and has no fix.
    fn state(&self, id: &str) -> FixState {
        let known = self.states.get(id).or_else(|| self.states.get(""));
        known.copied().unwrap_or(FixState::NotFixed)
    }

    fn rating(&self, id: &str) -> Option<Severity> {
        let known = self.ratings.get(id).or_else(|| self.ratings.get(""));
        known.copied()
    }

    fn scores(&self, id: &str) -> Vec<usize> {
        self.scores.get(id).cloned().unwrap_or_default()
    }
}
