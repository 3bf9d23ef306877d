//! `versions`: how versions compare, for whoever doubts a verdict and for test vectors.

use std::{
    cmp::Ordering,
    io::{self, BufRead, Read as _},
};

use anyhow::{Context as _, bail, ensure};

use crate::{
    cli::{Global, VersionsCommand},
    commands::print,
    complain,
    exit::{Ended, Exit},
};

/// Two versions of the longest kind, and the name of a scheme, have less.
const LINE_BYTES_MAX: u64 = 4096;

pub(crate) fn run(global: &Global, command: &VersionsCommand) -> anyhow::Result<Exit> {
    let VersionsCommand::Compare { scheme, versions } = command;
    match versions.as_slice() {
        [] if scheme == "-" => lines(io::stdin().lock(), global.quiet),
        [a, b] => {
            let found = compare(scheme, a, b)?;
            let ordering = found.map_err(|why| Ended {
                exit: Exit::Incomplete,
                message: format!("undecided: {why}"),
            })?;
            print(&format!("{}\n", sign(ordering)))?;
            Ok(Exit::Ok)
        }
        _ => bail!("give a scheme and two versions, or - alone to read them from standard input"),
    }
}

/// Answers each line, one by one: whoever writes them may wait for the answer.
fn lines(mut input: impl BufRead, is_quiet: bool) -> anyhow::Result<Exit> {
    let mut exit = Exit::Ok;
    let mut line = Vec::new();
    for number in 1_u64.. {
        line.clear();
        let mut bounded = input.by_ref().take(LINE_BYTES_MAX);
        let length = bounded.read_until(b'\n', &mut line);
        if length.context("reading standard input")? == 0 {
            break;
        }
        let is_whole = line.ends_with(b"\n") || (line.len() as u64) < LINE_BYTES_MAX;
        ensure!(
            is_whole,
            "line {number} is longer than {LINE_BYTES_MAX} bytes"
        );
        let text = str::from_utf8(&line).with_context(|| format!("line {number} is no text"))?;
        let fields: Vec<&str> = text.trim_end_matches(['\n', '\r']).split('\t').collect();
        let [scheme, a, b] = fields[..] else {
            bail!("line {number} is not a scheme and two versions with tabs between them");
        };
        let found = compare(scheme, a, b).with_context(|| format!("line {number}"))?;
        match found {
            Ok(ordering) => print(&format!("{}\n", sign(ordering)))?,
            Err(why) => {
                print("?\n")?;
                if !is_quiet {
                    complain(&format!("line {number} is undecided: {why}"));
                }
                exit = Exit::Incomplete;
            }
        }
    }
    Ok(exit)
}

/// An error where the scheme is unknown; inside, why the versions cannot be compared.
fn compare(
    scheme: &str,
    a: &str,
    b: &str,
) -> anyhow::Result<Result<Ordering, vulndb::Incomparable>> {
    match vulndb::compare(scheme, a, b) {
        Err(error @ vulndb::Incomparable::Scheme(_)) => {
            let known = vulndb::schemes().join(", ");
            Err(anyhow::anyhow!(
                "{error}; there are the names of OSV ecosystems, and {known}"
            ))
        }
        found => Ok(found),
    }
}

const fn sign(ordering: Ordering) -> &'static str {
    match ordering {
        Ordering::Less => "<",
        Ordering::Equal => "=",
        Ordering::Greater => ">",
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;
    use crate::cli::Cli;

    #[test]
    fn the_help_names_every_scheme() {
        let mut cli = Cli::command();
        let versions = cli
            .find_subcommand_mut("versions")
            .expect("it is a command");
        let compare = versions
            .find_subcommand_mut("compare")
            .expect("it is one of its commands");
        let help = compare.render_long_help().to_string();
        let words: Vec<&str> = help.split([' ', '\n', ',', '.']).collect();
        for scheme in vulndb::schemes() {
            assert!(words.contains(&scheme), "`{scheme}` is not in\n{help}");
        }
    }

    #[test]
    fn a_line_is_read_up_to_its_limit() {
        let line = |length: usize| {
            let start = "pypi\t1\t";
            format!("{start}{}\n", "1".repeat(length - start.len() - 1))
        };
        let most = usize::try_from(LINE_BYTES_MAX).expect("it is small");
        // What is no version is undecided, what is too long an error.
        let exit = lines(line(most).as_bytes(), true).expect("it is read");
        assert_eq!(exit, Exit::Incomplete);
        let error = lines(line(most + 1).as_bytes(), true).unwrap_err();
        assert_eq!(error.to_string(), "line 1 is longer than 4096 bytes");
    }
}
