//! Containers that are started again while something is in force for them.
//!
//! Such a container has the same id and another cgroup, and what was in force ended with the old
//! one. It is put into force again, and that is told. The guard holds the container before its first
//! program meanwhile, where the kernel asks about that; otherwise its cgroup is looked at often, and
//! the first moments are lost. One that is stopped is not forgotten until its engine has removed it
//! or the response is over.

use model::runtime::ActionKind;

use super::Responder;
use crate::response::{
    group::Group,
    journal::{Entry, State},
    needs::{Need, Needs, lasts},
};

/// Where a container is that something shall be in force for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In the cgroup that it was in.
    Same,
    /// In another one, of this id.
    Other(u64),
    /// In another one, where no program of it runs yet.
    Starting,
    /// It does not run.
    Nowhere,
}

// === impl Responder ===

impl Responder {
    /// Where the container of a response is now.
    pub(super) async fn place(&mut self, id: &str, entry: &Entry) -> anyhow::Result<Place> {
        let container = id.to_owned();
        let before = entry.cgroup;
        let found = self
            .with_enforcer(move |enforcer| {
                let group = Group::of(enforcer.layout(), &container);
                let group = group.filter(Group::is_populated);
                Ok(group.map(|group| {
                    let is_same = before.is_none_or(|before| before == group.id);
                    let has_begun = is_same || group.has_begun();
                    (group, is_same, has_begun)
                }))
            })
            .await?;
        let Some((group, is_same, has_begun)) = found else {
            if let Some((_, cgroup)) = self.places.get_mut(id) {
                *cgroup = None;
            }
            return Ok(Place::Nowhere);
        };
        let seen = has_begun.then_some(group.id);
        self.places.insert(id.to_owned(), (group.dir, seen));
        Ok(match (is_same, has_begun) {
            (true, _) => Place::Same,
            (false, true) => Place::Other(group.id),
            (false, false) => Place::Starting,
        })
    }

    /// Whether a container ended or was started again since that was looked at last.
    pub(super) fn has_moved(&mut self) -> bool {
        let mut has_moved = false;
        for (dir, cgroup) in self.places.values_mut() {
            let now = Group::running_at(dir);
            has_moved |= now != *cgroup;
            *cgroup = now;
        }
        has_moved
    }

    /// Lets go on what the guard holds and is as it shall be.
    pub(super) async fn let_go(&mut self, needs: &Needs) {
        let places = &self.places;
        // Killed meanwhile, as by the start gate.
        let is_there = |id: &String, cgroup: u64| {
            places
                .get(id)
                .is_none_or(|(dir, _)| Group::running_at(dir) == Some(cgroup))
        };
        self.held.retain(|id, cgroup| is_there(id, *cgroup));
        let is_ready = |id: &String, cgroup: u64| {
            let mut entries = self.journal.kept.entries.values();
            let lasts = needs.get(id).is_some_and(Need::lasts);
            !lasts || entries.all(|entry| is_as_it_shall_be(entry, id, cgroup))
        };
        let ready = self
            .held
            .iter()
            .filter(|(id, cgroup)| is_ready(id, **cgroup));
        let ready: Vec<(String, u64)> = ready.map(|(id, cgroup)| (id.clone(), *cgroup)).collect();
        if ready.is_empty() {
            return;
        }
        let cgroups: Vec<u64> = ready.iter().map(|(_, cgroup)| *cgroup).collect();
        self.pass(&cgroups).await;
        for (id, _) in ready {
            self.held.remove(&id);
        }
    }

    /// What is said of a response whose container is gone for good.
    pub(super) fn end_of(&mut self, entry: &Entry) -> String {
        let mut detail = "the container is gone, and its engine knows it no more".to_owned();
        if entry.response.action.kind() == ActionKind::Block {
            let denied = self.denied_in_all(&entry.response.container, &entry.response.id);
            detail = format!("{detail}; {denied} files were denied");
        }
        detail
    }
}

/// Whether what an entry wants of a container, if it wants anything, is in force on its cgroup.
fn is_as_it_shall_be(entry: &Entry, container: &str, cgroup: u64) -> bool {
    let is_about_it = entry.response.container == container && lasts(&entry.response.action);
    match entry.state {
        State::InForce => !is_about_it || entry.cgroup == Some(cgroup),
        State::Begun | State::Failed => !is_about_it,
        State::Over | State::Lifting => true,
    }
}
