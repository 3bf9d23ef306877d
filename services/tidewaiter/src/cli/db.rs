//! The flags of `db`.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use model::VerifyingKey;

use super::OptionalServer;

/// Commands of `db`.
#[derive(Debug, Subcommand)]
pub(crate) enum DbCommand {
    /// Fetch advisories from OSV.dev or a mirror: whole the first time, then what changed
    #[command(after_help = "Examples:
  tidewaiter db update                               what is here already, or the usual ecosystems
  tidewaiter db update --ecosystem Debian --ecosystem PyPI
  tidewaiter db update --ecosystem KEV --ecosystem EPSS   what is known of exploitation
  tidewaiter db update --server http://127.0.0.1:8080    a running server's
  tidewaiter db update --from https://mirror.example/advisories --trust KEY   an unpacked export
  tidewaiter db update --from http://127.0.0.1:8080/v1/advisories --token-file FILE   a server's own")]
    Update {
        /// Take what another one has: an export that lies unpacked at a URL, or a server's
        /// `/v1/advisories`, which is trusted where --token-file names a token for it. What differs is
        /// fetched and nothing else
        #[arg(long, value_name = "URL", conflicts_with_all = ["url", "ecosystems"])]
        from: Option<String>,
        /// The public key of somebody whose exports are taken, beside those of the configuration
        /// file; may be repeated
        #[arg(long, value_name = "KEY", requires = "from")]
        trust: Vec<VerifyingKey>,
        /// Take an export that nobody signed, or whose signer nobody trusts
        #[arg(long, requires = "from")]
        unsigned: bool,
        /// Where the exports are, in OSV.dev's layout
        #[arg(long, value_name = "URL")]
        url: Option<String>,
        /// Only these ecosystems
        #[arg(long = "ecosystem", value_name = "NAME")]
        ecosystems: Vec<String>,
        #[command(flatten)]
        place: DbPlace,
    },
    /// Import OSV records from a directory or a zip, or what `db export` wrote
    #[command(after_help = "Examples:
  tidewaiter db import ./advisories --replace        every *.json below it, as a whole feed
  tidewaiter db import ./more                        adds to it; covers no more than before
  tidewaiter db import Debian/all.zip --replace --feed Debian
  tidewaiter db import known_exploited_vulnerabilities.json   CISA's catalog
  tidewaiter db import advisories.export --trust KEY
  tidewaiter db import new.json.d --server http://127.0.0.1:8080")]
    Import {
        /// A directory of OSV records, a zip in the layout of OSV.dev's all.zip, or an export
        #[arg(required = true, value_name = "PATH")]
        paths: Vec<PathBuf>,
        /// The feed that the records belong to; otherwise the directory's or zip's name
        #[arg(long, value_name = "NAME")]
        feed: Option<String>,
        /// The records are the whole feed: what is missing is withdrawn, and only such a feed covers
        /// ecosystems and has an age
        #[arg(long)]
        replace: bool,
        /// The public key of somebody whose exports are taken, beside those of the configuration
        /// file; may be repeated
        #[arg(long, value_name = "KEY")]
        trust: Vec<VerifyingKey>,
        /// Take an export that nobody signed, or whose signer nobody trusts
        #[arg(long)]
        unsigned: bool,
        #[command(flatten)]
        place: DbPlace,
    },
    /// Write the advisories into one signed file, for sites without a network
    #[command(after_help = "Examples:
  tidewaiter db key export.key                       once; prints the public key
  tidewaiter db export advisories.export --key export.key
  tidewaiter db export advisories.export --key export.key --server http://127.0.0.1:8080
  tidewaiter db import advisories.export --trust KEY      at the other site")]
    Export {
        /// The file to write
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// The key to sign with, as `db key` wrote it
        #[arg(long, value_name = "FILE", required_unless_present = "unsigned")]
        key: Option<PathBuf>,
        /// Write it without a signature
        #[arg(long, conflicts_with = "key")]
        unsigned: bool,
        #[command(flatten)]
        place: DbPlace,
    },
    /// Make a key that signs exports, and print its public half
    Key {
        /// The file to write, for its owner alone
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Show revision, feeds, their age, and what they can tell
    Status {
        #[command(flatten)]
        place: DbPlace,
    },
}

/// Which advisories a `db` command means.
#[derive(Clone, Debug, Args)]
pub(crate) struct DbPlace {
    #[command(flatten)]
    pub(crate) server: OptionalServer,
    /// Where layers and advisories are cached, instead of the user's cache directory
    #[arg(long, value_name = "DIR", env = "TIDEWAITER_CACHE_DIR")]
    pub(crate) cache_dir: Option<PathBuf>,
}
