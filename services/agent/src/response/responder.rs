//! The loop: reads what shall be, compares it with what is, and makes the two equal.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Context as _;
use bus::{Bus, Outbox, SpoolError};
use chassis::Cx;
use model::{
    Slug,
    runtime::{
        ActionKind, Desired, Expected, Mode, Phase, Refusal, Response, ResponseId,
        ResponseReported, SignedDesired, StartGate,
    },
};
use oci::Engines;
use tokio::{sync::mpsc, time::Instant};

use self::denied::DeniedFiles;
use super::{
    block, container,
    enforce::Enforcer,
    gate,
    guard::orders::{Gate, Orders},
    journal::{Entry, Journal, State},
    keeper::{Failed, Keeper, News},
    kubernetes::Cluster,
    means,
    needs::{self, Need, Needs},
    reader::Reader,
    release,
    replace::Tools,
};
use crate::{
    cgroup::Layout,
    config::{Config, ResponseConfig},
    files::of_host,
};

mod act;
mod again;
mod denied;
mod hold;

/// How long storing evidence may take.
const STORE_MAX: Duration = Duration::from_secs(30);
/// News of the guard that may wait.
const NEWS_MAX: usize = 1_024;
/// Failures of one response that are told; it is tried as long as it lasts.
const FAILURES_TOLD: u32 = 3;
/// How often it is looked whether somebody lifted everything by hand.
const RELEASE_LOOK: Duration = Duration::from_secs(1);
/// How often it is looked whether a container was started again that something is in force for,
/// for where the kernel does not ask before it runs its first program.
const AGAIN_LOOK: Duration = Duration::from_millis(100);
/// How soon it is tried again where a container that is held cannot be let go on yet.
const HELD_AGAIN: Duration = Duration::from_secs(1);
/// Containers that were let start and are still named to the guard.
const PASSED_MAX: usize = 256;

/// What is worked with, and what is known.
pub(crate) struct Responder {
    cx: Cx,
    config: ResponseConfig,
    tenant: Slug,
    node: Slug,
    dir: PathBuf,
    engines: Engines,
    cluster: Option<Cluster>,
    enforcer: Arc<Mutex<Enforcer>>,
    keeper: Keeper,
    bus: Bus,
    outbox: Outbox,
    journal: Journal,
    desired: Option<Desired>,
    /// What the guard was told.
    orders: Orders,
    failed: Failed,
    /// Whether the kernel asks before a container's first program.
    can_hold: bool,
    /// Cgroups of containers that were held and may go on.
    passed: Vec<u64>,
    /// Containers that stand still before their first program until what shall be is in force; and
    /// the ids of their cgroups.
    held: BTreeMap<String, u64>,
    /// Where the cgroups are of containers that something is in force for, and which ones.
    places: BTreeMap<String, (PathBuf, Option<u64>)>,
    /// Files that did not run and were not told of, by container.
    denied: BTreeMap<String, DeniedFiles>,
}

/// Starts to do what the fabric says, where a key is configured.
pub(crate) fn start(
    cx: &Cx,
    config: &Config,
    node: &Slug,
    layout: &Layout,
    (bus, outbox): (&Bus, &Outbox),
) -> anyhow::Result<()> {
    if config.response.keys.is_empty() {
        tracing::info!("no key in `response.keys`: nothing is ever done to a container here");
        return Ok(());
    }
    let dir = config.response_dir();
    let journal = Journal::open(&dir)?;
    let (news, news_in) = mpsc::channel(NEWS_MAX);
    let name = release::pins_name(&config.tenant, node);
    let responder = Responder {
        cx: cx.clone(),
        config: config.response.clone(),
        tenant: config.tenant.clone(),
        node: node.clone(),
        engines: config.engines.engines(),
        cluster: Cluster::of(&config.response.kubernetes)?,
        enforcer: Arc::new(Mutex::new(Enforcer::new(
            layout,
            &config.response.bpffs,
            &name,
        ))),
        keeper: Keeper::start(&dir, news),
        bus: bus.clone(),
        outbox: outbox.clone(),
        journal,
        desired: None,
        orders: Orders::default(),
        failed: Failed::new(),
        can_hold: means::can_hold(&config.response.runtimes),
        passed: Vec::new(),
        held: BTreeMap::new(),
        places: BTreeMap::new(),
        denied: BTreeMap::new(),
        dir,
    };
    let reader = Reader::new(bus, &config.tenant, node);
    let every = Duration::from_secs(config.response.reread_s);
    let (documents, documents_in) = mpsc::channel(1);
    cx.spawn("desired state", reader.run(cx.clone(), every, documents));
    cx.spawn("responder", responder.run(documents_in, news_in));
    Ok(())
}

// === impl Responder ===

impl Responder {
    async fn run(
        mut self,
        mut documents: mpsc::Receiver<SignedDesired>,
        mut news: mpsc::Receiver<News>,
    ) {
        // Before NATS is asked: what was taken before goes on.
        let before = self.journal.kept.document.as_ref();
        self.desired = before.and_then(|signed| signed.verified(&self.config.keys).ok());
        let cx = self.cx.clone();
        let (mut due, mut released) = (Instant::now(), None);
        while !cx.is_stopping() {
            // The guard would go on until the next round otherwise.
            let until = release::until(&self.dir);
            if Instant::now() >= due || until != released || self.has_moved() {
                released = until;
                self.round().await;
                due = Instant::now() + self.pause();
            }
            self.tell_denied().await;
            // News are no reason for a round: a container that tries again and again makes many.
            let wait = due.saturating_duration_since(Instant::now());
            let look = if self.places.is_empty() {
                RELEASE_LOOK
            } else {
                AGAIN_LOOK
            };
            tokio::select! {
                () = cx.stopped() => return,
                Some(signed) = documents.recv() => {
                    self.take(signed).await;
                    due = Instant::now();
                }
                Some(one) = news.recv() => {
                    self.hear(one).await;
                    for _ in 0..NEWS_MAX {
                        let Ok(one) = news.try_recv() else { break };
                        self.hear(one).await;
                    }
                    if !self.held.is_empty() {
                        due = Instant::now();
                    }
                }
                _ = cx.sleep(wait.min(self.until_denied()).min(look)) => {}
            }
        }
    }

    fn tools(&self) -> Tools<'_> {
        Tools {
            cx: &self.cx,
            engines: &self.engines,
            cluster: self.cluster.as_ref(),
        }
    }

    /// How long nothing has to be done: something may be over before.
    fn pause(&self) -> Duration {
        let reread = Duration::from_secs(self.config.reread_s);
        let now = self.cx.now();
        let active = self.desired.iter().flat_map(|desired| desired.active(now));
        let next = active.map(|response| response.expires_at).min();
        let next = next.and_then(|next| Duration::try_from(next.duration_since(now)).ok());
        // Somebody waits for what is to be put into force again.
        let reread = if self.held.is_empty() {
            reread
        } else {
            reread.min(HELD_AGAIN)
        };
        next.map_or(reread, |next| next.min(reread))
            .max(Duration::from_millis(50))
    }

    /// Takes a document, if it may be taken.
    async fn take(&mut self, signed: SignedDesired) {
        let document = model::Digest::of(signed.document.as_bytes());
        let seen = self.journal.kept.seen;
        if self.desired.is_some() && seen.is_some_and(|seen| seen.document == document) {
            return;
        }
        let opened = signed.open(&Expected {
            tenant: &self.tenant,
            node: &self.node,
            seen,
            keys: &self.config.keys,
            now: self.cx.now(),
        });
        let taken = match opened {
            Ok(desired) => {
                self.journal.kept.seen = Some(signed.seen(&desired));
                self.journal.kept.document = Some(signed);
                self.journal.kept.refused = None;
                let kept = self.journal.keep();
                self.desired = Some(desired);
                kept
            }
            Err(_) if self.journal.kept.refused == Some(document) => Ok(()),
            Err(refusal) => {
                tracing::warn!("the desired state of this node is refused: {refusal}");
                self.refuse_document(&signed, refusal).await;
                self.journal.kept.refused = Some(document);
                self.journal.keep()
            }
        };
        if let Err(error) = taken {
            self.broken(&error);
        }
    }

    async fn refuse_document(&mut self, signed: &SignedDesired, refusal: Refusal) {
        // As it says itself, which may be a lie.
        let claimed: Option<Desired> = serde_json::from_str(&signed.document).ok();
        let generation = claimed.map_or(0, |desired| desired.generation);
        let report = ResponseReported {
            refusal: Some(refusal),
            generation,
            ..self.blank(Phase::Refused)
        };
        self.tell(report).await;
    }

    /// Without a disk nothing can be promised: another agent may do better.
    fn broken(&self, error: &anyhow::Error) {
        tracing::error!(%error, "nothing can be kept on disk, stopping: {error:#}");
        self.cx.stop();
    }

    /// Makes what is equal to what shall be.
    async fn round(&mut self) {
        let untold = std::mem::take(&mut self.journal.kept.untold);
        for report in untold {
            self.tell(report).await;
        }
        if let Some(desired) = self.desired.clone()
            && let Err(error) = self.reconcile(&desired).await
        {
            self.broken(&error);
        }
    }

    async fn reconcile(&mut self, desired: &Desired) -> anyhow::Result<()> {
        let now = self.cx.now();
        let until = release::until(&self.dir);
        let is_wanted = |response: &&Response| until.is_none_or(|until| response.issued_at > until);
        let active: Vec<Response> = desired.active(now).filter(is_wanted).cloned().collect();
        let ids: BTreeSet<&ResponseId> = active.iter().map(|response| &response.id).collect();
        for response in &active {
            self.begin(response, desired.generation).await?;
        }
        let lifted: Vec<Entry> = self
            .journal
            .kept
            .entries
            .values()
            .filter(|entry| !ids.contains(&entry.response.id))
            .cloned()
            .collect();
        for mut entry in lifted.iter().cloned() {
            if entry.state != State::Over {
                entry.state = State::Lifting;
                self.journal.note(entry)?;
            }
        }
        let counted =
            self.journal.kept.entries.values().filter(|entry| {
                matches!(entry.state, State::Begun | State::Failed | State::InForce)
            });
        let needs = needs::of(counted.map(|entry| &entry.response));
        self.failed = self.guard(&needs, desired.start_gate.as_ref()).await;
        for response in &active {
            self.carry_out(&response.id, &needs).await?;
        }
        for entry in lifted {
            self.lift(entry, &needs).await?;
        }
        self.places
            .retain(|id, _| needs.get(id).is_some_and(Need::lasts));
        self.let_go(&needs).await;
        let is_guarded = self.orders.is_anything();
        self.with_enforcer(move |enforcer| {
            enforcer.sweep(&needs, is_guarded);
            Ok(())
        })
        .await
    }

    /// Works with the kernel, away from what else waits on this thread.
    async fn with_enforcer<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Enforcer) -> anyhow::Result<T> + Send + 'static,
    ) -> anyhow::Result<T> {
        let enforcer = Arc::clone(&self.enforcer);
        let done = self.cx.blocking(move || {
            let mut enforcer = enforcer.lock().unwrap_or_else(PoisonError::into_inner);
            work(&mut enforcer)
        });
        done.await.context("the work was given up")?
    }

    /// Tells the guard what there is to guard; returns what it cannot.
    async fn guard(&mut self, needs: &Needs, gate: Option<&StartGate>) -> Failed {
        let blocked = needs.iter().filter(|(_, need)| need.blocked);
        let is_allowed = self.config.actions.contains(&ActionKind::StartGate);
        let gate =
            gate.filter(|gate| is_allowed && (!gate.denied.is_empty() || gate.refuses_unknown));
        let kept = needs
            .iter()
            .filter(|(_, need)| need.lasts() && self.can_hold);
        let kept: BTreeSet<String> = kept.map(|(id, _)| id.clone()).collect();
        let still = kept
            .iter()
            .filter(|id| needs.get(*id).is_some_and(|need| need.frozen));
        let still = still.cloned().collect();
        let has_blocked = needs.values().any(|need| need.blocked);
        let approved = self
            .with_enforcer(move |enforcer| {
                // The guard says there what it approved, so it is there before the guard begins.
                if has_blocked && let Err(error) = block::load(enforcer.pins()) {
                    tracing::warn!(%error, "the kernel's part of the block is missing: {error:#}");
                }
                Ok(block::approved(enforcer.pins()))
            })
            .await;
        let orders = Orders {
            blocked: blocked.map(|(id, _)| id.clone()).collect(),
            gate: (gate.is_some() || !kept.is_empty()).then(|| Gate {
                runtimes: self.config.runtimes.iter().map(|at| of_host(at)).collect(),
                hold_ms: self.config.start_hold_ms,
                all: gate.is_some(),
                still,
                kept,
            }),
            approved: approved.ok(),
            passed: self.passed.iter().copied().collect(),
        };
        // Containers that could not be guarded are tried again.
        if orders == self.orders && self.failed.is_empty() {
            return Failed::new();
        }
        let keeper = self.keeper.clone();
        let told = orders.clone();
        let done = self.cx.blocking(move || keeper.set(told)).await;
        match done.context("it was given up").and_then(|done| done) {
            Ok(failed) => {
                for (id, why) in &failed {
                    tracing::warn!("the guard cannot guard `{id}`: {why}");
                }
                self.orders = orders;
                failed
            }
            Err(error) => {
                tracing::warn!(%error, "there is no guard: {error:#}");
                let ids = orders.blocked.into_iter();
                ids.map(|id| (id, format!("{error:#}"))).collect()
            }
        }
    }

    async fn hear(&mut self, news: News) {
        match news {
            News::Denied(denied, missed) => self.hear_denied(denied, missed),
            News::Held(container, cgroup) => {
                self.judge_start(&container).await;
                let kept = self.orders.gate.as_ref().map(|gate| &gate.kept);
                if kept.is_some_and(|kept| kept.contains(&container)) {
                    // What is in force for it is put into force again first.
                    self.held.insert(container, cgroup);
                } else {
                    self.pass(&[cgroup]).await;
                }
            }
        }
    }

    /// Has the guard let containers go on.
    async fn pass(&mut self, cgroups: &[u64]) {
        self.passed.extend(cgroups);
        let over = self.passed.len().saturating_sub(PASSED_MAX);
        self.passed.drain(..over);
        let orders = Orders {
            passed: self.passed.iter().copied().collect(),
            ..self.orders.clone()
        };
        let (keeper, told) = (self.keeper.clone(), orders.clone());
        let done = self.cx.blocking(move || keeper.set(told)).await;
        if done.is_ok_and(|done| done.is_ok()) {
            self.orders = orders;
        }
    }

    /// Ends a container that may not start; it stands still before its first program.
    async fn judge_start(&mut self, id: &str) {
        let gate = self.desired.as_ref().and_then(|one| one.start_gate.clone());
        let Some(gate) = gate else { return };
        let layout = self.with_enforcer(|enforcer| Ok(enforcer.layout().clone()));
        let Ok(layout) = layout.await else { return };
        let found = container::find(&self.cx, &self.engines, &layout, id).await;
        let digests = gate::digests(&self.cx, &self.engines, &found).await;
        let Some(refused) = gate::judge(&gate, &digests) else {
            return;
        };
        let name = found.name().unwrap_or(id).to_owned();
        let why = refused.why;
        let is_enforced = gate.mode == Mode::Enforced;
        let killed = match &found.group {
            Some(group) if is_enforced => {
                let group = group.clone();
                let killed = self.cx.blocking(move || group.kill()).await;
                killed.context("it was given up").and_then(|done| done)
            }
            _ => Ok(()),
        };
        let (phase, detail) = match killed {
            Ok(()) if is_enforced => (Phase::Done, format!("it did not start: {why}")),
            Ok(()) => (
                Phase::WouldHave,
                format!("it would not have started: {why}"),
            ),
            Err(error) => (Phase::Failed, format!("{why}; {error:#}")),
        };
        tracing::warn!(container.id = id, "container `{name}`: {detail}");
        let generation = self.desired.as_ref().map_or(0, |one| one.generation);
        let started = (id, found.started_at());
        let report = ResponseReported {
            response: Some(ResponseId::of("", ActionKind::StartGate, started, 0)),
            container: id.to_owned(),
            action: Some(ActionKind::StartGate),
            mode: gate.mode,
            generation,
            detail: Some(detail),
            image: refused.image,
            ..self.blank(phase)
        };
        self.tell(report).await;
    }

    fn blank(&self, phase: Phase) -> ResponseReported {
        ResponseReported {
            node: self.node.clone(),
            response: None,
            incident: String::new(),
            container: String::new(),
            action: None,
            mode: Mode::Enforced,
            phase,
            refusal: None,
            generation: 0,
            attempt: 0,
            evidence: None,
            before: None,
            after: None,
            detail: None,
            image: None,
            denied: Vec::new(),
            at: self.cx.now(),
        }
    }

    /// Answers. What finds no room in the spool waits for it on disk.
    async fn tell(&mut self, report: ResponseReported) {
        match self.outbox.enqueue(&self.tenant, &report).await {
            Ok(()) => {}
            Err(SpoolError::Full { .. }) => {
                self.journal.kept.keep_untold(report);
                if let Err(error) = self.journal.keep() {
                    self.broken(&error);
                }
            }
            Err(error) => self.broken(&anyhow::Error::new(error).context("answering")),
        }
    }

    /// Answers how far a response is.
    async fn tell_of(&mut self, entry: &Entry, phase: Phase, detail: Option<String>) {
        let report = self.report_of(entry, phase, detail);
        self.tell(report).await;
    }

    fn report_of(&self, entry: &Entry, phase: Phase, detail: Option<String>) -> ResponseReported {
        let Response {
            id,
            incident,
            container,
            action,
            mode,
            ..
        } = &entry.response;
        ResponseReported {
            response: Some(id.clone()),
            incident: incident.clone(),
            container: container.clone(),
            action: Some(action.kind()),
            mode: *mode,
            generation: entry.generation,
            attempt: entry.attempt,
            evidence: entry.evidence.clone(),
            before: entry.before.clone(),
            after: entry.after.clone(),
            detail,
            ..self.blank(phase)
        }
    }
}

/// Where evidence waits for NATS.
fn evidence_dir(dir: &Path) -> PathBuf {
    dir.join("evidence")
}
