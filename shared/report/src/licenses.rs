//! Licences as packages declare them, as SPDX identifiers where they are some.

use std::{collections::HashMap, slice};

use model::{Package, PackageId, Report};

use crate::cyclonedx::{License, LicenseChoice};

/// The identifiers of the SPDX license list, sorted.
pub(crate) const SPDX_IDS: &str = include_str!("spdx-ids.txt");

/// Characters of a licence text that is kept: some packages put the whole licence there.
const NAME_CHARS_MAX: usize = 200;

const DECLARED: &str = "declared";

/// What the packages of a report are under.
pub(crate) struct Expressions<'a>(HashMap<&'a PackageId, &'a String>);

// === impl Expressions ===

impl<'a> Expressions<'a> {
    /// The expressions that name nothing but licences of the list.
    pub(crate) fn of(report: &'a Report) -> Self {
        let all = report.licenses.iter();
        let listed = all.filter(|license| {
            !license.expression.contains("LicenseRef-") && is_expression(&license.expression)
        });
        Self(
            listed
                .map(|license| (&license.package_id, &license.expression))
                .collect(),
        )
    }

    /// The expression of a package where there is one, else what it declares.
    pub(crate) fn of_package(&self, package: &'a Package) -> &'a [String] {
        let expression = self.0.get(&package.id);
        expression.map_or(&package.licenses, |expression| slice::from_ref(*expression))
    }
}

/// One expression, or a list of identifiers and names: the format has no mixture.
pub(crate) fn choices(declared: &[String]) -> Vec<LicenseChoice<'_>> {
    if let [text] = declared
        && id(text).is_none()
        && is_expression(text)
    {
        return vec![LicenseChoice::Expression {
            expression: text,
            acknowledgement: DECLARED,
        }];
    }
    let named = declared.iter().filter(|text| !text.trim().is_empty());
    named
        .map(|text| LicenseChoice::One {
            license: license(text),
        })
        .collect()
}

/// Whether a reader of the choices gets the very licences that were declared.
pub(crate) fn are_verbatim(choices: &[LicenseChoice<'_>], declared: &[String]) -> bool {
    let told = choices.iter().map(|choice| match choice {
        LicenseChoice::Expression { expression, .. } => Some(*expression),
        LicenseChoice::One { license } => license.id.or(license.name),
    });
    told.eq(declared.iter().map(|text| Some(text.as_str())))
}

fn license(text: &str) -> License<'_> {
    let id = id(text);
    let end = text
        .char_indices()
        .nth(NAME_CHARS_MAX)
        .map_or(text.len(), |(at, _)| at);
    License {
        id,
        name: id.is_none().then(|| text.get(..end).unwrap_or(text)),
        acknowledgement: DECLARED,
    }
}

/// The identifier as the list writes it: case does not matter in it (SPDX annex D.2).
pub(crate) fn id(text: &str) -> Option<&'static str> {
    let mut ids = SPDX_IDS.lines();
    ids.find(|id| id.eq_ignore_ascii_case(text.trim()))
}

/// Whether it is an SPDX expression of known licences (SPDX annex D): `AND` and `OR` between, each
/// licence with `+` or `WITH` an exception behind it.
pub(crate) fn is_expression(text: &str) -> bool {
    let spaced = text.replace('(', " ( ").replace(')', " ) ");
    let mut depth = 0_usize;
    let mut is_operand_next = true;
    let mut tokens = spaced.split_whitespace();
    while let Some(token) = tokens.next() {
        match (token, is_operand_next) {
            ("(", true) => depth += 1,
            (")", false) if depth > 0 => depth -= 1,
            ("AND" | "OR", false) => is_operand_next = true,
            ("WITH", false) => {
                if !tokens.next().is_some_and(is_idstring) {
                    return false;
                }
            }
            (token, true) if is_license(token) => is_operand_next = false,
            _ => return false,
        }
    }
    depth == 0 && !is_operand_next
}

fn is_license(token: &str) -> bool {
    let plain = token.strip_suffix('+').unwrap_or(token);
    let is_own = token.starts_with("LicenseRef-") || token.starts_with("DocumentRef-");
    id(plain).is_some() || is_own && token.split(':').all(is_idstring)
}

fn is_idstring(text: &str) -> bool {
    let is_ok = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '.');
    !text.is_empty() && text.chars().all(is_ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(declared: &[&str], expected: &str) {
        let declared: Vec<_> = declared.iter().map(|text| (*text).to_owned()).collect();
        let json = serde_json::to_string(&choices(&declared)).unwrap();
        let short = json.replace(r#","acknowledgement":"declared""#, "");
        assert_eq!(short, expected, "{declared:?}");
    }

    #[test]
    fn a_license_is_an_identifier_an_expression_or_a_name() {
        check(&["mit"], r#"[{"license":{"id":"MIT"}}]"#);
        check(
            &["MIT AND (Apache-2.0 OR GPL-2.0-or-later WITH Classpath-exception-2.0)"],
            r#"[{"expression":"MIT AND (Apache-2.0 OR GPL-2.0-or-later WITH Classpath-exception-2.0)"}]"#,
        );
        check(
            &["MIT", "BSD"],
            r#"[{"license":{"id":"MIT"}},{"license":{"name":"BSD"}}]"#,
        );
        check(&[], "[]");
        check(&[" "], "[]");
    }

    #[test]
    fn what_only_looks_like_an_expression_is_a_name() {
        for text in [
            "MIT OR",
            "MIT OR nobody",
            "(MIT",
            "MIT)",
            "MIT Apache-2.0",
            "AND",
            "GPL-2.0-only WITH",
            "LicenseRef-a_b",
            "Python Software Foundation License",
        ] {
            check(&[text], &format!(r#"[{{"license":{{"name":"{text}"}}}}]"#));
        }
        check(&["LicenseRef-a"], r#"[{"expression":"LicenseRef-a"}]"#);
        check(
            &["GPL-2.0+ OR MIT"],
            r#"[{"expression":"GPL-2.0+ OR MIT"}]"#,
        );
    }

    #[test]
    fn a_whole_license_text_is_cut() {
        let text = "ä".repeat(10_000);
        let [LicenseChoice::One { license }] = &choices(slice::from_ref(&text))[..] else {
            panic!("one license");
        };
        assert_eq!(license.name.unwrap().chars().count(), NAME_CHARS_MAX);
    }

    #[test]
    fn a_package_is_under_its_expression_if_that_names_what_is_on_the_list() {
        let mut report = crate::tests::samples::full();
        let package = Package {
            licenses: vec!["GPLv2+".to_owned()],
            ..report.packages[0].clone()
        };
        let said = |report: &Report| Expressions::of(report).of_package(&package).to_vec();
        report.licenses[0].package_id = package.id.clone();
        report.licenses[0].expression = "GPL-2.0-or-later".to_owned();
        assert_eq!(said(&report), ["GPL-2.0-or-later"]);
        for unlisted in ["NOASSERTION", "MIT AND LicenseRef-x"] {
            report.licenses[0].expression = unlisted.to_owned();
            assert_eq!(said(&report), ["GPLv2+"], "{unlisted}");
        }
    }
}
