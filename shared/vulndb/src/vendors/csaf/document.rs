//! The parts of a document that are read; everything else is passed over.

use std::borrow::Cow;

use model::FixState;
use serde::Deserialize;

pub(super) type Text<'a> = Cow<'a, str>;

#[derive(Deserialize)]
pub(super) struct Document<'a> {
    #[serde(borrow)]
    pub(super) document: Head<'a>,
    #[serde(borrow, default)]
    pub(super) product_tree: Tree<'a>,
    #[serde(borrow, default)]
    pub(super) vulnerabilities: Vec<Vulnerability<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Head<'a> {
    #[serde(borrow, default)]
    pub(super) aggregate_severity: Option<Words<'a>>,
    #[serde(borrow)]
    pub(super) tracking: Tracking<'a>,
}

#[derive(Deserialize)]
pub(super) struct Words<'a> {
    #[serde(borrow, default)]
    pub(super) text: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Tracking<'a> {
    #[serde(borrow)]
    pub(super) id: Text<'a>,
    #[serde(borrow, default)]
    pub(super) initial_release_date: Text<'a>,
    #[serde(borrow, default)]
    pub(super) current_release_date: Text<'a>,
}

#[derive(Default, Deserialize)]
pub(super) struct Tree<'a> {
    #[serde(borrow, default)]
    pub(super) branches: Vec<Branch<'a>>,
    #[serde(borrow, default)]
    pub(super) full_product_names: Vec<Product<'a>>,
    #[serde(borrow, default)]
    pub(super) relationships: Vec<Relationship<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Branch<'a> {
    #[serde(borrow, default)]
    pub(super) branches: Vec<Branch<'a>>,
    #[serde(borrow, default)]
    pub(super) product: Option<Product<'a>>,
}

/// A platform or a component.
#[derive(Deserialize)]
pub(in crate::vendors) struct Product<'a> {
    #[serde(borrow, default)]
    pub(in crate::vendors) name: Text<'a>,
    #[serde(borrow)]
    pub(super) product_id: Text<'a>,
    #[serde(borrow, default, rename = "product_identification_helper")]
    pub(in crate::vendors) helper: Helper<'a>,
}

#[derive(Default, Deserialize)]
pub(in crate::vendors) struct Helper<'a> {
    #[serde(borrow, default)]
    pub(in crate::vendors) cpe: Text<'a>,
    #[serde(borrow, default)]
    pub(super) purl: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Relationship<'a> {
    #[serde(borrow)]
    pub(super) full_product_name: Named<'a>,
    #[serde(borrow)]
    pub(super) product_reference: Text<'a>,
    #[serde(borrow)]
    pub(super) relates_to_product_reference: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Named<'a> {
    #[serde(borrow)]
    pub(super) product_id: Text<'a>,
}

#[derive(Deserialize)]
pub(super) struct Vulnerability<'a> {
    #[serde(borrow, default)]
    pub(super) cve: Option<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) title: Text<'a>,
    #[serde(borrow, default)]
    pub(super) release_date: Text<'a>,
    #[serde(borrow, default)]
    pub(super) product_status: Status<'a>,
    #[serde(borrow, default)]
    pub(super) remediations: Vec<Remark<'a>>,
    #[serde(borrow, default)]
    pub(super) threats: Vec<Remark<'a>>,
    #[serde(borrow, default)]
    pub(super) scores: Vec<Score<'a>>,
}

#[derive(Default, Deserialize)]
pub(super) struct Status<'a> {
    #[serde(borrow, default)]
    pub(super) fixed: Vec<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) recommended: Vec<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) known_affected: Vec<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) known_not_affected: Vec<Text<'a>>,
    #[serde(borrow, default)]
    pub(super) under_investigation: Vec<Text<'a>>,
}

/// A remediation or a threat: of some products, or of all.
#[derive(Deserialize)]
pub(super) struct Remark<'a> {
    #[serde(borrow, default)]
    pub(super) category: Text<'a>,
    #[serde(borrow, default)]
    pub(super) details: Text<'a>,
    #[serde(borrow, default)]
    pub(super) product_ids: Vec<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Score<'a> {
    #[serde(borrow, default)]
    pub(super) cvss_v2: Option<Vector<'a>>,
    #[serde(borrow, default)]
    pub(super) cvss_v3: Option<Vector<'a>>,
    #[serde(borrow, default)]
    pub(super) cvss_v4: Option<Vector<'a>>,
    #[serde(borrow, default)]
    pub(super) products: Vec<Text<'a>>,
}

#[derive(Deserialize)]
pub(super) struct Vector<'a> {
    #[serde(borrow, default, rename = "vectorString")]
    pub(super) text: Text<'a>,
}

// === impl Remark, Score ===

impl<'a> Remark<'a> {
    /// The products that it is about; the empty id for all.
    pub(super) fn ids(&'a self) -> impl Iterator<Item = &'a str> {
        let all = self.product_ids.is_empty().then_some("");
        self.product_ids.iter().map(|id| &**id).chain(all)
    }

    /// What it says of a fix; `None` where it is about something else.
    pub(super) fn state(&self) -> Option<FixState> {
        match &*self.category {
            "no_fix_planned" if self.details.starts_with("Out of support") => {
                Some(FixState::EndOfLife)
            }
            "no_fix_planned" => Some(FixState::WontFix),
            "none_available" => Some(FixState::NotFixed),
            _ => None,
        }
    }
}

impl<'a> Score<'a> {
    pub(super) fn vectors(&self) -> impl Iterator<Item = &Vector<'a>> {
        let all = [&self.cvss_v4, &self.cvss_v3, &self.cvss_v2];
        all.into_iter().flatten()
    }
}
