//! Responses: an incident in, what nodes shall do out.
//!
//! The decision that shapes it: [`decide`] is a function of the policies, the incident, what runs
//! where, what was ordered of late and the time. The service and `policy replay` call the same one,
//! so what a replay prints is what enforcing would have done. It costs that nothing may be asked in
//! the middle of a decision; everything is read before.
//!
//! Three records make a decision: the **ledger** of the tenant (limits, and who is out of service),
//! the **record** of the incident, and the **desired state** of the node. A handler gives all three
//! to the bus, the ledger first and by compare-and-set: of two decisions at once one is made again
//! with the other's in sight, so the last healthy instance cannot be taken by two. After a crash
//! between the writes the message comes again, finds what is there, and writes the rest: ids are
//! computed, news are told from the record's steps, and so nothing is done twice.
//!
//! What it does not do: it never acts. Agents do, and they check the signature themselves.

mod api;
mod census;
mod decide;
mod desired;
mod document;
mod guard;
mod handler;
mod judged;
mod keeper;
mod library;
mod news;
mod orders;
mod renewal;
mod replay;
mod reports;
mod start_gate;
#[cfg(test)]
mod tests;
mod waiting;

pub(crate) use self::{
    api::{Api, operations, router},
    handler::start,
};
pub use self::{
    document::{
        BUILTIN_RESPONSES, Limit, Limits, Protected, ResponseMode, ResponsePolicy, ResponseRule,
        Then, When,
    },
    replay::{Replayed, ReplayedResponse},
};
