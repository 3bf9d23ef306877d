//! What the user's terminal can show.

use std::io::{IsTerminal, stderr, stdout};

use chassis::config::env_var;

/// Whether colors are wanted on a stream: <https://no-color.org>, <https://bixense.com/clicolors>.
#[derive(Clone, Debug, Default)]
struct ColorWish {
    no_color: bool,
    force: bool,
    is_plain: bool,
}

/// Whether to color what goes to standard output.
pub(crate) fn color_out() -> bool {
    ColorWish::of_environment().on(stdout().is_terminal())
}

/// Whether to color what goes to standard error.
pub(crate) fn color_err() -> bool {
    ColorWish::of_environment().on(stderr().is_terminal())
}

/// Columns of the terminal that standard output goes to; `None` for a pipe or a file. `COLUMNS` is
/// believed first.
pub(crate) fn width() -> Option<usize> {
    if !stdout().is_terminal() {
        return None;
    }
    let told = env_var("COLUMNS").and_then(|columns| columns.parse().ok());
    let asked = || terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
    told.or_else(asked).filter(|columns| *columns > 0)
}

/// Whether somebody sees what moves on standard error.
pub(crate) fn shows_progress() -> bool {
    stderr().is_terminal() && !is_dumb()
}

// === impl ColorWish ===

impl ColorWish {
    fn of_environment() -> Self {
        let is_on = |name: &str| env_var(name).is_some_and(|value| value != "0");
        Self {
            no_color: env_var("NO_COLOR").is_some(),
            force: is_on("CLICOLOR_FORCE"),
            is_plain: is_dumb() || env_var("CLICOLOR").is_some_and(|value| value == "0"),
        }
    }

    const fn on(&self, is_terminal: bool) -> bool {
        !self.no_color && (self.force || (is_terminal && !self.is_plain))
    }
}

/// Whether the terminal only writes lines.
fn is_dumb() -> bool {
    env_var("TERM").is_some_and(|term| term == "dumb")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn colors_are_for_terminals_unless_somebody_says_otherwise() {
        let plain = ColorWish::default();
        assert!(plain.on(true) && !plain.on(false));
        let forced = ColorWish {
            force: true,
            ..plain.clone()
        };
        assert!(forced.on(false));
        for off in [
            ColorWish {
                no_color: true,
                ..forced
            },
            ColorWish {
                is_plain: true,
                ..plain
            },
        ] {
            assert!(!off.on(true), "{off:?}");
        }
    }
}
