//! What a container is like that is killed, stands still or is cut off, in words and by its mark.

use model::runtime::ActionKind;
use oci::Engine;

use super::Responder;
use crate::response::{
    container::Found,
    group::Group,
    journal::{Entry, State},
    mark,
    needs::Need,
    proc,
};

type Done = anyhow::Result<Option<(State, String)>>;

// === impl Responder ===

impl Responder {
    pub(super) async fn kill(&self, entry: &mut Entry, found: Found) -> Done {
        let again = found.restarts();
        if let Some(group) = found.group {
            self.cx.blocking(move || group.kill()).await??;
        }
        entry.after = Some("no process".to_owned());
        let again = again.map_or_else(String::new, |who| format!("; {who} starts it again"));
        let detail = format!("all its processes are killed{again}");
        Ok(Some((State::Over, detail)))
    }

    /// It is frozen or cut off by now, as its response wants it.
    pub(super) async fn held(&self, entry: &mut Entry, found: &Found) -> Done {
        let is_paused = entry.response.action.kind() == ActionKind::Pause;
        let is_still = entry.response.action.kind() != ActionKind::Quarantine;
        let (after, mut detail) = if is_still {
            ("frozen", "it stands still".to_owned())
        } else {
            let detail = "it speaks with nobody but those of the list";
            ("cut off", detail.to_owned())
        };
        if entry.after.is_none() {
            entry.after = Some(after.to_owned());
        }
        if is_paused && found.restarts() == Some(Engine::Containerd.as_str()) {
            detail.push_str("; containerd may start it again");
        }
        if entry.response.action.kind() == ActionKind::Quarantine {
            let pids = found.group.as_ref().map(Group::pids).unwrap_or_default();
            if pids.into_iter().any(proc::may_send_raw) {
                detail
                    .push_str(", but by packet sockets: it has `CAP_NET_RAW`, so pause it as well");
            }
            detail.push_str(&self.mark(entry, found).await?);
        }
        Ok(Some((State::InForce, detail)))
    }

    /// Marks a container in quarantine, once; says what came of it.
    async fn mark(&self, entry: &mut Entry, found: &Found) -> anyhow::Result<String> {
        let id = &entry.response.container;
        let is_new = entry.state != State::InForce;
        if !is_new && !entry.unmarked {
            return Ok(String::new());
        }
        let asked_now;
        let found = if is_new {
            found
        } else {
            asked_now = self.find(id).await?;
            &asked_now
        };
        let marked = mark::set(self.tools(), found, id, true).await;
        entry.unmarked = marked.is_err();
        Ok(match marked {
            Ok(marked) => format!("; {marked}"),
            Err(error) => format!("; it is not marked yet: {error:#}"),
        })
    }

    /// Takes the mark of a quarantine away, where no other one is left.
    pub(super) async fn unmark(&self, id: &str, need: &Need) -> anyhow::Result<String> {
        if need.cut.is_some() {
            return Ok(String::new());
        }
        let found = self.find(id).await?;
        if found.engine.is_none() {
            return Ok(String::new());
        }
        Ok(match mark::set(self.tools(), &found, id, false).await {
            Ok(marked) if marked.is_empty() => marked,
            Ok(marked) => format!("; {marked}"),
            Err(error) => format!("; its mark stays: {error:#}"),
        })
    }
}
