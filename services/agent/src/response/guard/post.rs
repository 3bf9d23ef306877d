//! The guard's socket: one agent at a time, a line of JSON each way.

use std::{
    collections::VecDeque,
    fs,
    io::{self, Read as _, Write as _},
    os::{
        fd::{AsFd as _, BorrowedFd},
        unix::{
            fs::MetadataExt as _,
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use nix::sys::{
    socket::{getsockopt, sockopt::PeerCredentials},
    stat::{Mode, umask},
};

use super::orders::{LINE_BYTES_MAX, Orders, Said};

const SOCKET: &str = "guard.sock";
/// What is kept for an agent that is away; of more files that did not run the oldest is only counted.
const KEPT_MAX: usize = 1_000;

/// Where orders come from and news go to.
pub(super) struct Post {
    listener: UnixListener,
    client: Option<UnixStream>,
    read: Vec<u8>,
    kept: VecDeque<Said>,
    /// What did not run and is kept no more.
    missed: u64,
    alone_since: Instant,
    path: PathBuf,
    inode: u64,
}

/// Where the guard of an agent listens.
pub(crate) fn socket(dir: &Path) -> PathBuf {
    dir.join(SOCKET)
}

fn own_user() -> Option<u32> {
    fs::metadata("/proc/self").ok().map(|own| own.uid())
}

// === impl Post ===

impl Post {
    /// Listens; `None` where another guard does.
    pub(super) fn open(dir: &Path) -> anyhow::Result<Option<Self>> {
        let path = socket(dir);
        if UnixStream::connect(&path).is_ok() {
            return Ok(None);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("removing `{}`", path.display()));
            }
            _ => {}
        }
        // Nobody else's from its first moment on.
        let before = umask(Mode::S_IRWXG | Mode::S_IRWXO);
        let listener = UnixListener::bind(&path);
        umask(before);
        let listener = listener.with_context(|| format!("listening at `{}`", path.display()))?;
        listener.set_nonblocking(true)?;
        let inode = fs::symlink_metadata(&path)?.ino();
        Ok(Some(Self {
            listener,
            path,
            inode,
            client: None,
            read: Vec::new(),
            kept: VecDeque::new(),
            missed: 0,
            alone_since: Instant::now(),
        }))
    }

    /// What there is to wait for.
    pub(super) fn fds(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let client = self.client.as_ref().map(UnixStream::as_fd);
        [self.listener.as_fd()].into_iter().chain(client)
    }

    pub(super) const fn has_client(&self) -> bool {
        self.client.is_some()
    }

    /// Whether an agent that comes finds this guard: its socket is where it was.
    pub(super) fn can_be_found(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|found| found.ino() == self.inode)
    }

    /// How long nobody has been there.
    pub(super) fn alone_for(&self) -> Duration {
        if self.client.is_some() {
            Duration::ZERO
        } else {
            self.alone_since.elapsed()
        }
    }

    /// The next orders, if there are any.
    pub(super) fn next(&mut self) -> Option<Orders> {
        while let Ok((client, _)) = self.listener.accept() {
            let peer = getsockopt(&client, PeerCredentials).ok();
            let is_ours = peer.is_some_and(|peer| own_user() == Some(peer.uid()));
            if is_ours && client.set_nonblocking(true).is_ok() {
                // The one before is a stalled or a dead agent.
                self.leave();
                self.client = Some(client);
                self.read.clear();
            }
        }
        self.write();
        let mut piece = [0; 4096];
        while let Some(client) = &mut self.client {
            if let Some(end) = self.read.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.read.drain(..=end).collect();
                match serde_json::from_slice(&line) {
                    Ok(orders) => return Some(orders),
                    Err(_) => self.leave(),
                }
                continue;
            }
            match client.read(&mut piece) {
                Ok(0) => self.leave(),
                Ok(_) if self.read.len() > LINE_BYTES_MAX => self.leave(),
                Ok(length) => self.read.extend(piece.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return None,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => self.leave(),
            }
        }
        None
    }

    fn leave(&mut self) {
        self.client = None;
        self.alone_since = Instant::now();
        // To whom that was said is gone, and will say more.
        self.kept.retain(|said| !matches!(said, Said::Ready { .. }));
    }

    /// Tells the agent, now or when it comes back. It never waits for it.
    pub(super) fn tell(&mut self, said: Said) {
        if self.client.is_none() && matches!(said, Said::Ready { .. }) {
            return;
        }
        if self.kept.len() >= KEPT_MAX {
            self.make_room();
        }
        self.kept.push_back(said);
        self.write();
    }

    /// Whoever makes many of these does not push out what a start waits for.
    fn make_room(&mut self) {
        let is_denied = |said: &Said| matches!(said, Said::Denied(_));
        if let Some(oldest) = self.kept.iter().position(is_denied) {
            self.kept.remove(oldest);
            self.missed = self.missed.saturating_add(1);
        } else {
            self.kept.pop_front();
        }
    }

    /// Writes as much as the agent has room for.
    fn write(&mut self) {
        if self.missed > 0 && self.client.is_some() && self.kept.len() < KEPT_MAX {
            let count = std::mem::take(&mut self.missed);
            self.kept.push_back(Said::Missed { count });
        }
        while let (Some(client), Some(said)) = (&mut self.client, self.kept.front()) {
            let Ok(mut line) = serde_json::to_vec(said) else {
                self.kept.pop_front();
                continue;
            };
            line.push(b'\n');
            match client.write(&line) {
                Ok(length) if length == line.len() => {
                    self.kept.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A part of a line cannot be taken back.
                _ => self.leave(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead as _, BufReader};

    use super::{super::orders::Denied, *};

    #[test]
    fn what_was_said_while_nobody_listened_is_said_to_who_comes() {
        let dir = tempfile::tempdir().unwrap();
        let mut post = Post::open(dir.path()).unwrap().unwrap();
        let held = |name: &str| Said::Held {
            container: name.to_owned(),
            cgroup: 1,
        };
        for number in 0..=KEPT_MAX {
            post.tell(held(&number.to_string()));
        }
        post.tell(Said::Ready { failed: Vec::new() });
        assert!(Post::open(dir.path()).unwrap().is_none(), "one is enough");
        // The one that looked whether somebody is here is gone again.
        let mut client = UnixStream::connect(socket(dir.path())).unwrap();
        client.write_all(b"{\"blocked\":[\"c\"],").unwrap();
        assert_eq!(post.next(), None);
        client
            .write_all(b"\"gate\":null,\"approved\":null,\"passed\":[]}\n")
            .unwrap();
        assert_eq!(post.next().unwrap().blocked, ["c".to_owned()].into());
        let mut lines = BufReader::new(client);
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Said>(&line).unwrap(), held("1"));
        drop(lines);
        assert_eq!(post.next(), None);
        assert!(!post.has_client());
    }

    #[test]
    fn what_did_not_run_pushes_out_nothing_else_and_is_counted() {
        let dir = tempfile::tempdir().unwrap();
        let mut post = Post::open(dir.path()).unwrap().unwrap();
        let held = Said::Held {
            container: "c".to_owned(),
            cgroup: 1,
        };
        post.tell(held.clone());
        for pid in 0..=u32::try_from(KEPT_MAX).unwrap() {
            post.tell(Said::Denied(Denied {
                container: "d".to_owned(),
                path: "x".to_owned(),
                pid,
                digest: None,
                waited_us: 1,
            }));
        }
        assert_eq!(post.kept.front(), Some(&held));
        assert_eq!((post.kept.len(), post.missed), (KEPT_MAX, 2));
        let client = UnixStream::connect(socket(dir.path())).unwrap();
        client
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let mut lines = BufReader::new(client);
        let mut all = Vec::new();
        while !matches!(all.last(), Some(Said::Missed { .. })) {
            assert_eq!(post.next(), None);
            let mut line = String::new();
            lines.read_line(&mut line).unwrap();
            all.push(serde_json::from_str(&line).unwrap());
        }
        assert_eq!(all.first(), Some(&held));
        assert_eq!(all.last(), Some(&Said::Missed { count: 2 }));
    }
}
