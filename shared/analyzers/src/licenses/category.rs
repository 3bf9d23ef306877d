//! What kind of licence one is.

use model::LicenseCategory;
use spdx::{
    Expression, LicenseItem, LicenseReq,
    expression::{ExprNode, Operator},
};

/// Families, by the beginning of their identifiers, before all others.
const FAMILIES: &[(&str, LicenseCategory)] = &[
    ("AGPL-", LicenseCategory::NetworkCopyleft),
    ("LGPL-", LicenseCategory::WeakCopyleft),
    ("GPL-", LicenseCategory::Copyleft),
    ("GFDL-", LicenseCategory::Copyleft),
    ("OSL-", LicenseCategory::NetworkCopyleft),
    ("RPL-", LicenseCategory::NetworkCopyleft),
    ("CPAL-", LicenseCategory::NetworkCopyleft),
    ("EUPL-", LicenseCategory::NetworkCopyleft),
    ("CC-BY-NC", LicenseCategory::SourceAvailable),
    ("CC-BY-ND", LicenseCategory::SourceAvailable),
    ("CC-BY-SA", LicenseCategory::Copyleft),
    ("SSPL-", LicenseCategory::SourceAvailable),
    ("BUSL-", LicenseCategory::SourceAvailable),
    ("Elastic-", LicenseCategory::SourceAvailable),
    ("PolyForm-", LicenseCategory::SourceAvailable),
    ("Parity-", LicenseCategory::NetworkCopyleft),
    ("MPL-", LicenseCategory::WeakCopyleft),
    ("EPL-", LicenseCategory::WeakCopyleft),
    ("CDDL-", LicenseCategory::WeakCopyleft),
    ("CPL-", LicenseCategory::WeakCopyleft),
    ("IPL-", LicenseCategory::WeakCopyleft),
    ("MS-RL", LicenseCategory::WeakCopyleft),
    ("APSL-", LicenseCategory::WeakCopyleft),
    ("SPL-", LicenseCategory::WeakCopyleft),
    ("NPL-", LicenseCategory::WeakCopyleft),
    ("OFL-", LicenseCategory::WeakCopyleft),
    ("Artistic-", LicenseCategory::Permissive),
    ("CC0-", LicenseCategory::PublicDomain),
    ("Unlicense", LicenseCategory::PublicDomain),
    ("blessing", LicenseCategory::PublicDomain),
    ("SAX-PD", LicenseCategory::PublicDomain),
    ("PDDL-", LicenseCategory::PublicDomain),
    ("CC-PDDC", LicenseCategory::PublicDomain),
    ("CC-BY-", LicenseCategory::Permissive),
];

/// Exceptions that let a program be linked and passed on under another licence.
const LINKING: &[&str] = &["Classpath-", "GCC-exception", "LLVM-", "Linux-syscall-note"];

pub(super) fn of_expression(text: &str) -> LicenseCategory {
    let Ok(expression) = Expression::parse(text) else {
        return LicenseCategory::Unknown;
    };
    let mut stack = Vec::new();
    for node in expression.iter() {
        let category = match node {
            ExprNode::Req(required) => of_requirement(&required.req),
            ExprNode::Op(operator) => {
                let (Some(one), Some(other)) = (stack.pop(), stack.pop()) else {
                    return LicenseCategory::Unknown;
                };
                match operator {
                    Operator::Or => std::cmp::min(one, other),
                    Operator::And => std::cmp::max(one, other),
                }
            }
        };
        stack.push(category);
    }
    stack.pop().unwrap_or_default()
}

pub(super) fn of_requirement(required: &LicenseReq) -> LicenseCategory {
    let category = match &required.license {
        LicenseItem::Spdx { id, .. } => of_listed(*id),
        LicenseItem::Other(other) => of_named(&other.lic_ref),
    };
    let exception = required.addition.as_ref().map(ToString::to_string);
    let links = exception.is_some_and(|name| LINKING.iter().any(|known| name.starts_with(known)));
    if links && category == LicenseCategory::Copyleft {
        return LicenseCategory::WeakCopyleft;
    }
    category
}

fn of_listed(id: spdx::LicenseId) -> LicenseCategory {
    let mut families = FAMILIES.iter();
    if let Some((_, category)) = families.find(|(start, _)| id.name.starts_with(start)) {
        return *category;
    }
    if id.is_copyleft() {
        LicenseCategory::Copyleft
    } else if id.is_osi_approved() || id.is_fsf_free_libre() || is_known_permissive(id.name) {
        LicenseCategory::Permissive
    } else {
        LicenseCategory::Unknown
    }
}

/// Free licences that neither OSI nor FSF list.
fn is_known_permissive(name: &str) -> bool {
    const STARTS: &[&str] = &[
        "BSD-", "MIT-", "HPND", "X11", "ISC", "PSF-", "Unicode-", "bzip2-", "libpng",
    ];
    const NAMES: &[&str] = &[
        "curl", "IJG", "TCL", "ICU", "NTP", "FSFAP", "FSFUL", "FSFULLR", "Info-ZIP",
    ];
    STARTS.iter().any(|start| name.starts_with(start)) || NAMES.contains(&name)
}

/// A licence that is not on the list, by the beginning of what its package calls it.
fn of_named(name: &str) -> LicenseCategory {
    let lower = name.to_ascii_lowercase();
    if lower.starts_with("public-domain") {
        return LicenseCategory::PublicDomain;
    }
    if ["unlicensed", "proprietary", "commercial"]
        .iter()
        .any(|word| lower.starts_with(word))
    {
        return LicenseCategory::Proprietary;
    }
    // Without a version, or with an exception that the list does not know: that much is certain.
    for (start, category) in [
        ("agpl", LicenseCategory::NetworkCopyleft),
        ("lgpl", LicenseCategory::WeakCopyleft),
        ("gpl", LicenseCategory::Copyleft),
    ] {
        if lower.starts_with(start) {
            return category;
        }
    }
    LicenseCategory::Unknown
}
