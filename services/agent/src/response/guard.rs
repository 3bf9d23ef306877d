//! The guard: a process of its own that answers when the kernel asks whether a file may be opened.
//!
//! While it is asked, somebody waits. So it does nothing else, it has an answer after 40 ms whatever
//! happens, and it does not depend on the agent: when that stalls or dies, the guard goes on with its
//! last orders. When the guard itself dies, the kernel takes its questions back and lets everything
//! pass. In doubt it lets pass, but for a container that is blocked.
//!
//! ```text
//! agent ── orders ──► guard ◄── may this be opened? ── kernel
//!       ◄── denied, held ──     ── yes, no ──────────►
//! ```

mod gate;
mod image;
mod judge;
pub(crate) mod orders;
mod post;
mod ward;

use std::{
    collections::HashMap,
    io::{Read as _, Write as _},
    os::{fd::AsFd as _, unix::net::UnixStream},
    path::Path,
    sync::{Arc, mpsc::Receiver},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
use model::Digest;
use nix::{
    errno::Errno,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::fanotify::{
        EventFFlags, Fanotify, FanotifyEvent, FanotifyResponse, InitFlags, MaskFlags, Response,
    },
};

use rustix::process::{Resource, getrlimit, setrlimit};

use self::{
    gate::Gate,
    judge::{Judge, Judged, Outcome, Version, is_machine_code, is_told_to_run, path_of},
    orders::{Denied, Orders, Said},
    post::Post,
    ward::Ward,
};
use crate::{
    cgroup::{Layout, container_in},
    response::group::Group,
};

pub(crate) use self::post::socket;

/// The longest that anybody waits for an answer.
const ANSWER_MAX: Duration = Duration::from_millis(40);
/// Files that it may have open: those of questions that wait, and of contents that are to be read.
const FILES_MAX: u64 = 8_192;
/// The niceness of who comes first.
const FIRST: i32 = -20;
/// How often it looks whether containers ended or mounted something.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// How often it looks for blocked containers that do not run: every cgroup is looked at for that.
const SEEK_EVERY: Duration = Duration::from_secs(2);
/// Questions that wait at once; beyond them each is answered by its default.
const WAITING_MAX: usize = 1_024;
/// How often it reads questions, many at once, before it looks at anything else.
const READS_MAX: usize = 4;
/// How long it stays when it has nothing to do and nobody is there.
const IDLE_MAX: Duration = Duration::from_secs(10);
/// How long it holds containers when nobody is there to say what they may.
const ALONE_MAX: Duration = Duration::from_secs(30);

/// A question that is not answered yet.
struct Waiting {
    event: FanotifyEvent,
    since: Instant,
    file: Asked,
}

/// A file that a blocked container wants to run.
struct Asked {
    container: String,
    path: String,
    pid: u32,
    version: Version,
}

/// What there is to say to a question.
enum Considered {
    Now(Response),
    Later(Asked),
    Denied(Asked, Option<Digest>),
}

/// The guard at work.
struct Guard {
    fanotify: Fanotify,
    layout: Layout,
    post: Post,
    judge: Judge,
    outcomes: Receiver<Outcome>,
    woken: UnixStream,
    orders: Orders,
    wards: HashMap<String, Ward>,
    waiting: Vec<Waiting>,
    approved: Option<MapHandle>,
    gate: Gate,
    looked_at: Instant,
    sought_at: Instant,
    /// Nobody is there, and nobody who comes would find it: the agent's files are gone.
    is_lost: bool,
    busy_at: Instant,
}

/// Runs until there is nothing to guard and nobody to take orders from.
pub fn guard(dir: &Path) -> anyhow::Result<()> {
    let Some(mut post) = Post::open(dir)? else {
        // Another one is at work.
        return Ok(());
    };
    come_first();
    let flags = InitFlags::FAN_CLASS_CONTENT
        | InitFlags::FAN_CLOEXEC
        | InitFlags::FAN_NONBLOCK
        | InitFlags::FAN_UNLIMITED_QUEUE
        | InitFlags::FAN_UNLIMITED_MARKS;
    // Pipes and devices lie there, too: nobody waits for their other end.
    let opened = EventFFlags::O_RDONLY
        | EventFFlags::O_LARGEFILE
        | EventFFlags::O_CLOEXEC
        | EventFFlags::O_NONBLOCK;
    let fanotify = Fanotify::init(flags, opened).context("fanotify does not ask here")?;
    let (wake, woken) = UnixStream::pair()?;
    for end in [&wake, &woken] {
        end.set_nonblocking(true)?;
    }
    let wake = Arc::new(wake);
    let (judge, outcomes) = Judge::start(move || {
        // Full: it will look anyway.
        drop((&*wake).write(&[1]));
    });
    let layout = Layout::here();
    let mut gate = Gate::default();
    for said in gate.find_held(&layout) {
        post.tell(said);
    }
    let mut guard = Guard {
        fanotify,
        layout,
        post,
        judge,
        outcomes,
        woken,
        orders: Orders::default(),
        wards: HashMap::new(),
        waiting: Vec::new(),
        approved: None,
        gate,
        looked_at: Instant::now(),
        sought_at: Instant::now(),
        is_lost: false,
        busy_at: Instant::now(),
    };
    guard.run()
}

/// Whoever is asked comes before who asks, however busy the node is. Signals of a terminal are for
/// the agent, so it has a session of its own; with that it has a share of the processors of its own,
/// too, where the kernel shares them by session.
fn come_first() {
    let detached = rustix::process::setsid();
    let raised = rustix::process::setpriority_process(None, FIRST);
    let shared = std::fs::write("/proc/self/autogroup", FIRST.to_string());
    // Each question that waits is an open file.
    let mut files = getrlimit(Resource::Nofile);
    let wanted = files.maximum.unwrap_or(FILES_MAX).min(FILES_MAX);
    files.current = files.current.max(Some(wanted));
    let roomy = setrlimit(Resource::Nofile, files);
    // It works without each of these, only not as fast on a busy node.
    debug_assert!(detached.is_ok() || raised.is_ok() || shared.is_ok() || roomy.is_ok());
}

// === impl Guard ===

impl Guard {
    fn run(&mut self) -> anyhow::Result<()> {
        loop {
            self.wait()?;
            self.take_events()?;
            self.take_outcomes();
            self.answer_overdue();
            while let Some(orders) = self.post.next() {
                self.obey(orders);
            }
            if self.looked_at.elapsed() >= LOOK_EVERY {
                self.look();
                self.looked_at = Instant::now();
            }
            if self.orders.is_anything() || self.post.has_client() {
                self.busy_at = Instant::now();
            } else if self.busy_at.elapsed() >= IDLE_MAX {
                return Ok(());
            }
            if self.is_lost {
                // With its end everything passes; what it holds goes on first.
                return self.gate.set(&self.fanotify, &self.layout, None);
            }
        }
    }

    fn wait(&mut self) -> anyhow::Result<()> {
        let first = self.waiting.first();
        let rest = first.map(|first| ANSWER_MAX.saturating_sub(first.since.elapsed()));
        let rest = rest.unwrap_or(LOOK_EVERY).min(LOOK_EVERY);
        let timeout = PollTimeout::try_from(rest.max(Duration::from_millis(1)))?;
        let mut fds = vec![
            PollFd::new(self.fanotify.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        fds.extend(self.post.fds().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for the kernel"),
        }
        let mut bytes = [0; 64];
        while (&self.woken).read(&mut bytes).is_ok_and(|read| read > 0) {}
        Ok(())
    }

    /// Takes questions, but not for ever: a container that asks without end does not keep the guard
    /// from who waits for an answer, nor from its orders.
    fn take_events(&mut self) -> anyhow::Result<()> {
        for _ in 0..READS_MAX {
            let events = match self.fanotify.read_events() {
                Ok(events) if events.is_empty() => return Ok(()),
                Ok(events) => events,
                // Where there is no room for another open file, the kernel has said no to this one.
                Err(
                    Errno::EAGAIN | Errno::EINTR | Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM,
                ) => return Ok(()),
                // The file cannot be opened for us: the kernel has answered by itself.
                Err(Errno::EACCES | Errno::ENXIO | Errno::ENODEV | Errno::ETXTBSY) => continue,
                Err(error) => return Err(error).context("reading the kernel's questions"),
            };
            for event in events {
                self.asked(event);
            }
        }
        Ok(())
    }

    fn asked(&mut self, event: FanotifyEvent) {
        let since = Instant::now();
        match self.consider(&event) {
            Considered::Now(answer) => self.answer(&event, answer),
            Considered::Denied(file, digest) => {
                self.answer(&event, Response::FAN_DENY);
                self.tell_denied(file, digest, since);
            }
            Considered::Later(file) if self.waiting.len() < WAITING_MAX => {
                self.waiting.push(Waiting { event, since, file });
            }
            Considered::Later(file) => {
                self.answer(&event, Response::FAN_DENY);
                self.tell_denied(file, None, since);
            }
        }
    }

    fn consider(&mut self, event: &FanotifyEvent) -> Considered {
        let allow = Considered::Now(Response::FAN_ALLOW);
        let pid = u32::try_from(event.pid()).unwrap_or(0);
        let Some(file) = event.fd().filter(|_| pid != std::process::id()) else {
            return allow;
        };
        let Some(version) = Version::of(file) else {
            return allow;
        };
        if self.gate.is_runtime(version) {
            for group in self.gate.find_new(&self.layout) {
                if self.orders.blocked.contains(&group.container) {
                    // Started again: its first program is judged, too.
                    self.release(&group.container);
                    drop(self.guard_one(&group.container));
                }
                self.gate.await_start(&self.fanotify, group);
            }
        }
        let is_run = event.mask().contains(MaskFlags::FAN_OPEN_EXEC_PERM);
        let path = self.layout.path_of(pid);
        let Some(container) = path.as_deref().and_then(container_in) else {
            return allow;
        };
        if is_run && self.gate.is_awaited(container) {
            let is_blocked = self.wards.contains_key(container);
            let said = self.gate.hold(&self.fanotify, container, is_blocked);
            if let Some(said) = said {
                self.post.tell(said);
            }
        }
        let Some(ward) = self.wards.get(container) else {
            return allow;
        };
        if !is_run && !is_machine_code(file) && !is_told_to_run(pid, version) {
            return allow;
        }
        let path = path_of(file);
        let places = (ward.root(), ward.image());
        let judged = self.judge.judge(container, file, (version, &path), places);
        let asked = Asked {
            container: container.to_owned(),
            path,
            pid,
            version,
        };
        match judged {
            Judged::Runs => allow,
            Judged::RunsElsewhere => {
                self.approve(&asked);
                allow
            }
            Judged::Denied(digest) => Considered::Denied(asked, digest),
            Judged::Later => Considered::Later(asked),
        }
    }

    /// The kernel kills what comes from elsewhere unless it was approved: before the answer.
    fn approve(&self, file: &Asked) {
        let (Some(map), Some(ward)) = (&self.approved, self.wards.get(&file.container)) else {
            return;
        };
        let Version { inode, size, .. } = file.version;
        let key = [ward.cgroup(), inode, size].map(u64::to_ne_bytes).concat();
        // Where that fails the file does not run: the container is blocked.
        drop(map.update(&key, &[1], MapFlags::ANY));
    }

    fn answer(&self, event: &FanotifyEvent, answer: Response) {
        if let Some(fd) = event.fd() {
            let answered = self
                .fanotify
                .write_response(FanotifyResponse::new(fd, answer));
            // Who asked may have been killed: then nobody waits.
            debug_assert!(answered.is_ok() || answered == Err(Errno::ENOENT));
        }
    }

    fn tell_denied(&mut self, file: Asked, digest: Option<Digest>, since: Instant) {
        let waited_us = u64::try_from(since.elapsed().as_micros()).unwrap_or(u64::MAX);
        self.post.tell(Said::Denied(Denied {
            container: file.container,
            path: file.path,
            pid: file.pid,
            digest,
            waited_us,
        }));
    }

    fn take_outcomes(&mut self) {
        while let Ok(outcome) = self.outcomes.try_recv() {
            self.judge.learn(&outcome);
            let is_it = |waiting: &mut Waiting| {
                waiting.file.container == outcome.container
                    && waiting.file.version == outcome.version
            };
            let done: Vec<Waiting> = self.waiting.extract_if(.., is_it).collect();
            for Waiting { event, since, file } in done {
                match outcome.judged {
                    Judged::Runs | Judged::RunsElsewhere => {
                        self.approve(&file);
                        self.answer(&event, Response::FAN_ALLOW);
                    }
                    Judged::Denied(digest) => {
                        self.answer(&event, Response::FAN_DENY);
                        self.tell_denied(file, digest, since);
                    }
                    Judged::Later => self.waiting.push(Waiting { event, since, file }),
                }
            }
        }
    }

    /// Nobody waits longer: what a blocked container runs is known, or does not run.
    fn answer_overdue(&mut self) {
        let is_over = |waiting: &mut Waiting| waiting.since.elapsed() >= ANSWER_MAX;
        let over: Vec<Waiting> = self.waiting.extract_if(.., is_over).collect();
        for Waiting { event, since, file } in over {
            self.answer(&event, Response::FAN_DENY);
            self.tell_denied(file, None, since);
        }
    }

    fn obey(&mut self, orders: Orders) {
        let mut failed = Vec::new();
        self.approved = orders
            .approved
            .as_ref()
            .and_then(|path| MapHandle::from_pinned_path(path).ok());
        let ended = |id: &String| !orders.blocked.contains(id);
        let ended: Vec<String> = self.wards.keys().filter(|id| ended(id)).cloned().collect();
        for id in ended {
            self.release(&id);
        }
        for id in &orders.blocked {
            if let Err(error) = self.guard_one(id) {
                failed.push((id.clone(), format!("{error:#}")));
            }
        }
        let gated = self
            .gate
            .set(&self.fanotify, &self.layout, orders.gate.as_ref());
        if let Err(error) = gated {
            failed.push((String::new(), format!("{error:#}")));
        }
        for cgroup in &orders.passed {
            let is_blocked = |id: &str| self.wards.contains_key(id);
            self.gate.pass(&self.fanotify, *cgroup, is_blocked);
        }
        self.orders = orders;
        self.post.tell(Said::Ready { failed });
    }

    /// Looks for containers that were started again by somebody whom the kernel does not ask about.
    fn seek(&mut self) {
        let blocked = self.orders.blocked.iter();
        let away = blocked.filter(|id| !self.wards.contains_key(*id));
        let away: Vec<String> = away.cloned().collect();
        for id in away {
            // Where that fails, the agent hears of it with the next orders.
            drop(self.guard_one(&id));
        }
    }

    /// Guards a container that runs; one that does not is guarded when it is started again.
    fn guard_one(&mut self, id: &str) -> anyhow::Result<()> {
        if self.wards.contains_key(id) {
            return Ok(());
        }
        let Some(group) = Group::of(&self.layout, id).filter(Group::is_populated) else {
            return Ok(());
        };
        let ward = Ward::new(&self.fanotify, group)?;
        self.wards.insert(id.to_owned(), ward);
        Ok(())
    }

    fn release(&mut self, container: &str) {
        if let Some(ward) = self.wards.remove(container) {
            ward.release(&self.fanotify);
            self.judge.forget(container);
        }
    }

    /// Follows what containers mount, and forgets those that ended.
    fn look(&mut self) {
        let ended: Vec<String> = self
            .wards
            .iter_mut()
            .filter_map(|(id, ward)| (!ward.follow(&self.fanotify)).then(|| id.clone()))
            .collect();
        for id in ended {
            self.release(&id);
        }
        if self.sought_at.elapsed() >= SEEK_EVERY {
            self.seek();
            self.is_lost = !self.post.has_client() && !self.post.can_be_found();
            self.sought_at = Instant::now();
        }
        self.gate.look(&self.fanotify);
        if self.post.alone_for() >= ALONE_MAX
            && let Some(gate) = self.orders.gate.as_mut().filter(|gate| gate.all)
        {
            // Nobody can say any more which image may start. What something is in force for does
            // not start without it.
            gate.all = false;
            let gate = Some(&*gate).filter(|gate| !gate.kept.is_empty());
            drop(self.gate.set(&self.fanotify, &self.layout, gate));
        }
    }
}
