//! What can be typed after `versions`.

use clap::Subcommand;

/// Commands of `versions`.
#[derive(Debug, Subcommand)]
pub(crate) enum VersionsCommand {
    /// Print how two versions compare: `<`, `=` or `>`
    #[command(
        override_usage = "tidewaiter versions compare [OPTIONS] SCHEME A B\n       tidewaiter versions compare [OPTIONS] -",
        after_help = "Examples:
  tidewaiter versions compare deb 1.0~rc1 1.0                prints <
  tidewaiter versions compare maven 1.0 1.0.Final            prints =
  tidewaiter versions compare AlmaLinux:9 1:1.0-1 2.0-1      prints >
  printf 'pypi\\t1.0\\t1.0.0\\n' | tidewaiter versions compare -

Schemes are the types of package URLs, the names of OSV ecosystems, and: apk, bitnami, cargo,
composer, conan, cran, deb, dpkg, gem, generic, github, githubactions, go, golang, hackage, hex,
julia, maven, npm, nuget, pep440, pub, pypi, rpm, semver, swift.

With - it reads lines of scheme, A and B from standard input, separated by tabs, and answers each on
a line: `?` where one of the two is no version of the scheme.

Exit codes: 0 compared, 1 error, 3 undecided: one of the two is no version of the scheme."
    )]
    Compare {
        /// How to compare: `deb`, `pypi`, `AlmaLinux:9`; or - for standard input
        #[arg(value_name = "SCHEME")]
        scheme: String,
        /// The two versions
        #[arg(value_name = "VERSION", num_args = 0..=2)]
        versions: Vec<String>,
    },
}
