//! Flags and commands of other scanners, and what they are called here.

use clap::error::{ContextKind, ContextValue, Error, ErrorKind};

/// Flags of Trivy, Grype and their like, and what to do instead.
const FLAGS: &[(&[&str], &str)] = &[
    (
        &["--input", "--image-src", "--from"],
        "name the place in the target: FILE.tar, docker-archive:FILE, docker:NAME:TAG, registry:NAME",
    ),
    (&["--file"], "write to a file with --output FORMAT=FILE"),
    (
        &["--template", "-t"],
        "--format json has every field; jq makes any other form of it",
    ),
    (
        &[
            "--list-all-pkgs",
            "--dependency-tree",
            "--pkg-types",
            "--vuln-type",
            "--pkg-relationships",
        ],
        "every package is in --format json, with its type and what it depends on",
    ),
    (
        &["--security-checks", "--image-config-scanners"],
        "everything is looked for in one pass, or what --scanners names; a --policy decides what counts",
    ),
    (
        &[
            "--ignorefile",
            "--ignore-policy",
            "--ignore-states",
            "--ignore-status",
            "--only-notfixed",
        ],
        "waivers with reason and expiry stand in the --policy file",
    ),
    (
        &["--exit-on-eol"],
        "an operating system without updates makes the verdict `incomplete`; the --policy file sets another decision",
    ),
    (
        &[
            "--skip-db-update",
            "--skip-java-db-update",
            "--offline-scan",
            "--offline",
        ],
        "nothing is fetched while scanning: `tidewaiter db update` does that, and only that",
    ),
    (
        &["--download-db-only", "--download-java-db-only"],
        "run `tidewaiter db update`",
    ),
    (
        &["--db-repository", "--java-db-repository"],
        "run `tidewaiter db update --url URL` with a mirror of OSV.dev",
    ),
    (
        &["--reset", "--clear-cache", "--cache-backend", "--cache-ttl"],
        "the cache is a directory, see --cache-dir; it bounds itself, and deleting it loses nothing",
    ),
    (
        &[
            "--insecure",
            "--insecure-skip-tls-verify",
            "--insecure-use-http",
        ],
        "a registry without TLS is named with --plain-http HOST; certificates are always checked",
    ),
    (
        &[
            "--username",
            "--password",
            "--registry-token",
            "--password-stdin",
        ],
        "log in with `docker login HOST`; its credentials and helpers are used",
    ),
    (
        &["--debug", "-d", "--verbose", "-v", "-vv"],
        "--log debug shows more, --log scanner=debug of one part",
    ),
    (
        &["--no-color", "--color"],
        "NO_COLOR=1 turns colors off, CLICOLOR_FORCE=1 on; pipes get none",
    ),
    (
        &["--exclude", "--file-patterns"],
        "leave paths out with --skip-dirs and --skip-files",
    ),
    (
        &["--docker-host", "--podman-host"],
        "set DOCKER_HOST or CONTAINER_HOST to a unix:// socket",
    ),
    (
        &["--scope", "--removed-pkgs"],
        "what a later layer deleted is not counted; findings in it are kept and marked",
    ),
    (
        &[
            "--by-cve",
            "--add-cpes-if-none",
            "--distro",
            "--detection-priority",
        ],
        "the operating system is taken from the image, and vulnerabilities have their CVE id",
    ),
    (
        &["--vex", "--show-vex"],
        "VEX documents cannot be given yet; waivers stand in the --policy file",
    ),
    (
        &["--server", "--token", "--remote"],
        "ask a server with `tidewaiter check IMAGE --server URL`",
    ),
    (
        &["--parallel", "--slow"],
        "layers are read side by side on all cores; scanner.layers_at_once in --config sets another number",
    ),
    (
        &["--report", "--name"],
        "choose a form with --format, and rules with --policy",
    ),
];

/// Commands of theirs.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["image", "i", "registry"], "tidewaiter scan IMAGE"),
    (&["fs", "filesystem", "dir"], "tidewaiter scan ./DIR"),
    (&["rootfs", "vm"], "tidewaiter scan rootfs:DIR"),
    (
        &["repo", "repository"],
        "tidewaiter scan ./DIR, of a checked out repository",
    ),
    (
        &["server", "client"],
        "tidewaiter serve, and tidewaiter check IMAGE --server URL",
    ),
    (
        &["clean", "cache"],
        "tidewaiter doctor, which says where the cache is; deleting it loses nothing",
    ),
];

/// The hint for what could not be parsed, if there is one.
pub(crate) fn of(error: &Error) -> Option<String> {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    match error.kind() {
        ErrorKind::UnknownArgument => {
            let flag = text(ContextKind::InvalidArg)?;
            let name = flag.split(['=', ' ']).next()?;
            let hint = find(FLAGS, name)?;
            Some(format!("instead of `{name}`: {hint}"))
        }
        ErrorKind::InvalidSubcommand => {
            let word = text(ContextKind::InvalidSubcommand)?;
            if let Some(hint) = find(COMMANDS, word) {
                return Some(format!("instead of `{word}`: {hint}"));
            }
            // As with Grype, the target alone.
            let is_target = word.contains([':', '/', '.', '@']);
            is_target.then(|| format!("to scan it: tidewaiter scan {word}"))
        }
        _ => None,
    }
}

fn find(table: &[(&[&str], &'static str)], name: &str) -> Option<&'static str> {
    let row = table.iter().find(|(names, _)| names.contains(&name));
    row.map(|(_, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser as _};

    use super::*;
    use crate::cli::Cli;

    fn check(line: &[&str], expected: &str) {
        let line = std::iter::once("tidewaiter").chain(line.iter().copied());
        let error = Cli::try_parse_from(line).unwrap_err();
        let hint = of(&error).unwrap_or_else(|| panic!("no hint for {error}"));
        assert!(hint.contains(expected), "{hint}");
    }

    #[test]
    fn every_flag_of_theirs_gets_its_hint() {
        for (names, hint) in FLAGS {
            for name in *names {
                check(&["scan", "debian", name, "x"], hint);
            }
        }
        check(&["scan", "--security-checks=vuln", "debian"], "--scanners");
    }

    #[test]
    fn every_command_of_theirs_gets_its_hint() {
        for (names, hint) in COMMANDS {
            for name in *names {
                check(&[name, "debian"], hint);
            }
        }
        check(&["debian:12"], "tidewaiter scan debian:12");
    }

    #[test]
    fn hints_name_flags_that_exist() {
        let mut cli = Cli::command();
        cli.build();
        let mut known: Vec<String> = Vec::new();
        let mut open = vec![&cli];
        while let Some(command) = open.pop() {
            let flags = command.get_arguments().filter_map(clap::Arg::get_long);
            known.extend(flags.map(|flag| format!("--{flag}")));
            open.extend(command.get_subcommands());
        }
        for (_, hint) in FLAGS.iter().chain(COMMANDS) {
            let words = hint.split([' ', '`', ',', ';', '.']);
            for flag in words.filter(|word| word.starts_with("--")) {
                assert!(known.iter().any(|known| known == flag), "{flag} in {hint}");
            }
        }
    }
}
