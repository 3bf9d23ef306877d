//! Where reports go: standard output, files, or both.

use std::path::PathBuf;

use anyhow::{Context as _, ensure};
use model::{Report, Reports, Verdict};
use policy::Policy;
use report::{Format, Options};

use super::compliance;
use crate::{
    cli::{OutputTo, ScanArgs},
    commands::print_bytes,
    terminal,
};

/// The reports of one target.
pub(super) enum Document {
    /// Of one image.
    One(Box<Report>),
    /// Of every platform of an index.
    Platforms(Box<Reports>),
}

/// What is written where.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Outputs(Vec<(Format, Option<PathBuf>)>);

// === impl Outputs ===

impl Outputs {
    /// What the flags say.
    pub(super) fn of(args: &ScanArgs) -> anyhow::Result<Self> {
        let outputs: Vec<_> = if args.output.is_empty() {
            vec![(args.format, None)]
        } else {
            let to = |to: &OutputTo| (to.format.unwrap_or(args.format), to.file.clone());
            args.output.iter().map(to).collect()
        };
        for (at, (_, file)) in outputs.iter().enumerate() {
            let again = outputs.iter().skip(at + 1).any(|(_, other)| other == file);
            let place = file.as_ref().map_or_else(
                || "standard output".to_owned(),
                |file| format!("`{}`", file.display()),
            );
            ensure!(
                !again,
                "{place} can get one report: --output names it twice"
            );
        }
        Ok(Self(outputs))
    }

    /// Whether the report itself is seen on the terminal.
    pub(super) fn use_stdout(&self) -> bool {
        self.0.iter().any(|(_, file)| file.is_none())
    }

    /// Writes everything everywhere. `policy` is the one under which the documents were judged.
    pub(super) fn write(
        &self,
        args: &ScanArgs,
        policy: &Policy,
        documents: &[Document],
    ) -> anyhow::Result<()> {
        for (format, file) in &self.0 {
            let options = options(args, file.is_some());
            let bytes = match args.compliance {
                Some(benchmark) => {
                    compliance::render((benchmark, policy), *format, &options, documents)?
                }
                None => render(*format, &options, documents)?,
            };
            match file {
                None => print_bytes(&bytes)?,
                Some(file) => std::fs::write(file, bytes)
                    .with_context(|| format!("writing the report to `{}`", file.display()))?,
            }
        }
        Ok(())
    }
}

// === impl Document ===

impl Document {
    /// What policy says of it.
    pub(super) fn verdict(&self) -> &Verdict {
        match self {
            Self::One(one) => &one.verdict,
            Self::Platforms(all) => &all.verdict,
        }
    }

    /// The reports in it.
    pub(super) fn reports(&self) -> &[Report] {
        match self {
            Self::One(one) => std::slice::from_ref(&**one),
            Self::Platforms(all) => &all.reports,
        }
    }
}

fn options(args: &ScanArgs, to_file: bool) -> Options {
    Options {
        color: !to_file && terminal::color_out(),
        width: if to_file { None } else { terminal::width() },
        severities: args.severity.clone(),
        ignore_unfixed: args.ignore_unfixed,
        show_suppressed: args.show_suppressed,
        licenses: args.licenses,
    }
}

fn render(format: Format, options: &Options, documents: &[Document]) -> anyhow::Result<Vec<u8>> {
    let mut out = Vec::new();
    for document in documents {
        match document {
            Document::One(one) => report::render(one, format, options, &mut out)?,
            Document::Platforms(all) => report::render_all(all, format, options, &mut out)?,
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn outputs(flags: &[&str]) -> anyhow::Result<Outputs> {
        let line = ["tidewaiter", "scan", "debian"].into_iter();
        let cli = Cli::try_parse_from(line.chain(flags.iter().copied()))?;
        let Command::Scan(args) = cli.command else {
            anyhow::bail!("it is no scan")
        };
        Outputs::of(&args)
    }

    #[test]
    fn a_format_without_a_file_goes_to_standard_output() {
        let check = |flags: &[&str], expected: &[(Format, Option<&str>)]| {
            let expected = expected
                .iter()
                .map(|(format, file)| (*format, file.map(PathBuf::from)));
            assert_eq!(
                outputs(flags).unwrap(),
                Outputs(expected.collect()),
                "{flags:?}"
            );
        };
        check(&[], &[(Format::Table, None)]);
        check(&["-f", "json"], &[(Format::Json, None)]);
        check(
            &["-f", "json", "-o", "a.json"],
            &[(Format::Json, Some("a.json"))],
        );
        check(
            &["-o", "table", "-o", "json=a.json"],
            &[(Format::Table, None), (Format::Json, Some("a.json"))],
        );
    }

    #[test]
    fn one_place_gets_one_report() {
        for flags in [
            ["-o", "json", "-o", "table"],
            ["-o", "json=a", "-o", "table=a"],
        ] {
            let error = outputs(&flags).unwrap_err().to_string();
            assert!(error.contains("can get one report"), "{error}");
        }
    }
}
