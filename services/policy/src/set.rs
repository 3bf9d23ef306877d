//! The policies in force, and which of them judge an image.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use model::{Known, Slug};

use crate::document::{DEFAULT, Policy};

/// The policies in force. There is always one of the name [`DEFAULT`].
#[derive(Clone, Debug)]
pub struct PolicySet {
    policies: BTreeMap<Slug, Arc<Policy>>,
    /// Names of documents that cannot be read and never could, so that nobody takes their verdicts
    /// for forgotten.
    unreadable: BTreeSet<Slug>,
}

/// A policy that judges an image, and why.
#[derive(Clone, Debug)]
pub struct Selected {
    /// The policy.
    pub policy: Arc<Policy>,
    /// The names of the image that select it, as `registry/repository`.
    pub repositories: Vec<String>,
}

// === impl PolicySet ===

impl PolicySet {
    /// These policies, with the built-in one where none is called [`DEFAULT`].
    pub fn new(policies: impl IntoIterator<Item = Policy>) -> Self {
        let builtin = Policy::builtin();
        let all = [builtin].into_iter().chain(policies);
        let policies = all
            .map(|policy| (policy.name.clone(), Arc::new(policy)))
            .collect();
        Self {
            policies,
            unreadable: BTreeSet::new(),
        }
    }

    /// Every policy, by name.
    pub fn all(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// A policy by its name.
    pub fn get(&self, name: &Slug) -> Option<&Arc<Policy>> {
        self.policies.get(name)
    }

    /// Puts a policy in place of the one of its name.
    pub fn put(&mut self, policy: Policy) {
        self.unreadable.remove(&policy.name);
        self.policies.insert(policy.name.clone(), Arc::new(policy));
    }

    /// Takes a policy out; the built-in one takes the place of [`DEFAULT`]. `revision` is that of
    /// the deletion, for revisions only grow.
    pub fn remove(&mut self, name: &Slug, revision: u64) {
        self.policies.remove(name);
        self.unreadable.remove(name);
        if name.as_str() == DEFAULT {
            self.put(Policy::builtin().at_revision(revision));
        }
    }

    /// Notes that a document cannot be read. The last one that could be stays in force.
    pub(crate) fn unreadable(&mut self, name: &Slug, revision: u64) {
        match self.policies.get(name) {
            // The built-in one, for want of a better.
            Some(policy) if policy.revision == 0 => {
                self.put(Policy::builtin().at_revision(revision));
            }
            Some(_) => {}
            None => {
                self.unreadable.insert(name.clone());
            }
        }
    }

    /// Whether verdicts under a policy of this name belong to somebody.
    pub(crate) fn knows(&self, name: &Slug) -> bool {
        self.policies.contains_key(name) || self.unreadable.contains(name)
    }

    /// The policies that judge an image with these names (`registry/repository`).
    ///
    /// Each name selects the first policy, by name, with a pattern that fits; [`DEFAULT`] where
    /// none does, and where the image has no name.
    pub fn select<'a>(&self, repositories: impl IntoIterator<Item = &'a str>) -> Vec<Selected> {
        let mut selected: BTreeMap<&Slug, BTreeSet<String>> = BTreeMap::new();
        for repository in repositories {
            let policy = self
                .policies
                .values()
                .find(|policy| policy.repositories.fits(repository));
            let name = policy.map_or(&self.default_policy().name, |policy| &policy.name);
            selected
                .entry(name)
                .or_default()
                .insert(repository.to_owned());
        }
        if selected.is_empty() {
            selected.insert(&self.default_policy().name, BTreeSet::new());
        }
        let policy = |name: &Slug| Arc::clone(&self.policies[name]);
        selected
            .into_iter()
            .map(|(name, repositories)| Selected {
                policy: policy(name),
                repositories: repositories.into_iter().collect(),
            })
            .collect()
    }

    /// The policies that judge an image as it is known now.
    pub(crate) fn of(&self, known: &Known) -> Vec<Selected> {
        let live = known
            .references
            .iter()
            .filter(|seen| seen.gone_at.is_none());
        let names: Vec<_> = live
            .map(|seen| format!("{}/{}", seen.registry, seen.repository))
            .collect();
        self.select(names.iter().map(String::as_str))
    }

    fn default_policy(&self) -> &Arc<Policy> {
        self.policies
            .get(DEFAULT)
            .expect("a set is never without it")
    }
}

impl Default for PolicySet {
    fn default() -> Self {
        Self::new([])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(name: &str, repositories: &str) -> Policy {
        Policy::parse(&format!("name: {name}\nrepositories: [{repositories}]")).unwrap()
    }

    fn set() -> PolicySet {
        PolicySet::new([
            policy("base", "r.example/base/*"),
            policy("web", "r.example/**"),
        ])
    }

    #[test]
    fn the_first_pattern_that_fits_selects_and_default_takes_the_rest() {
        let check = |repositories: &[&str], expected: &[(&str, &[&str])]| {
            let selected = set().select(repositories.iter().copied());
            let names = |one: &Selected| (one.policy.name.to_string(), one.repositories.clone());
            let selected: Vec<_> = selected.iter().map(names).collect();
            let expected: Vec<_> = expected
                .iter()
                .map(|(name, of)| {
                    (
                        (*name).to_owned(),
                        of.iter().map(|of| (*of).to_owned()).collect::<Vec<_>>(),
                    )
                })
                .collect();
            assert_eq!(selected, expected, "{repositories:?}");
        };
        check(&[], &[("default", &[])]);
        check(
            &["r.example/base/debian"],
            &[("base", &["r.example/base/debian"])],
        );
        check(
            &["r.example/shop/cart"],
            &[("web", &["r.example/shop/cart"])],
        );
        check(
            &["q.example/x", "r.example/b", "r.example/a", "r.example/a"],
            &[
                ("default", &["q.example/x"]),
                ("web", &["r.example/a", "r.example/b"]),
            ],
        );
    }

    #[test]
    fn default_is_never_missing() {
        let mut set = set();
        set.put(
            Policy::parse("name: default\nrules: []")
                .unwrap()
                .at_revision(4),
        );
        let name: Slug = DEFAULT.parse().unwrap();
        assert!(set.get(&name).unwrap().rules.is_empty());
        set.remove(&name, 9);
        let builtin = set.get(&name).unwrap();
        assert_eq!((builtin.rules.is_empty(), builtin.revision), (false, 9));
        set.remove(&"web".parse().unwrap(), 10);
        assert_eq!(set.all().count(), 2);
    }
}
