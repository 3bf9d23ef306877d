//! One response: begun, carried out, lifted. Each step is on disk before it is done, and told after.

use std::fs;

use anyhow::{Context as _, ensure};
use chassis::files::read_bounded;
use model::{
    Digest,
    runtime::{
        Action, ActionKind, EvidenceObject, FORENSIC_BYTES_MAX, Mode, Phase, Refusal, Response,
        ResponseId, ResponseReported, forensic_objects,
    },
};

use super::{FAILURES_TOLD, Responder, again::Place, evidence_dir};
use crate::response::{
    container::{self, Found},
    evidence,
    journal::{self, Entry, State},
    needs::{Need, Needs, lasts},
    replace::{self, Way},
};

/// What a block does.
const NOTHING_ELSE: &str =
    "no program, library or script runs in it whose file its image does not hold";

// === impl Responder ===

impl Responder {
    /// Begins a response that is new, or says why it is not for this node.
    pub(super) async fn begin(
        &mut self,
        response: &Response,
        generation: u64,
    ) -> anyhow::Result<()> {
        if self.journal.kept.entries.contains_key(&response.id) {
            return Ok(());
        }
        let found = self.find(&response.container).await?;
        let mut entry = Entry {
            response: response.clone(),
            generation,
            state: State::Over,
            attempt: 0,
            before: Some(before(&found)),
            after: None,
            evidence: None,
            denied: 0,
            cgroup: found.group.as_ref().map(|group| group.id),
            again: 0,
            unmarked: false,
        };
        if let Some(refusal) = self.refusal(response, &found).await {
            tracing::warn!(
                container.id = response.container,
                "`{}` of `{}` is refused: {refusal}",
                response.action.kind(),
                response.container
            );
            let report = ResponseReported {
                response: Some(response.id.clone()),
                incident: response.incident.clone(),
                container: response.container.clone(),
                action: Some(response.action.kind()),
                mode: response.mode,
                refusal: Some(refusal),
                generation,
                before: entry.before.clone(),
                ..self.blank(Phase::Refused)
            };
            self.tell(report).await;
            return self.journal.note(entry);
        }
        if response.mode == Mode::DryRun {
            let detail = would_have(&response.action, &found);
            self.tell_of(&entry, Phase::WouldHave, Some(detail)).await;
            return self.journal.note(entry);
        }
        entry.state = State::Begun;
        self.journal.note(entry.clone())?;
        self.tell_of(&entry, Phase::Started, None).await;
        Ok(())
    }

    pub(super) async fn find(&self, id: &str) -> anyhow::Result<Found> {
        let layout = self.with_enforcer(|enforcer| Ok(enforcer.layout().clone()));
        let layout = layout.await?;
        Ok(container::find(&self.cx, &self.engines, &layout, id).await)
    }

    async fn refusal(&self, response: &Response, found: &Found) -> Option<Refusal> {
        let action = response.action.kind();
        if !self.config.actions.contains(&action) {
            return Some(Refusal::NotAllowed { action });
        }
        if let Some(refusal) = found.refuses(response) {
            return Some(refusal);
        }
        if action != ActionKind::Replace {
            return None;
        }
        match replace::way(self.tools(), found, &response.container).await {
            Ok(way) => way.err(),
            Err(error) => {
                // Whoever knows is away: it is asked again when it is done.
                tracing::debug!(%error, "how it is replaced is not known yet: {error:#}");
                None
            }
        }
    }

    /// Does what was begun, or sees that what is in force still is.
    pub(super) async fn carry_out(&mut self, id: &ResponseId, needs: &Needs) -> anyhow::Result<()> {
        let Some(entry) = self.journal.kept.entries.get(id).cloned() else {
            return Ok(());
        };
        if matches!(entry.state, State::Over | State::Lifting) {
            return Ok(());
        }
        let mut next = entry.clone();
        let done = self.act(&mut next, needs).await;
        match done {
            Ok(Some((state, detail))) => {
                let is_new = entry.state != State::InForce || next.again != entry.again;
                next.state = state;
                // However often it was tried, it is done once, and told under one name.
                next.attempt = next.again;
                if is_new {
                    tracing::info!(
                        container.id = next.response.container,
                        "`{}` of `{}` is done: {detail}",
                        next.response.action.kind(),
                        next.response.container
                    );
                    self.tell_of(&next, Phase::Done, Some(detail)).await;
                } else if state == State::Over {
                    self.tell_of(&next, Phase::Lifted, Some(detail)).await;
                }
                if next != entry {
                    let is_over = next.state == State::Over;
                    let evidence = next.evidence.clone().filter(|_| is_over);
                    self.journal.note(next)?;
                    // Not before: whoever is stopped in between finds it and stores it again.
                    self.forget(evidence.as_ref());
                }
            }
            // It goes on another time.
            Ok(None) => {
                if next != entry {
                    self.journal.note(next)?;
                }
            }
            Err(error) => {
                next.attempt = entry.attempt.saturating_add(1);
                next.state = State::Failed;
                tracing::warn!(
                    %error,
                    container.id = next.response.container,
                    "`{}` of `{}` failed: {error:#}",
                    next.response.action.kind(),
                    next.response.container
                );
                if next.attempt.saturating_sub(next.again) <= FAILURES_TOLD {
                    let detail = format!("{error:#}");
                    self.tell_of(&next, Phase::Failed, Some(detail)).await;
                }
                self.journal.note(next)?;
            }
        }
        Ok(())
    }

    /// Does it; `None` where something that is not ours is missing now.
    async fn act(
        &mut self,
        entry: &mut Entry,
        needs: &Needs,
    ) -> anyhow::Result<Option<(State, String)>> {
        let id = entry.response.container.clone();
        let need = needs.get(&id).cloned().unwrap_or_default();
        let was_in_force = entry.state == State::InForce;
        let place = self.place(&id, entry).await?;
        let is_in_force = was_in_force && place == Place::Same;
        let found = if is_in_force {
            Found::default()
        } else {
            self.find(&id).await?
        };
        match place {
            Place::Nowhere if was_in_force && found.is_gone => {
                self.settle(&id, &Need::default()).await?;
                return Ok(Some((State::Over, self.end_of(entry))));
            }
            // It may be started again, and is then what it was.
            Place::Nowhere if was_in_force => return Ok(None),
            Place::Starting => {
                // Nobody waits for what sends nothing; the rest comes with its first program.
                self.with_enforcer(move |enforcer| enforcer.cut(&id, &need))
                    .await?;
                return Ok(None);
            }
            Place::Other(cgroup) => {
                entry.cgroup = Some(cgroup);
                entry.again = entry.again.saturating_add(u32::from(was_in_force));
            }
            _ => {}
        }
        let kind = entry.response.action.kind();
        // A replacement knows itself what it needs of the old one.
        let takes_one = lasts(&entry.response.action) && kind != ActionKind::Replace;
        ensure!(!takes_one || place != Place::Nowhere, "it does not run");
        match kind {
            ActionKind::Observe => Ok(Some((State::Over, "it is written down".to_owned()))),
            ActionKind::CollectEvidence => self.collect(entry, &found).await,
            ActionKind::Kill => self.kill(entry, found).await,
            ActionKind::Replace if entry.after.is_none() => {
                let way = self.way(&found, &id).await?;
                self.settle(&id, &need).await?;
                let replaced = replace::replace(self.tools(), &found, way).await?;
                entry.after = Some(replaced.after);
                Ok(Some((State::InForce, replaced.detail)))
            }
            ActionKind::Block => {
                let failed = self.failed.iter().find(|(failed, _)| *failed == id);
                if let Some((_, why)) = failed {
                    anyhow::bail!("the guard cannot guard it: {why}");
                }
                let missing = self.settle(&id, &need).await?;
                entry.after = Some("blocked".to_owned());
                let detail = missing.map_or_else(
                    || NOTHING_ELSE.to_owned(),
                    |why| format!("files are denied; what runs from memory is not: {why}"),
                );
                Ok(Some((State::InForce, again(entry, detail))))
            }
            ActionKind::Pause | ActionKind::Quarantine | ActionKind::Replace => {
                self.settle(&id, &need).await?;
                let held = self.held(entry, &found).await?;
                Ok(held.map(|(state, detail)| (state, again(entry, detail))))
            }
            ActionKind::StartGate => Ok(Some((State::Over, "it is no response".to_owned()))),
        }
    }

    /// How a container is replaced; what is refused now was not known when it was begun.
    async fn way(&self, found: &Found, id: &str) -> anyhow::Result<Way> {
        let way = replace::way(self.tools(), found, id).await?;
        way.map_err(|refusal| anyhow::anyhow!("{refusal}"))
    }

    /// Makes a container be as it needs to be; tells what of a block the kernel does not do.
    async fn settle(&self, id: &str, need: &Need) -> anyhow::Result<Option<String>> {
        let (id, need) = (id.to_owned(), need.clone());
        self.with_enforcer(move |enforcer| {
            // Cut off first: what stands still sends nothing, but the kernel still answers for it.
            enforcer.cut(&id, &need)?;
            enforcer.freeze(&id, &need)?;
            let blocked = enforcer.block(&id, &need);
            Ok(blocked.err().map(|error| format!("{error:#}")))
        })
        .await
    }

    /// Collects evidence once, and stores it as soon as NATS takes it.
    async fn collect(
        &mut self,
        entry: &mut Entry,
        found: &Found,
    ) -> anyhow::Result<Option<(State, String)>> {
        let dir = evidence_dir(&self.dir);
        let object = if let Some(object) = entry.evidence.clone() {
            object
        } else {
            fs::create_dir_all(&dir)?;
            let (found, bytes_max) = (found.clone(), self.config.evidence_bytes_max);
            let collecting = self
                .cx
                .blocking(move || evidence::collect(&found, bytes_max));
            let collected = collecting.await??;
            let object = EvidenceObject {
                digest: Digest::of(&collected.bytes),
                bytes: collected.bytes.len() as u64,
                media_type: collected.media_type.to_owned(),
            };
            journal::keep(&dir, &object.digest.hex(), &collected.bytes)?;
            entry.evidence = Some(object.clone());
            entry.after = Some(collected.summary);
            self.journal.note(entry.clone())?;
            object
        };
        let file = dir.join(object.digest.hex());
        let bytes = read_bounded(&file, FORENSIC_BYTES_MAX).context("the evidence on disk")?;
        let (now, bytes_max) = (self.cx.now(), self.config.evidence_bytes_per_hour_max);
        if !self.journal.kept.may_store(now, object.bytes, bytes_max) {
            tracing::info!(
                container.id = entry.response.container,
                "{} bytes of evidence wait on disk: this node stored as much as it may in an hour",
                object.bytes
            );
            return Ok(None);
        }
        let bucket = forensic_objects(&self.tenant, &self.node);
        let store = self.bus.store();
        let stored = tokio::time::timeout(
            super::STORE_MAX,
            store.put_object_bytes(&bucket, bytes.into()),
        );
        match stored.await {
            Ok(Ok(_)) => {
                let at = self.cx.now();
                self.journal.kept.stored.push((at, object.bytes));
                Ok(Some((State::Over, "what there was is stored".to_owned())))
            }
            Ok(Err(error)) => {
                tracing::debug!(%error, "the evidence waits on disk: {error}");
                Ok(None)
            }
            Err(_) => Ok(None),
        }
    }

    /// Undoes what is not wanted any more.
    pub(super) async fn lift(&mut self, entry: Entry, needs: &Needs) -> anyhow::Result<()> {
        let response = &entry.response;
        let id = response.container.clone();
        let was_done = entry.state != State::Over;
        if was_done {
            let counts = {
                let id = id.clone();
                self.with_enforcer(move |enforcer| Ok(enforcer.counts(&id)))
                    .await?
            };
            let mut detail = match self.undo(&entry, needs).await {
                Ok(detail) => detail,
                Err(error) => return self.not_lifted(entry, &error).await,
            };
            match (response.action.kind(), counts) {
                (ActionKind::Quarantine, (Some(cut), _)) => {
                    detail = format!("{detail}; {cut} packets and connections were cut");
                }
                (ActionKind::Block, (_, killed)) => {
                    let denied = self.denied_in_all(&id, &response.id);
                    let killed = killed.unwrap_or(0);
                    detail = format!("{detail}; {denied} files were denied, {killed} were killed");
                }
                _ => {}
            }
            tracing::info!(
                container.id = id,
                "`{}` of `{id}` is lifted: {detail}",
                response.action.kind()
            );
            self.tell_of(&entry, Phase::Lifted, Some(detail)).await;
        }
        // Where it was not stored in time, nobody wants it any more.
        self.forget(entry.evidence.as_ref());
        self.journal.kept.entries.remove(&response.id);
        self.journal.keep()
    }

    /// What cannot be undone now is tried again, as what cannot be done.
    async fn not_lifted(&mut self, mut entry: Entry, error: &anyhow::Error) -> anyhow::Result<()> {
        entry.state = State::Lifting;
        entry.attempt = entry.attempt.saturating_add(1);
        let kind = entry.response.action.kind();
        let id = &entry.response.container;
        tracing::warn!(
            %error,
            container.id = id,
            "`{kind}` of `{id}` cannot be lifted yet: {error:#}"
        );
        if entry.attempt.saturating_sub(entry.again) <= FAILURES_TOLD {
            let detail = format!("it is not lifted yet: {error:#}");
            self.tell_of(&entry, Phase::Failed, Some(detail)).await;
        }
        self.journal.note(entry)
    }

    /// Removes evidence from the disk, if it is there.
    fn forget(&self, evidence: Option<&EvidenceObject>) {
        if let Some(object) = evidence {
            let name = object.digest.hex();
            drop(fs::remove_file(evidence_dir(&self.dir).join(name)));
        }
    }

    async fn undo(&mut self, entry: &Entry, needs: &Needs) -> anyhow::Result<String> {
        let id = entry.response.container.clone();
        let need = needs.get(&id).cloned().unwrap_or_default();
        if entry.response.action == Action::Replace && entry.after.is_some() {
            // Two that serve the same would be worse than none: the old one never goes on.
            let found = self.find(&id).await?;
            replace::end(self.tools(), &found).await;
            let again = found.restarts();
            if let Some(group) = found.group {
                self.cx.blocking(move || group.kill()).await??;
            }
            self.settle(&id, &Need::default()).await?;
            // Its engine was told that it ends for good; a pod's is kubelet's.
            let again = again.filter(|who| *who == container::KUBELET);
            let again = again.map_or_else(String::new, |who| {
                format!("; {who} starts it again until its pod is deleted")
            });
            return Ok(format!(
                "the old one is killed, its files stay; the new one serves{again}"
            ));
        }
        self.settle(&id, &need).await?;
        let mut detail = if need == Need::default() {
            "it is as it was".to_owned()
        } else {
            "other responses to it go on".to_owned()
        };
        if entry.response.action.kind() == ActionKind::Quarantine {
            detail.push_str(&self.unmark(&id, &need).await?);
        }
        Ok(detail)
    }
}

/// What there is to say of what was put into force, perhaps once more.
fn again(entry: &Entry, detail: String) -> String {
    if entry.again == 0 {
        return detail;
    }
    format!("the container was started again: {detail}")
}

fn before(found: &Found) -> String {
    match &found.group {
        None => "not running".to_owned(),
        Some(group) if group.is_frozen() => "frozen".to_owned(),
        Some(_) => "running".to_owned(),
    }
}

fn would_have(action: &Action, found: &Found) -> String {
    let count = found.group.as_ref().map_or(0, |group| group.pids().len());
    let what = match action {
        Action::Observe => "written it down".to_owned(),
        Action::CollectEvidence => format!("described {count} processes and what they changed"),
        Action::Pause => format!("frozen {count} processes"),
        Action::Quarantine { allow } => {
            let allow: Vec<String> = allow.iter().map(ToString::to_string).collect();
            format!("cut {count} processes off, but for [{}]", allow.join(", "))
        }
        Action::Block => "denied every file that its image does not hold".to_owned(),
        Action::Kill => format!("killed {count} processes"),
        Action::Replace => "made a fresh container of its image and frozen this one".to_owned(),
    };
    format!("would have {what}")
}
