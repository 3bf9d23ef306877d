//! Exit codes, as architecture section 12 fixes them.

use std::{io::Write as _, process::ExitCode};

use model::Decision;
use oci::OciError;

/// How the program ends. Of several targets the worst counts; the order is the order of badness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Exit {
    /// Allow or warn.
    Ok,
    /// `check`: no verdict yet.
    NoVerdict,
    /// Policy could not decide.
    Incomplete,
    /// Policy said no; the code may be replaced by `--exit-code`.
    Deny(u8),
    /// It took longer than `--timeout`.
    Timeout,
    /// The image could not be pulled, or the registry refused us.
    Pull,
    /// Anything else, usage errors and panics included.
    Error,
    /// Ctrl-C.
    Interrupted,
}

/// What ended a command early, with its exit code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Ended {
    pub(crate) exit: Exit,
    pub(crate) message: String,
}

// === impl Exit ===

impl Exit {
    /// The default code of a denial.
    pub(crate) const DENY: u8 = 2;

    /// The exit of a decision.
    pub(crate) const fn decided(decision: Decision, deny: u8, allow_incomplete: bool) -> Self {
        match decision {
            Decision::Allow | Decision::Warn => Self::Ok,
            Decision::Incomplete if allow_incomplete => Self::Ok,
            Decision::Incomplete => Self::Incomplete,
            Decision::Deny => Self::Deny(deny),
        }
    }

    /// The exit of an error, by its cause.
    pub(crate) fn of(error: &anyhow::Error) -> Self {
        for cause in error.chain() {
            if let Some(ended) = cause.downcast_ref::<Ended>() {
                return ended.exit;
            }
            if cause.is::<OciError>() {
                return Self::Pull;
            }
        }
        Self::Error
    }

    /// Ends the process here, without what libraries do at its end: the allocator would give back piece
    /// by piece what the system takes at once, a twentieth of a scan of known layers.
    #[expect(unsafe_code, reason = "no safe function leaves the handlers out")]
    pub(crate) fn at_once(self) -> ! {
        // Nothing can be done where it does not get out.
        drop(std::io::stdout().flush());
        // SAFETY: it has no conditions and does not come back. What ends with it: threads that were given
        // up, and handlers of libraries that have nothing left to write.
        unsafe { libc::_exit(self.code().into()) }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Error => 1,
            Self::Deny(code) => code,
            Self::Incomplete => 3,
            Self::Pull => 4,
            Self::Timeout => 5,
            Self::NoVerdict => 6,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_those_of_the_contract() {
        let codes = [
            (Exit::Ok, 0),
            (Exit::Error, 1),
            (Exit::Deny(Exit::DENY), 2),
            (Exit::Deny(9), 9),
            (Exit::Incomplete, 3),
            (Exit::Pull, 4),
            (Exit::Timeout, 5),
            (Exit::NoVerdict, 6),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in codes {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
    }

    #[test]
    fn allow_incomplete_changes_nothing_else() {
        assert_eq!(Exit::decided(Decision::Incomplete, 2, true), Exit::Ok);
        assert_eq!(Exit::decided(Decision::Deny, 2, true), Exit::Deny(2));
    }
}
