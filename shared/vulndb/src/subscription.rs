//! What only subscribers get a fix for, as Ubuntu's ESM and Pro: it affects everybody who has the
//! package, and for who is no subscriber there is no fix.
//!
//! A vendor lists it in an ecosystem of its own. Where the one for everybody has a record of the same
//! name, that one decides: then everybody has a fix, or the subscribers' build alone is affected.

use std::collections::BTreeSet;

use model::FixState;

use crate::{
    ecosystems::{FOR_SUBSCRIBERS, Query},
    evaluate::Evaluation,
    matching::Candidate,
};

/// Leaves out what subscribers are told where everybody is told something of the same name.
pub(crate) fn yield_to_everybodys(candidates: &mut Vec<Candidate<'_>>) {
    let is_for_subscribers = |one: &Candidate<'_>| one.query.method == FOR_SUBSCRIBERS;
    if !candidates.iter().any(is_for_subscribers) {
        return;
    }
    let everybodys: BTreeSet<&str> = candidates
        .iter()
        .filter(|one| !is_for_subscribers(one))
        .map(|one| one.advisory.id.as_str())
        .collect();
    candidates
        .retain(|one| !is_for_subscribers(one) || !everybodys.contains(one.advisory.id.as_str()));
}

/// Takes the fixes from what an advisory for subscribers says of somebody else's package.
pub(crate) fn take_fixes(query: &Query, says: &mut Evaluation) {
    let Evaluation::Affected(hit) = says else {
        return;
    };
    if query.method != FOR_SUBSCRIBERS || hit.fixed.is_empty() {
        return;
    }
    hit.range.push_str("; fixed for subscribers in ");
    hit.range.push_str(&hit.fixed.join(", "));
    hit.fixed.clear();
    hit.fix_state = FixState::NotFixed;
}
