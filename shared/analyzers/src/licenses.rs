//! Licences as packages declare them, made SPDX expressions (SPDX annex D).
//!
//! What a package says is kept as it says it. What it means is said beside it, in one language: an
//! identifier of the SPDX list where the text names that licence and no other, and a `LicenseRef-` of
//! the text where it does not. `BSD` and `GPL` alone name several licences, so they name none here:
//! nothing is guessed, and unknown stays unknown.
//!
//! | kind | several texts mean |
//! |---|---|
//! | npm, Composer, Maven | one of them, as those formats say |
//! | all others | all of them |

mod category;
mod names;
mod parse;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};

use model::{EntryKind, License, LicenseCategory, Package, PackageType};
use spdx::{Expression, LicenseItem};

use crate::PreparedLayer;

/// What is said of a package that declares nothing.
pub(crate) const NOTHING: &str = "NOASSERTION";

/// Bytes of an expression: a package of a hundred works.
const EXPRESSION_BYTES_MAX: usize = 4096;

/// Where Debian's packages say under which licences they are.
const DOC: &str = "usr/share/doc/";

/// The expression of everything that a package declares; `None` where it declares nothing.
pub fn expression(kind: PackageType, declared: &[String]) -> Option<String> {
    joined(kind, declared, parse::expression)
}

/// One expression of all texts, each of which becomes one by `parse`.
fn joined<'a>(
    kind: PackageType,
    declared: &'a [String],
    mut parse: impl FnMut(&'a str) -> String,
) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for text in declared.iter().filter(|text| !text.trim().is_empty()) {
        let part = parse(text);
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    let joint = match kind {
        PackageType::Npm | PackageType::Composer | PackageType::Maven => " OR ",
        _ => " AND ",
    };
    let all = if let [one] = parts.as_slice() {
        one.clone()
    } else {
        let parts = parts.iter().map(|part| {
            if part.contains(' ') {
                format!("({part})")
            } else {
                part.clone()
            }
        });
        parts.collect::<Vec<_>>().join(joint)
    };
    (!all.is_empty() && all.len() <= EXPRESSION_BYTES_MAX).then_some(all)
}

/// What kind of licence an expression leaves who uses the package: of a choice the mildest, of several
/// that all hold the strictest.
pub fn category(expression: &str) -> LicenseCategory {
    category::of_expression(expression)
}

/// Whether an expression can be kept with licences of which `allows` says yes, choosing where there is
/// a choice. It is asked with the licence alone, as `GPL-2.0-or-later`, and with its exception, where
/// it has one; one yes is enough. What is no expression is asked for as it is.
pub fn is_satisfied(
    expression: &str,
    mut allows: impl FnMut(&str, LicenseCategory) -> bool,
) -> bool {
    match Expression::parse(expression) {
        Err(_) => allows(expression, LicenseCategory::Unknown),
        Ok(parsed) => parsed.evaluate(|required| {
            let category = category::of_requirement(required);
            let alone = required.license.to_string();
            allows(&alone, category)
                || required.addition.is_some() && allows(&required.to_string(), category)
        }),
    }
}

/// The licences that an expression names, without their exceptions.
pub fn named(expression: &str) -> Vec<String> {
    let parsed = Expression::parse(expression);
    let names = parsed.iter().flat_map(Expression::requirements);
    let mut names: Vec<_> = names.map(|one| one.req.license.to_string()).collect();
    names.sort();
    names.dedup();
    names
}

/// Whether all that an expression names is on the SPDX list.
pub fn is_listed(expression: &str) -> bool {
    expression != NOTHING
        && Expression::parse(expression).is_ok_and(|parsed| {
            let mut all = parsed.requirements();
            all.all(|one| matches!(one.req.license, LicenseItem::Spdx { .. }))
        })
}

/// Gives Debian's packages the licences of their copyright files, and says of every package under which
/// expression it is. The files count though a later layer deleted them: what they say stays true.
pub(crate) fn describe(layers: &[&PreparedLayer], packages: &mut [Package]) -> Vec<License> {
    let files = copyrights(layers);
    let mut without = Vec::new();
    for package in packages.iter_mut().filter(|one| is_open(one)) {
        match files.get(package.name.as_str()) {
            Some(licenses) => package.licenses = (*licenses).to_vec(),
            None if !files.is_empty() => without.push(package),
            None => {}
        }
    }
    let places: Vec<_> = without
        .iter()
        .map(|one| format!("{DOC}{}", one.name))
        .collect();
    let links = links(layers, &places);
    for (package, place) in without.into_iter().zip(&places) {
        let licenses = links.get(place.as_str()).and_then(|name| files.get(name));
        if let Some(licenses) = licenses {
            package.licenses = (*licenses).to_vec();
        }
    }
    let mut known = Known::default();
    packages
        .iter()
        .map(|package| known.license(package))
        .collect()
}

fn is_open(package: &Package) -> bool {
    package.kind == PackageType::Deb && package.licenses.is_empty()
}

/// What was found out already: packages declare the same texts again and again, and many all of them.
#[derive(Default)]
struct Known<'a> {
    /// By all that a package declares.
    declared: HashMap<(PackageType, &'a [String]), (String, LicenseCategory)>,
    /// By a single text.
    texts: HashMap<&'a str, String>,
}

// === impl Known ===

impl<'a> Known<'a> {
    /// What is said of a package.
    fn license(&mut self, package: &'a Package) -> License {
        let Self { declared, texts } = self;
        let of = (package.kind, package.licenses.as_slice());
        let (expression, category) = declared.entry(of).or_insert_with(|| {
            let parse = |text| {
                let known = texts.entry(text);
                known.or_insert_with(|| parse::expression(text)).clone()
            };
            let expression = joined(package.kind, &package.licenses, parse);
            let expression = expression.unwrap_or_else(|| NOTHING.to_owned());
            let category = category(&expression);
            (expression, category)
        });
        License {
            package_id: package.id.clone(),
            package: package.name.clone(),
            kind: package.kind,
            category: *category,
            fingerprint: model::Fingerprint::of(&[
                "license",
                package.kind.as_str(),
                &package.name,
                expression,
            ]),
            expression: expression.clone(),
            waived: None,
        }
    }
}

/// What copyright files say, by the directory that they are in: that of the uppermost layer.
fn copyrights<'a>(layers: &[&'a PreparedLayer]) -> HashMap<&'a str, &'a [String]> {
    let sections = layers.iter().flat_map(|layer| &layer.sections);
    let all = sections.flat_map(|section| &section.licenses);
    all.map(|found| (found.package.as_str(), found.licenses.as_slice()))
        .collect()
}

/// Directories of documentation that are a link to another package's.
fn links<'a>(layers: &[&'a PreparedLayer], places: &[String]) -> BTreeMap<&'a str, &'a str> {
    let mut links = BTreeMap::new();
    for layer in layers {
        for (_, entry) in layer.named(places.iter().map(String::as_str)) {
            let target = entry.link.filter(|_| entry.kind == EntryKind::Symlink);
            if let Some(target) = target.filter(|_| entry.path.starts_with(DOC)) {
                let name = target.trim_end_matches('/').rsplit('/').next();
                links.insert(entry.path, name.unwrap_or_default());
            }
        }
    }
    links
}
