//! `tidewaiter`: the command line and the control plane in one binary.
//!
//! The decision that shapes it: one program for a laptop, one host and a fleet. `scan` calls the
//! same library functions that the workers call, without a broker; `serve` runs the roles that it
//! is told to, each of which knows nothing of the others. The price is one large binary.
//!
//! It holds no logic of its own beyond wiring: a rule about images belongs in the crate that owns it.
//! A new command is one file in `commands/` and one variant in [`cli::Command`].

mod advice;
mod api;
mod broker;
mod cli;
mod client;
mod commands;
mod config;
mod exit;
mod memory;
mod paths;
mod roles;
mod rules;
mod secrets;
mod sources;
mod terminal;
mod tokens;

use std::{io::Write as _, process::ExitCode};

use clap::{Parser as _, error::ErrorKind};

use crate::{cli::Cli, exit::Exit};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let shown = matches!(
                error.kind(),
                ErrorKind::DisplayHelp | ErrorKind::DisplayVersion
            );
            // Nothing can be done where not even the terminal takes the message.
            drop(error.print());
            if let Some(hint) = cli::hints::of(&error) {
                complain(&format!("\n  hint: {hint}"));
            }
            return if shown {
                Exit::Ok.into()
            } else {
                Exit::Error.into()
            };
        }
    };
    let is_scan = matches!(cli.command, cli::Command::Scan(_));
    if is_scan {
        memory::give_back_soon();
    }
    let outcome = std::panic::catch_unwind(|| commands::run(cli));
    let exit = match outcome {
        Ok(Ok(exit)) => exit,
        Ok(Err(error)) => {
            advice::complain(&error);
            Exit::of(&error)
        }
        // The panic has printed itself.
        Err(_) => Exit::Error,
    };
    if is_scan {
        exit.at_once();
    }
    exit.into()
}

/// Tells the user on standard error; whether that can be written changes nothing.
fn complain(message: &str) {
    drop(writeln!(std::io::stderr(), "{message}"));
}
