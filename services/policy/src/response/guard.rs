//! What holds a response back.

use jiff::{SignedDuration, Timestamp};
use model::{
    Slug,
    runtime::{ActionKind, Guard, LedgerEntry, ResponseId, ResponseLedger},
};

use super::{
    census::{Census, Subject},
    decide::NAME_CHARS_MAX,
    document::{Limit, ResponsePolicy, ResponseRule, labels_fit, repository},
};

/// Namespaces that nothing is done to unless somebody says so.
const SYSTEM_NAMESPACES: [&str; 4] = [
    "kube-system",
    "kube-public",
    "kube-node-lease",
    "tidewaiter",
];
/// The label with which somebody protects a container.
const PROTECTED_LABEL: &str = "io.tidewaiter.protected";
/// How long replacements of an owner are counted.
const REPLACED_WITHIN: SignedDuration = SignedDuration::from_hours(1);

/// What a guard looks at.
#[derive(Clone, Copy)]
pub(crate) struct Sight<'a> {
    pub(crate) tenant: &'a Slug,
    pub(crate) census: &'a Census,
    pub(crate) ledger: &'a ResponseLedger,
    pub(crate) subject: &'a Subject,
    pub(crate) image: Option<model::Digest>,
    /// Whether documents can be signed.
    pub(crate) signs: bool,
    pub(crate) now: Timestamp,
}

// === impl Sight ===

impl Sight<'_> {
    /// What holds an action that a rule asks for.
    pub(crate) fn of_rule(
        &self,
        (policy, rule): (&ResponsePolicy, &ResponseRule),
        action: ActionKind,
        id: &ResponseId,
    ) -> Vec<Guard> {
        let mut guards = self.always(
            action,
            policy.keep,
            (rule.even_the_last, rule.even_protected),
        );
        if !rule.even_protected {
            guards.extend(self.protected_by(policy));
        }
        if changes(action) {
            let name = policy.rule_name(rule);
            guards.extend(self.limited(policy, &name, id));
            guards.extend(self.cools_down(&name, rule, id));
        }
        guards
    }

    /// What holds whatever asks for it: `even` the last, `even` protected.
    pub(crate) fn always(
        &self,
        action: ActionKind,
        keep: u32,
        (even_the_last, even_protected): (bool, bool),
    ) -> Vec<Guard> {
        let mut guards = Vec::new();
        if action != ActionKind::Observe && !self.signs {
            guards.push(Guard::NoKey);
        }
        if !even_protected && changes(action) {
            guards.extend(self.protected());
        }
        let may_count = action.takes_out() && !even_the_last;
        let may_protect = changes(action) && !even_protected;
        if !self.subject.is_reported && (may_count || may_protect) {
            guards.push(Guard::Unknown);
        }
        if may_count {
            let sight = (self.ledger, self.now);
            let running = self.census.others_serving(self.tenant, self.subject, sight);
            if running < keep {
                guards.push(Guard::LastInstance {
                    group: self.subject.group.clone(),
                    running,
                    needed: keep,
                });
            }
        }
        guards
    }

    fn protected(&self) -> Option<Guard> {
        let Subject {
            namespace,
            image_name,
            labels,
            owner,
            ..
        } = self.subject;
        let namespace = namespace.as_deref().unwrap_or_default();
        let image = repository(image_name);
        let own = image.rsplit('/').next().unwrap_or_default();
        let why = if SYSTEM_NAMESPACES.contains(&namespace) {
            format!("namespace `{namespace}`")
        } else if own.starts_with("tidewaiter") {
            format!("`{image}` is the fabric's own")
        } else if owner.as_deref() == Some("tidewaiter") {
            "it belongs to `tidewaiter`".to_owned()
        } else if labels
            .get(PROTECTED_LABEL)
            .is_some_and(|value| value == "true")
        {
            format!("label `{PROTECTED_LABEL}`")
        } else {
            return None;
        };
        Some(Guard::Protected { why })
    }

    fn protected_by(&self, policy: &ResponsePolicy) -> Option<Guard> {
        let protected = &policy.protected;
        let namespace = self.subject.namespace.as_deref().unwrap_or_default();
        let image = repository(&self.subject.image_name);
        let why = if protected.namespaces.fits(namespace) {
            format!("namespace `{namespace}` by policy `{}`", policy.name)
        } else if protected.images.fits(image) {
            format!("image `{image}` by policy `{}`", policy.name)
        } else if !protected.labels.is_empty()
            && labels_fit(&protected.labels, &self.subject.labels)
        {
            format!("its labels by policy `{}`", policy.name)
        } else {
            return None;
        };
        Some(Guard::Protected { why })
    }

    fn limited(&self, policy: &ResponsePolicy, rule: &str, id: &ResponseId) -> Vec<Guard> {
        let limits = &policy.limits;
        let node = &self.subject.node;
        let mut guards = Vec::new();
        let mut check = |scope: &str, limit: Limit, fits: &dyn Fn(&LedgerEntry) -> bool| {
            let count = self.containers(limit.per.0, id, fits);
            if count >= limit.max {
                guards.push(Guard::RateLimit {
                    scope: scope.to_owned(),
                    limit: limit.max,
                    window_s: limit.per.0.as_secs().unsigned_abs(),
                });
            }
        };
        check(&format!("rule `{rule}`"), limits.rule, &|entry| {
            entry.rule == rule
        });
        if let Some(image) = self.image {
            let of_image = |entry: &LedgerEntry| entry.image == Some(image);
            check("the image", limits.image, &of_image);
        }
        check(&format!("node `{node}`"), limits.node, &|entry| {
            entry.node == *node
        });
        check("the fleet", limits.fleet, &|_| true);
        guards
    }

    /// How many other containers something was ordered for by rules within a time.
    fn containers(
        &self,
        per: SignedDuration,
        id: &ResponseId,
        fits: &dyn Fn(&LedgerEntry) -> bool,
    ) -> u32 {
        let others = self.ledger.entries.iter().filter(|entry| {
            entry.response != *id
                && entry.container != self.subject.container
                && !entry.rule.is_empty()
                && self.now.duration_since(entry.at) < per
                && fits(entry)
        });
        let containers: std::collections::BTreeSet<&str> =
            others.map(|entry| &*entry.container).collect();
        u32::try_from(containers.len()).unwrap_or(u32::MAX)
    }

    fn cools_down(&self, name: &str, rule: &ResponseRule, id: &ResponseId) -> Option<Guard> {
        let Subject {
            node, name: called, ..
        } = self.subject;
        if called.is_empty() {
            return None;
        }
        let called: String = called.chars().take(NAME_CHARS_MAX).collect();
        let same = self.ledger.entries.iter().filter(|entry| {
            entry.response != *id
                && entry.rule == name
                && entry.node == *node
                && entry.name == called
                && entry.container != self.subject.container
        });
        let until = same.filter_map(|entry| entry.at.checked_add(rule.cool_down.0).ok());
        let until = until.max().filter(|until| *until > self.now)?;
        Some(Guard::CoolDown { until })
    }

    /// Whether the owner had enough containers replaced within the last hour.
    pub(crate) fn replaced_too_often(&self, limit: u32, id: &ResponseId) -> Option<Guard> {
        let group = self.subject.group.clone();
        let replaced = self.ledger.entries.iter().filter(|entry| {
            entry.response != *id
                && entry.action == ActionKind::Replace
                && entry.group == group
                && self.now.duration_since(entry.at) < REPLACED_WITHIN
        });
        let count = u32::try_from(replaced.count()).unwrap_or(u32::MAX);
        (count >= limit).then_some(Guard::ReplacedTooOften { group, limit })
    }
}

/// Whether an action changes what the container does: then it is protected from it, and limits
/// count it.
pub(crate) const fn changes(action: ActionKind) -> bool {
    action.takes_out() || matches!(action, ActionKind::Block)
}
