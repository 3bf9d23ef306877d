//! Makes a container be as it needs to be: frozen, cut off, blocked, or none of these any more.
//!
//! Doing it again changes nothing. What was frozen by us is noted in bpffs, beside what else is in
//! force: that outlives the agent and its files, and ends with the machine, as the freezing does.

use std::{collections::HashMap, path::Path};

use anyhow::{Context as _, ensure};

use super::{
    block,
    group::Group,
    needs::{Need, Needs, ranges},
    network::{self, Range},
    pins::Pins,
};
use crate::{cgroup::Layout, mounts::Mounts};

const FROZEN: &str = "frozen";

/// Puts needs into force.
#[derive(Debug)]
pub(crate) struct Enforcer {
    layout: Layout,
    pins: Pins,
    /// The lists that are in force, as far as this agent has put them there, and on which cgroup.
    cut: HashMap<String, (u64, Vec<Range>)>,
}

// === impl Enforcer ===

impl Enforcer {
    pub(crate) fn new(layout: &Layout, bpffs: &Path, name: &str) -> Self {
        Self {
            layout: layout.clone(),
            pins: Pins::new(bpffs, name),
            cut: HashMap::new(),
        }
    }

    /// Has a container stand still, or go on if we had it stand still.
    pub(crate) fn freeze(&self, container: &str, need: &Need) -> anyhow::Result<()> {
        let group = Group::of(&self.layout, container);
        let was_ours = self.pins.dir(FROZEN, container).exists();
        match group {
            Some(group) if need.frozen => {
                if let Err(error) = self.pins.make(FROZEN, container) {
                    // It is frozen all the same; only an agent that lost its files will not know
                    // that this was us.
                    tracing::warn!(%error, "`{container}` is frozen without a note: {error:#}");
                }
                if !group.is_frozen() {
                    group.freeze()?;
                }
                return Ok(());
            }
            Some(group) if was_ours && group.is_populated() => group.thaw()?,
            _ => {}
        }
        self.pins
            .remove(FROZEN, container)
            .context("forgetting that it was frozen")
    }

    /// Cuts a container off, or lets it speak again.
    pub(crate) fn cut(&mut self, container: &str, need: &Need) -> anyhow::Result<()> {
        let Some(peers) = &need.cut else {
            self.cut.remove(container);
            return network::mend(&self.pins, container);
        };
        let group = Group::of(&self.layout, container).context("it does not run")?;
        let wanted = (group.id, ranges(peers));
        let is_so = self.cut.get(container) == Some(&wanted);
        if is_so && network::is_cut(&self.pins, container) {
            return Ok(());
        }
        network::cut(&self.pins, container, &group.dir, &wanted.1)?;
        self.cut.insert(container.to_owned(), wanted);
        Ok(())
    }

    /// Blocks a container in the kernel, or not any more.
    pub(crate) fn block(&self, container: &str, need: &Need) -> anyhow::Result<()> {
        let Some(group) = Group::of(&self.layout, container) else {
            return Ok(());
        };
        if !need.blocked {
            block::clear(&self.pins, group.id);
            return Ok(());
        }
        ensure!(
            self.layout.v1.is_none(),
            "the kernel's part of it takes cgroups of v2"
        );
        let pid = group.pids().into_iter().min();
        let root = pid.and_then(Mounts::of).and_then(|mounts| mounts.root);
        block::set(&self.pins, &group, root.is_some())
    }

    /// Lets go of everything that nothing needs any more, whoever had put it into force. Without a
    /// guard nothing is held before its first program, though one that died may have left it so.
    pub(crate) fn sweep(&mut self, needs: &Needs, is_guarded: bool) {
        let left = (!is_guarded).then(|| Group::held(&self.layout));
        for group in left.into_iter().flatten() {
            if !needs.get(&group.container).is_some_and(|need| need.frozen) {
                note(&group.container, group.ask_freeze(false));
            }
            group.forget_held();
        }
        let nothing = Need::default();
        let need = |id: &String| needs.get(id).unwrap_or(&nothing);
        let cut = network::all(&self.pins);
        for id in cut.iter().filter(|id| need(id).cut.is_none()) {
            note(id, self.cut(id, &nothing));
        }
        let frozen = self.pins.list(FROZEN);
        for id in frozen.iter().filter(|id| !need(id).frozen) {
            note(id, self.freeze(id, &nothing));
        }
        let blocked = needs.iter().filter(|(_, need)| need.blocked);
        let groups = blocked.filter_map(|(id, _)| Group::of(&self.layout, id));
        let groups: Vec<u64> = groups.map(|group| group.id).collect();
        let left = block::all(&self.pins);
        for id in left.into_iter().filter(|id| !groups.contains(id)) {
            block::clear(&self.pins, id);
        }
        if groups.is_empty() {
            note("block", block::unload(&self.pins));
        }
    }

    /// How many packets and connections of a container were cut, and programs killed.
    pub(crate) fn counts(&self, container: &str) -> (Option<u64>, Option<u64>) {
        let group = Group::of(&self.layout, container);
        let killed = group.and_then(|group| block::count(&self.pins, group.id));
        (network::count(&self.pins, container), killed)
    }

    pub(crate) const fn pins(&self) -> &Pins {
        &self.pins
    }

    pub(crate) const fn layout(&self) -> &Layout {
        &self.layout
    }
}

fn note(id: &str, done: anyhow::Result<()>) {
    if let Err(error) = done {
        tracing::warn!(%error, "`{id}` cannot be let go: {error:#}");
    }
}
