//! A notification on its way out: one alert, or several that go together.

use std::cmp::Reverse;

use model::{AlertState, Fingerprint, Severity, Slug, event::Alert};

/// Alerts that a notification lists; of the others it says how many there are.
pub(crate) const LISTED_MAX: usize = 20;

/// A notification. It has one alert at least.
#[derive(Clone, Debug)]
pub(crate) struct Outgoing {
    /// The same on every copy: of one alert its own, of several computed from theirs.
    pub(crate) id: String,
    pub(crate) tenant: Slug,
    /// What they have in common, in words; absent for one alert.
    pub(crate) about: Option<String>,
    /// The worst first.
    items: Vec<Item>,
}

/// An alert with its id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Item {
    /// Its CloudEvents id.
    pub(crate) id: String,
    pub(crate) alert: Alert,
}

// === impl Outgoing ===

impl Outgoing {
    /// One alert by itself.
    pub(crate) fn one(tenant: &Slug, item: Item) -> Self {
        Self {
            id: item.id.clone(),
            tenant: tenant.clone(),
            about: None,
            items: vec![item],
        }
    }

    /// Several alerts of one sink; `None` for none. The order in which they came does not matter.
    pub(crate) fn several(
        sink: &Slug,
        tenant: &Slug,
        about: String,
        mut items: Vec<Item>,
    ) -> Option<Self> {
        items.sort_by(|a, b| a.id.cmp(&b.id));
        items.dedup_by(|a, b| a.id == b.id);
        if items.len() < 2 {
            return items.pop().map(|item| Self::one(tenant, item));
        }
        let ids: Vec<&str> = items.iter().map(|item| item.id.as_str()).collect();
        let id = format!("alerts:{tenant}:{sink}:{}", Fingerprint::of(&ids));
        items.sort_by_key(|item| Reverse((item.is_raised(), item.alert.severity)));
        Some(Self {
            id,
            tenant: tenant.clone(),
            about: Some(about),
            items,
        })
    }

    /// The alert, where it is one by itself.
    pub(crate) fn single(&self) -> Option<&Item> {
        match (self.items.as_slice(), &self.about) {
            ([item], None) => Some(item),
            _ => None,
        }
    }

    /// The alerts to list, worst first, and how many more there are.
    pub(crate) fn listed(&self) -> (&[Item], usize) {
        let end = self.items.len().min(LISTED_MAX);
        let (listed, more) = self.items.split_at(end);
        (listed, more.len())
    }

    /// How many alerts there are.
    pub(crate) fn total(&self) -> usize {
        self.items.len()
    }

    /// How bad the worst is.
    pub(crate) fn severity(&self) -> Severity {
        let raised = self.items.iter().filter(|item| item.is_raised());
        let of_all = || self.items.iter().map(|item| item.alert.severity).max();
        let worst = raised.map(|item| item.alert.severity).max();
        worst.or_else(of_all).unwrap_or_default()
    }

    /// Whether anything in it stands.
    pub(crate) fn is_raised(&self) -> bool {
        self.items.iter().any(Item::is_raised)
    }

    /// When the last of it happened.
    pub(crate) fn at(&self) -> jiff::Timestamp {
        let at = self.items.iter().map(|item| item.alert.at).max();
        at.unwrap_or_default()
    }

    /// One line that says it all.
    pub(crate) fn title(&self) -> String {
        if let Some(item) = self.single() {
            return item.title();
        }
        let raised = self.items.iter().filter(|item| item.is_raised()).count();
        let resolved = self.items.len() - raised;
        let about = self.about.as_deref().unwrap_or_default();
        let counts = match (raised, resolved) {
            (raised, 0) => format!("{raised} alerts"),
            (0, resolved) => format!("{resolved} alerts resolved"),
            (raised, resolved) => format!("{raised} alerts and {resolved} resolved"),
        };
        format!("{counts}: {about}")
    }
}

// === impl Item ===

impl Item {
    /// Whether it stands.
    pub(crate) fn is_raised(&self) -> bool {
        self.alert.state == AlertState::Raised
    }

    /// The alert's title, with what happened to it.
    pub(crate) fn title(&self) -> String {
        let title = &self.alert.title;
        match (self.alert.state, self.alert.reminder) {
            (AlertState::Raised, 0) => title.clone(),
            (AlertState::Raised, number) => format!("Still so ({number}): {title}"),
            (AlertState::Resolved, _) => format!("Resolved: {title}"),
        }
    }
}

/// At most `max` characters, with an ellipsis where something is cut off.
pub(crate) fn clip(text: &str, max: usize) -> String {
    if text.char_indices().nth(max).is_none() {
        text.to_owned()
    } else {
        let kept: String = text.chars().take(max.saturating_sub(1)).collect();
        format!("{kept}…")
    }
}
