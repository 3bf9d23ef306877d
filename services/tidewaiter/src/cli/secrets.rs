//! The flags of `secrets`.

use std::path::PathBuf;

use clap::Subcommand;
use jiff::civil::Date;

use super::Format;

/// Commands of `secrets`.
#[derive(Debug, Subcommand)]
pub(crate) enum SecretsCommand {
    /// List the rules by which secrets are found, those of the configuration among them
    #[command(after_help = "Examples:
  tidewaiter secrets rules
  tidewaiter secrets rules --format json | jq -r '.[].id'")]
    Rules {
        /// Output format
        #[arg(long, short, value_enum, default_value = "table")]
        format: Format,
    },
    /// Make a key for fingerprints of secrets; a file that is there is left as it is
    #[command(after_help = "Examples:
  tidewaiter secrets key known-secrets.yaml.key     beside a baseline
  tidewaiter secrets key /etc/tidewaiter/secrets.key   for scanner.secret_key_file")]
    Key {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Make a baseline of the secrets in a report, on standard output: read it before you use it
    #[command(after_help = "Examples:
  tidewaiter scan -f json -o report.json --secret-baseline known.yaml app:1
  tidewaiter secrets baseline report.json --reason 'test bench' --author ada@example.com \\
    --expires 2026-12-31 > known.yaml")]
    Baseline {
        /// A report of one image, as `scan --format json` writes it
        #[arg(value_name = "REPORT")]
        report: PathBuf,
        /// Why they are accepted
        #[arg(long, value_name = "TEXT")]
        reason: String,
        /// Who accepts them
        #[arg(long, value_name = "NAME")]
        author: String,
        /// The last day on which that holds
        #[arg(long, value_name = "DATE")]
        expires: Date,
    },
}
