//! The agent's side of the guard: starts it when it is needed, tells it what to do, hears what it
//! says, and ends it where it stalls: with its end the kernel takes back what it has asked.

use std::{
    fs,
    io::{self, BufRead as _, BufReader, Write as _},
    os::{
        fd::OwnedFd,
        unix::{net::UnixStream, process::CommandExt as _},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use tokio::sync::mpsc;

use super::{
    guard::{
        orders::{Denied, Orders, Said},
        socket,
    },
    proc,
};

/// How often it is looked whether the guard stands still.
const WATCH_EVERY: Duration = Duration::from_millis(10);
/// How long a guard may take to begin, and to do what it is told.
const START_MAX: Duration = Duration::from_secs(5);
const OBEY_MAX: Duration = Duration::from_secs(5);
/// How long it waits before it starts a guard that ended once more; each time longer, where none
/// begins.
const AGAIN_AFTER: Duration = Duration::from_millis(200);
const AGAIN_AFTER_MAX: Duration = Duration::from_secs(30);

/// What the guard tells of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum News {
    /// Something did not run; and so many that nobody took the news of.
    Denied(Denied, u64),
    /// A container stands still before its first program; and the id of its cgroup.
    Held(String, u64),
}

/// Containers that cannot be guarded, and why.
pub(crate) type Failed = Vec<(String, String)>;

type Reply = Sender<anyhow::Result<Failed>>;

/// Tells the guard what to do.
#[derive(Clone, Debug)]
pub(crate) struct Keeper(Sender<(Orders, Reply)>);

/// The thread behind it.
struct Work {
    dir: PathBuf,
    told: Receiver<(Orders, Reply)>,
    news: mpsc::Sender<News>,
    orders: Orders,
    guard: Option<Connected>,
    child: Option<Child>,
    tried_at: Option<Instant>,
    again_after: Duration,
    /// Files that did not run, of which the news found no room.
    missed: u64,
}

struct Connected {
    lines: BufReader<UnixStream>,
    /// A line that has not come whole: it may end within a letter.
    part: Vec<u8>,
    pid: u32,
    /// Its process, which its number may not be any more when it is to be ended.
    process: Option<OwnedFd>,
}

// === impl Keeper ===

impl Keeper {
    /// Starts it; the guard itself starts when there is something to guard.
    pub(crate) fn start(dir: &Path, news: mpsc::Sender<News>) -> Self {
        let (tell, told) = channel();
        let work = Work {
            dir: dir.to_owned(),
            told,
            news,
            orders: Orders::default(),
            guard: None,
            child: None,
            tried_at: None,
            again_after: AGAIN_AFTER,
            missed: 0,
        };
        thread::spawn(move || work.run());
        Self(tell)
    }

    /// Has the guard do this and nothing else; waits until it does.
    pub(crate) fn set(&self, orders: Orders) -> anyhow::Result<Failed> {
        let (reply, answer) = channel();
        self.0
            .send((orders, reply))
            .ok()
            .context("the guard's keeper ended")?;
        answer.recv().context("the guard's keeper ended")?
    }
}

// === impl Work ===

impl Work {
    fn run(mut self) {
        loop {
            let next = if self.guard.is_some() || self.is_needed() {
                self.told.recv_timeout(WATCH_EVERY)
            } else {
                self.told.recv().map_err(|_| RecvTimeoutError::Disconnected)
            };
            match next {
                Ok((orders, reply)) => {
                    self.orders = orders;
                    // Who asked may have stopped waiting.
                    drop(reply.send(self.obey()));
                }
                Err(RecvTimeoutError::Timeout) => self.watch(),
                // The agent ends; the guard does not.
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn is_needed(&self) -> bool {
        self.orders.is_anything()
    }

    fn obey(&mut self) -> anyhow::Result<Failed> {
        // Where nothing is needed, one of an agent before may still be at work.
        if self.guard.is_none() && !self.connect()? {
            return Ok(Failed::new());
        }
        let done = self.tell();
        if done.is_err() {
            self.end();
        }
        if done.is_ok() && !self.is_needed() {
            // It ends by itself.
            self.guard = None;
        }
        done
    }

    /// Finds the guard, and starts one where one is needed; false where there is none.
    fn connect(&mut self) -> anyhow::Result<bool> {
        let end = Instant::now() + START_MAX;
        let path = socket(&self.dir);
        let mut is_started = false;
        let stream = loop {
            match UnixStream::connect(&path) {
                Ok(stream) => break stream,
                Err(_) if !self.is_needed() => return Ok(false),
                Err(_) if !is_started => {
                    self.start()?;
                    is_started = true;
                }
                Err(error) if Instant::now() >= end => {
                    return Err(error).context("the guard does not begin");
                }
                Err(_) => {
                    let ended = self.child.as_mut().and_then(|child| child.try_wait().ok()?);
                    if let Some(status) = ended {
                        bail!("the guard ended: {status}");
                    }
                    thread::sleep(Duration::from_millis(5));
                }
            }
        };
        let peer = getsockopt(&stream, PeerCredentials).context("whose socket it is")?;
        stream.set_read_timeout(Some(Duration::from_millis(1)))?;
        stream.set_write_timeout(Some(OBEY_MAX))?;
        let pid = Pid::from_raw(peer.pid());
        let process = pid.and_then(|pid| pidfd_open(pid, PidfdFlags::empty()).ok());
        self.guard = Some(Connected {
            lines: BufReader::new(stream),
            part: Vec::new(),
            pid: u32::try_from(peer.pid()).unwrap_or(0),
            process,
        });
        Ok(true)
    }

    fn start(&mut self) -> anyhow::Result<()> {
        if let Some(mut before) = self.child.take() {
            drop(before.kill());
            drop(before.wait());
        }
        fs::create_dir_all(&self.dir)?;
        // By this name it is found though the program was replaced meanwhile.
        let child = Command::new("/proc/self/exe")
            .arg0("tidewaiter-agent")
            .arg("guard")
            .arg(&self.dir)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .context("starting the guard")?;
        self.child = Some(child);
        Ok(())
    }

    /// Tells the orders, and waits until they are in force.
    fn tell(&mut self) -> anyhow::Result<Failed> {
        let mut line = serde_json::to_vec(&self.orders)?;
        line.push(b'\n');
        let guard = self.guard.as_mut().context("there is no guard")?;
        guard.lines.get_mut().write_all(&line)?;
        let end = Instant::now() + OBEY_MAX;
        loop {
            match self.hear()? {
                Some(Said::Ready { failed }) => return Ok(failed),
                Some(said) => self.pass_on(said),
                None if Instant::now() >= end => bail!("the guard does not answer"),
                None => {}
            }
        }
    }

    /// What it says next, if it says anything now.
    fn hear(&mut self) -> io::Result<Option<Said>> {
        let Some(guard) = &mut self.guard else {
            return Ok(None);
        };
        match guard.lines.read_until(b'\n', &mut guard.part) {
            Ok(_) if guard.part.last() != Some(&b'\n') => {
                Err(io::Error::from(io::ErrorKind::UnexpectedEof))
            }
            Ok(_) => {
                let line = std::mem::take(&mut guard.part);
                Ok(Some(serde_json::from_slice(&line)?))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn pass_on(&mut self, said: Said) {
        match said {
            Said::Denied(denied) => {
                let news = News::Denied(denied, self.missed);
                self.missed = match self.news.try_send(news) {
                    Ok(()) => 0,
                    Err(_) => self.missed.saturating_add(1),
                };
            }
            Said::Missed { count } => self.missed = self.missed.saturating_add(count),
            // The guard lets go by itself of what nobody decides.
            Said::Held { container, cgroup } => {
                drop(self.news.try_send(News::Held(container, cgroup)));
            }
            Said::Ready { .. } => {}
        }
    }

    fn watch(&mut self) {
        if self.guard.is_none() {
            let is_early = self
                .tried_at
                .is_some_and(|at| at.elapsed() < self.again_after);
            if is_early {
                return;
            }
            match self.obey() {
                Ok(_) => self.again_after = AGAIN_AFTER,
                Err(error) => {
                    self.again_after = (self.again_after * 2).min(AGAIN_AFTER_MAX);
                    tracing::warn!(%error, "the guard is away: {error:#}");
                }
            }
            self.tried_at = Some(Instant::now());
            return;
        }
        if self
            .guard
            .as_ref()
            .is_some_and(|guard| is_stopped(guard.pid))
        {
            tracing::warn!("the guard stands still: another one takes its place");
            self.end();
            return;
        }
        loop {
            match self.hear() {
                Ok(Some(said)) => self.pass_on(said),
                Ok(None) => return,
                Err(_) => {
                    self.end();
                    return;
                }
            }
        }
    }

    /// Ends a guard that does not do what it should.
    fn end(&mut self) {
        if let Some(guard) = self.guard.take() {
            match guard.process {
                Some(process) => {
                    if let Err(error) = pidfd_send_signal(process, Signal::KILL) {
                        tracing::debug!(%error, "the guard has ended by itself: {error}");
                    }
                }
                // Linux before 5.3.
                None => proc::kill(guard.pid),
            }
        }
        if let Some(mut child) = self.child.take() {
            drop(child.kill());
            drop(child.wait());
        }
    }
}

/// Whether somebody stopped a process.
fn is_stopped(pid: u32) -> bool {
    // The name before it may hold anything, but is the last that is in parentheses.
    let stat = proc::text(pid, "stat").unwrap_or_default();
    let state = stat.rsplit(')').next().map(str::trim_start);
    state.is_some_and(|state| state.starts_with(['T', 't']))
}
