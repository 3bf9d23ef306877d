//! What is reached from where: which packages are needed for development only, where a file marks
//! the roots alone.

use std::collections::{HashMap, HashSet};

/// Who needs whom, by number.
#[derive(Default)]
pub(super) struct Graph {
    needs: Vec<Vec<usize>>,
    by_key: HashMap<String, usize>,
    roots: HashSet<usize>,
    roots_for_development: HashSet<usize>,
}

impl Graph {
    /// The number of a node; the first of a key counts.
    pub(super) fn node(&mut self, key: &str) -> usize {
        let next = self.needs.len();
        let number = *self.by_key.entry(key.to_owned()).or_insert(next);
        if number == next {
            self.needs.push(Vec::new());
        }
        number
    }

    /// Notes that one needs the other.
    pub(super) fn edge(&mut self, from: usize, to: usize) {
        if let Some(needs) = self.needs.get_mut(from) {
            needs.push(to);
        }
    }

    /// Notes that somebody asked for it.
    pub(super) fn root(&mut self, node: usize, dev: bool) {
        if dev {
            self.roots_for_development.insert(node);
        } else {
            self.roots.insert(node);
        }
    }

    /// Whether somebody asked for it.
    pub(super) fn is_direct(&self, node: usize) -> bool {
        self.roots.contains(&node) || self.roots_for_development.contains(&node)
    }

    /// What is needed for development only; the others are needed at run time, or nobody knows.
    pub(super) fn development(&self) -> HashSet<usize> {
        let needed = self.reached(&self.roots);
        let mut only = self.reached(&self.roots_for_development);
        only.retain(|node| !needed.contains(node));
        only
    }

    fn reached(&self, roots: &HashSet<usize>) -> HashSet<usize> {
        let mut reached = HashSet::new();
        let mut due: Vec<usize> = roots.iter().copied().collect();
        while let Some(node) = due.pop() {
            if reached.insert(node) {
                due.extend(self.needs.get(node).into_iter().flatten());
            }
        }
        reached
    }
}
