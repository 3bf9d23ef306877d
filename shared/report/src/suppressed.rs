//! Which vulnerabilities somebody has answered already.

use model::Vulnerability;

/// Accepted by a waiver, or said by a VEX document to be none.
pub(crate) fn is_suppressed(found: &Vulnerability) -> bool {
    found.waived.is_some() || vex_status(found).is_some()
}

/// The status by which a VEX document says that there is nothing to do.
pub(crate) fn vex_status(found: &Vulnerability) -> Option<&str> {
    let status = found.vex.as_ref().map(|vex| vex.status.as_str());
    status.filter(|status| matches!(*status, "not_affected" | "fixed"))
}
