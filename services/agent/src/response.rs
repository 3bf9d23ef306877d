//! What the node does to containers when the fabric says so, and to nobody else's word.
//!
//! ```text
//! KV desired ──► [`reader`] ── signed? for this node? newer? ──► [`responder`] ──► result events
//!                                                                   │ journal on disk
//!            freezer, kill ([`group`]) · quarantine ([`network`]) · block ([`block`], [`guard`])
//!            replace ([`replace`], [`kubernetes`]) · mark ([`mark`]) · evidence ([`evidence`])
//!            start gate ([`gate`], [`guard`])
//! ```
//!
//! The decision that shapes it: **what is in force lives in the kernel and in the engine, not in the
//! agent.** A frozen cgroup, pinned programs, a guard process, a container under another name: each
//! stays when the agent dies, each can be looked at, and each step looks first whether it was done.
//! So an agent that comes back, even without its files, ends in the same state. It costs a mount of
//! bpffs and a second process while something is blocked.
//!
//! Without a key in its configuration (`response.keys`) it does nothing of this. A document is
//! believed by its signature, whoever wrote it; the journal remembers the last one, so that an older
//! one is refused after a restart, too.
//!
//! A container that is started again has the same id and another cgroup, and with the old one ended
//! what was in force. It is put into force again, and told: before its first program, where the
//! kernel asks about that, else a moment later. In Kubernetes what is started again is another
//! container, with an id of its own, and needs a decision of its own.
//!
//! A block is about files. What it does not stop stands where files are judged ([`mod@guard`]), and
//! among what a node says that it cannot enforce ([`means`]).
//!
//! What it does not do: it decides nothing. Which container, which action and for how long is in the
//! document; here is only refused what is not signed, is over, or is about another container.

mod block;
mod container;
mod enforce;
mod evidence;
mod gate;
mod group;
mod guard;
mod journal;
mod keeper;
mod kubernetes;
mod mark;
pub(crate) mod means;
mod needs;
mod network;
mod pins;
pub(crate) mod proc;
mod reader;
mod release;
mod replace;
mod responder;

pub(crate) use self::responder::start;
pub use self::{guard::guard, release::release};
