//! Checks of how an image is built: of its Dockerfile, or of the one that its history tells of.

use std::sync::LazyLock;

use model::Misconfiguration;
use regex::Regex;

use super::{
    catalog::finding,
    instruction::{Instruction, Keyword},
};

/// Bytes of an instruction that evidence shows.
const EVIDENCE_BYTES_MAX: usize = 160;

/// Where the instructions come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin<'a> {
    /// An image's history: the base image's instructions are among them, and its config tells the rest.
    History,
    /// A Dockerfile at this path.
    Dockerfile(&'a str),
}

/// An expression for commands; a test shows that each can be compiled.
type Pattern = LazyLock<Option<Regex>>;

static PIPE_TO_SHELL: Pattern = LazyLock::new(|| {
    Regex::new(
        r#"(?x)
        \b(?:curl|wget|fetch)\b (?:[^|;&\n]|&[^&])* \| \s* (?:sudo\s+(?:-\S+\s+)*)? (?:\w+=\S*\s+)*
            (?:/(?:usr/)?bin/(?:env\s+)?)?(?<interpreter>(?:ba|da|z|k|a)?sh|python[23]?(?:\.\d+)?|perl|ruby|node)\b
            (?<words>[^|;&\n]*)
        | \b(?:ba|da|z|k|a)?sh\s+(?:-\S+\s+)*(?:<\(|["']?\$\(|["']?`)\s*(?:curl|wget)\b
        | \beval\s+["']?\$\(\s*(?:curl|wget)\b
        | \b(?:source|\.)\s+<\(\s*(?:curl|wget)\b"#,
    )
    .ok()
});

static UNSIGNED: Pattern = LazyLock::new(|| {
    Regex::new(
        r#"(?ix)
        --allow-unauthenticated | --force-yes | --allow-insecure-repositories | --allow-untrusted | --nogpgcheck
        | --no-gpg-checks? | --nosignature | --nodigest | \[[^\]\n]*\btrusted\s*=\s*(?:yes|true)
        # `repo_gpgcheck` is about lists, not packages, and off where nobody says otherwise.
        | (?:^|[^_]|pkg_)gpgcheck\s*=\s*(?:0|no|false)\b
        | Allow(?:InsecureRepositories|Unauthenticated)[\s'"=]*(?:1|yes|true)\b
        | --trusted-host | strict-ssl[=\s]+false"#,
    )
    .ok()
});

static INSECURE_DOWNLOAD: Pattern = LazyLock::new(|| {
    Regex::new(
        r"(?x)
        \bcurl\b [^|;&\n]* (?:\s--insecure\b | \s-[a-zA-Z]*k[a-zA-Z]*(?:\s|$))
        | \bwget\b [^|;&\n]* \s--no-check-certificate\b
        | NODE_TLS_REJECT_UNAUTHORIZED=.?0 | GIT_SSL_NO_VERIFY=.?(?:1|true) | http\.sslVerify[=\s]+.?(?:false|0)
        | PYTHONHTTPSVERIFY=.?0",
    )
    .ok()
});

static UPDATE: Pattern = LazyLock::new(|| {
    Regex::new(r"\b(?:apt-get|apt|aptitude|apk)\s+(?:-\S+\s+)*update\b|\b(?:yum|dnf|microdnf)\s+(?:-\S+\s+)*(?:makecache|check-update)\b").ok()
});

static INSTALL: Pattern = LazyLock::new(|| {
    Regex::new(
        r"\b(?:apt-get|apt|aptitude)\s+[^;&|\n]*\b(?:install|upgrade|dist-upgrade|full-upgrade|build-dep)\b|\bapk\s+[^;&|\n]*\b(?:add|upgrade)\b|\b(?:yum|dnf|microdnf)\s+[^;&|\n]*\b(?:install|update|upgrade)\b",
    )
    .ok()
});

/// How a package manager installs, and what leaves no cache behind it.
struct Cache {
    installs: Pattern,
    cleans: Pattern,
    what: &'static str,
}

const PIP: &str = "the cache of pip";

static CACHES: [Cache; 4] = [
    Cache {
        installs: LazyLock::new(|| {
            Regex::new(r"\b(?:apt-get|apt|aptitude)\s+[^;&|\n]*\binstall\b").ok()
        }),
        cleans: LazyLock::new(|| {
            Regex::new(r"(?x) \brm\s+[^;&|\n]*/var/lib/(?:apt\b|\{[^}\n]*\bapt\b) | \bfind\s+[^;&|\n]*/var/lib/apt\b[^;&|\n]*-delete\b
                | \bapt(?:-get)?\s+(?:-\S+\s+)*dist-?clean\b | type=cache[^\n]*/apt").ok()
        }),
        what: "the lists of apt",
    },
    Cache {
        installs: LazyLock::new(|| Regex::new(r"\bapk\s+[^;&|\n]*\badd\b").ok()),
        cleans: LazyLock::new(|| {
            Regex::new(r"--no-cache\b|rm\s+[^;&|\n]*/var/cache/(?:apk|\*)|type=cache[^\n]*/apk|\bapk\s+cache\s+clean").ok()
        }),
        what: "the cache of apk",
    },
    Cache {
        installs: LazyLock::new(|| {
            Regex::new(r"\b(?:yum|dnf|microdnf)\s+[^;&|\n]*\binstall\b").ok()
        }),
        cleans: LazyLock::new(|| {
            Regex::new(r"\b(?:yum|dnf|microdnf)\s+[^;&|\n]*\bclean\b|rm\s+[^;&|\n]*/var/cache/(?:yum|dnf|libdnf5|\*)|type=cache[^\n]*/var/cache").ok()
        }),
        what: "the cache of yum or dnf",
    },
    Cache {
        installs: LazyLock::new(|| Regex::new(r"\bpip[23]?(?:\.\d+)?\s+[^;&|\n]*\binstall\b").ok()),
        cleans: LazyLock::new(|| {
            Regex::new(r"--no-cache(?:-dir)?\b|PIP_NO_CACHE_DIR|type=cache|rm\s+[^;&|\n]*\.cache|\bpip[23]?\s+cache\s+purge").ok()
        }),
        what: PIP,
    },
];

static WORLD_WRITABLE: Pattern = LazyLock::new(|| {
    Regex::new(r"\bchmod\s+(?:-\S+\s+)*(?:[0246]?[0-7]{2}[2367]\b|[ugoa]*[oa][ugoa]*[+=][rxXst]*w)")
        .ok()
});

static NO_PASSWORD: Pattern = LazyLock::new(|| Regex::new(r"NOPASSWD\s*:").ok());

static EMPTY_PASSWORD: Pattern = LazyLock::new(|| {
    Regex::new(
        r#"\bpasswd\s+(?:-d|--delete)\b|\buseradd\s+[^;&|\n]*(?:-p|--password)[ =](?:""|'')"#,
    )
    .ok()
});

static SSH_SERVER: Pattern = LazyLock::new(|| {
    Regex::new(r"\b(?:install|add)\b[^;&|\n]*\s(?:openssh-server|openssh|dropbear|ssh)(?:\s|$)|\bsshd\b[^;&|\n]*-D\b").ok()
});

/// Directories that belong to the system.
const SYSTEM_PATHS: &[&str] = &[
    "/",
    "/bin",
    "/boot",
    "/dev",
    "/etc",
    "/lib",
    "/lib64",
    "/proc",
    "/root",
    "/run",
    "/sbin",
    "/sys",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/usr/sbin",
    "/usr/local",
    "/usr/local/bin",
    "/var",
    "/var/lib",
    "/var/run",
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/var/lib/docker",
    "/var/lib/kubelet",
];

/// The greatest port that only root may listen on.
const PRIVILEGED_PORT_MAX: u16 = 1023;
const SSH_PORT: u16 = 22;

/// Everything that the instructions themselves show.
pub(crate) fn check(
    instructions: &[Instruction],
    origin: Origin<'_>,
    out: &mut Vec<Misconfiguration>,
) {
    let mut stages: Vec<String> = Vec::new();
    let (mut is_empty, mut keeps_pip_cache) = (true, true);
    for one in instructions {
        match one.keyword {
            Keyword::Run => run(one, origin, keeps_pip_cache, out),
            Keyword::Add => add(one, is_empty, origin, out),
            Keyword::From => from(one, origin, &mut stages, out),
            Keyword::Env if one.arguments.contains("PIP_NO_CACHE_DIR") => keeps_pip_cache = false,
            _ => {}
        }
        is_empty &= !matches!(one.keyword, Keyword::Run | Keyword::Add | Keyword::Copy);
    }
}

/// What a Dockerfile says of the image that comes of it: of its last stage.
pub(crate) fn check_outcome(
    instructions: &[Instruction],
    path: &str,
    out: &mut Vec<Misconfiguration>,
) {
    let start = instructions
        .iter()
        .rposition(|one| one.keyword == Keyword::From);
    let last = instructions
        .get(start.unwrap_or_default()..)
        .unwrap_or_default();
    let of = |keyword| last.iter().rfind(move |one| one.keyword == keyword);
    let origin = Origin::Dockerfile(path);
    match of(Keyword::User) {
        None => out.extend(finding("user-root", "there is no `USER`", Some(path), None)),
        Some(one) if is_root(&one.arguments) => push("user-root", one, origin, out),
        Some(_) => {}
    }
    match of(Keyword::Healthcheck) {
        None => out.extend(finding(
            "no-healthcheck",
            "there is no `HEALTHCHECK`",
            Some(path),
            None,
        )),
        Some(one) if one.arguments.eq_ignore_ascii_case("none") => {
            push("no-healthcheck", one, origin, out);
        }
        Some(_) => {}
    }
    for one in last {
        match one.keyword {
            Keyword::Expose => {
                for port in one.words() {
                    if let Some(id) = port_check(&port) {
                        push(id, one, origin, out);
                    }
                }
            }
            Keyword::Volume if one.words().iter().any(|volume| is_system_path(volume)) => {
                push("volume-over-system-path", one, origin, out);
            }
            _ => {}
        }
    }
}

/// The check that refuses a port, as `80/tcp` or `20-25`.
pub(crate) fn port_check(port: &str) -> Option<&'static str> {
    let bare = port.split('/').next().unwrap_or(port);
    let (first, last) = bare.split_once('-').unwrap_or((bare, bare));
    let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
    if (first..=last).contains(&SSH_PORT) {
        return Some("ssh-server");
    }
    (first <= PRIVILEGED_PORT_MAX).then_some("privileged-port")
}

pub(crate) fn is_system_path(volume: &str) -> bool {
    let bare = volume.trim_end_matches('/');
    let bare = if bare.is_empty() { "/" } else { bare };
    SYSTEM_PATHS.contains(&bare)
}

/// Whether a `USER` is root, by name or number.
pub(crate) fn is_root(user: &str) -> bool {
    let user = user.trim().trim_matches('"');
    let name = user.split(':').next().unwrap_or(user);
    name.is_empty() || name == "root" || name.parse() == Ok(0_u32)
}

fn run(
    one: &Instruction,
    origin: Origin<'_>,
    keeps_pip_cache: bool,
    out: &mut Vec<Misconfiguration>,
) {
    let text = one.arguments.as_str();
    let has = |pattern: &Pattern| pattern.as_ref().is_some_and(|regex| regex.is_match(text));
    if pipes_to_shell(text) {
        push("pipe-to-shell", one, origin, out);
    }
    let simple: [(&str, &Pattern); 6] = [
        ("unsigned-packages", &UNSIGNED),
        ("insecure-download", &INSECURE_DOWNLOAD),
        ("world-writable-build", &WORLD_WRITABLE),
        ("sudo-without-password", &NO_PASSWORD),
        ("empty-password", &EMPTY_PASSWORD),
        ("ssh-server", &SSH_SERVER),
    ];
    for (id, pattern) in simple {
        // The files of an image show these better than its history.
        let is_of_files = matches!(
            id,
            "world-writable-build" | "sudo-without-password" | "empty-password" | "ssh-server"
        );
        if has(pattern) && !(is_of_files && origin == Origin::History) {
            push(id, one, origin, out);
        }
    }
    if has(&UPDATE) && !has(&INSTALL) {
        push("update-alone", one, origin, out);
    }
    for cache in &CACHES {
        let is_kept = keeps_pip_cache || cache.what != PIP;
        if is_kept && has(&cache.installs) && !has(&cache.cleans) {
            let evidence = format!("{} stays: {}", cache.what, excerpt(one, origin));
            out.extend(at("package-cache", evidence, one, origin));
        }
    }
}

/// Whether what is fetched is run, and not only read by a program that stands in the instruction.
fn pipes_to_shell(text: &str) -> bool {
    let mut found = PIPE_TO_SHELL
        .iter()
        .flat_map(|regex| regex.captures_iter(text));
    found.any(|captures| {
        let group = |name| captures.name(name).map(|found| found.as_str());
        let (interpreter, words) = (group("interpreter"), group("words"));
        interpreter.is_none_or(|name| runs_its_input(name, words.unwrap_or_default()))
    })
}

/// Whether an interpreter with these words behind its name runs what it is sent: one that has a program,
/// as `python3 -c '…'` or `perl get.pl`, takes it as data.
fn runs_its_input(interpreter: &str, words: &str) -> bool {
    let is_shell = interpreter.ends_with("sh");
    // Behind these letters stands a program, or its name.
    let letters: &[char] = match interpreter {
        _ if is_shell => &['c'],
        name if name.starts_with("python") => &['c', 'm'],
        _ => &['e', 'E', 'n', 'p'],
    };
    for word in words.split_whitespace() {
        let bare = word.trim_matches(['"', '\'', '`', ')']);
        match bare.strip_prefix('-') {
            // The end of what this command is in, or where its output goes.
            _ if bare.is_empty() || bare.contains(['<', '>']) => {}
            Some("") => return true,
            Some("-eval" | "-print") => return false,
            Some(option) if option.starts_with('-') => {}
            Some(option) if option.contains(letters) => return false,
            Some(option) if is_shell && option.contains('s') => return true,
            Some(_) => {}
            None => return word.starts_with('#'),
        }
    }
    true
}

/// `is_empty` says that no instruction before it made a file.
fn add(one: &Instruction, is_empty: bool, origin: Origin<'_>, out: &mut Vec<Misconfiguration>) {
    const UNPACKED: &[&str] = &[
        ".tar", ".tar.gz", ".tgz", ".tar.xz", ".txz", ".tar.bz2", ".tar.zst",
    ];
    let words = one.words();
    let sources = words
        .split_last()
        .map_or(&[] as &[String], |(_, sources)| sources);
    let is_remote = |word: &String| word.contains("://") || word.starts_with("git@");
    // What is pinned by its digest is no surprise.
    if one.arguments.contains("--checksum=") {
        return;
    }
    if sources.iter().any(is_remote) {
        return push("add-remote", one, origin, out);
    }
    // The root file system of a base image comes by `ADD`, for it is unpacked; so are archives.
    let is_unpacked = |word: &String| {
        UNPACKED
            .iter()
            .any(|end| word.to_ascii_lowercase().ends_with(end))
    };
    let is_root = is_empty && words.last().is_some_and(|to| to == "/");
    if !is_root && !sources.iter().any(is_unpacked) {
        push("add-local", one, origin, out);
    }
}

fn from(
    one: &Instruction,
    origin: Origin<'_>,
    stages: &mut Vec<String>,
    out: &mut Vec<Misconfiguration>,
) {
    let words = one.words();
    let Some(base) = words.first() else {
        return;
    };
    let is_stage = stages.iter().any(|stage| stage.eq_ignore_ascii_case(base));
    // What a variable holds nobody knows before the build.
    let is_known = !is_stage && base != "scratch" && !base.contains('$');
    let name = base.rsplit('/').next().unwrap_or(base);
    let is_pinned =
        base.contains('@') || name.split_once(':').is_some_and(|(_, tag)| tag != "latest");
    if is_known && !is_pinned {
        push("latest-base", one, origin, out);
    }
    if let [_, word, stage, ..] = words.as_slice()
        && word.eq_ignore_ascii_case("as")
    {
        stages.push(stage.clone());
    }
}

fn push(id: &str, one: &Instruction, origin: Origin<'_>, out: &mut Vec<Misconfiguration>) {
    out.extend(at(id, excerpt(one, origin), one, origin));
}

fn at(
    id: &str,
    evidence: String,
    one: &Instruction,
    origin: Origin<'_>,
) -> Option<Misconfiguration> {
    match origin {
        Origin::History => finding(id, evidence, None, None),
        Origin::Dockerfile(path) => finding(id, evidence, Some(path), Some(one.line)),
    }
}

fn excerpt(one: &Instruction, origin: Origin<'_>) -> String {
    let text = one.text.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = text.floor_char_boundary(EVIDENCE_BYTES_MAX);
    let cut = text.get(..end).unwrap_or_default();
    let more = if cut.len() < text.len() { "…" } else { "" };
    match origin {
        Origin::History => format!("step {}: `{cut}{more}`", one.line),
        Origin::Dockerfile(_) => format!("`{cut}{more}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_patterns_can_be_compiled() {
        let caches = CACHES
            .iter()
            .flat_map(|cache| [&cache.installs, &cache.cleans]);
        let others = [
            &PIPE_TO_SHELL,
            &UNSIGNED,
            &INSECURE_DOWNLOAD,
            &UPDATE,
            &INSTALL,
            &WORLD_WRITABLE,
            &NO_PASSWORD,
            &EMPTY_PASSWORD,
            &SSH_SERVER,
        ];
        for pattern in caches.chain(others) {
            assert!(pattern.is_some());
        }
    }

    #[test]
    fn users_and_ports_are_told_apart() {
        for user in ["", "root", "0", "0:0", "root:wheel", "\"0\"", "00"] {
            assert!(is_root(user), "{user}");
        }
        for user in ["app", "1000", "1000:0", "10"] {
            assert!(!is_root(user), "{user}");
        }
        let check =
            |port: &str, expected: Option<&str>| assert_eq!(port_check(port), expected, "{port}");
        check("80/tcp", Some("privileged-port"));
        check("22", Some("ssh-server"));
        check("20-30/tcp", Some("ssh-server"));
        check("8080/tcp", None);
        check("$PORT", None);
    }
}
