//! What an interpreter or a loader was told to run.
//!
//! The kernel tells which file it runs; of `sh x`, `python x.py` or `ld.so ./x` that is the
//! interpreter, and what matters is the argument.

use crate::raw::{IS_SCRIPT, RawExec};

/// Programs whose first argument that is no option is a program in their language.
struct Interpreter {
    /// How their names begin; what follows may be a version.
    name: &'static str,
    /// The option that has it run its standard input, where there is one beside `-`.
    input: &'static str,
    /// Options that bring the program along, or something else to run than a file.
    inline: &'static [&'static str],
    /// Options whose value is the next argument.
    valued: &'static [&'static str],
}

const INTERPRETERS: &[Interpreter] = &[
    shell("sh"),
    shell("bash"),
    shell("dash"),
    shell("ash"),
    shell("zsh"),
    shell("ksh"),
    shell("mksh"),
    shell("fish"),
    Interpreter {
        name: "python",
        input: "-",
        inline: &["-c", "-m"],
        valued: &["-W", "-X", "--check-hash-based-pycs"],
    },
    Interpreter {
        name: "pypy",
        input: "-",
        inline: &["-c", "-m"],
        valued: &["-W", "-X"],
    },
    Interpreter {
        name: "perl",
        input: "-",
        inline: &["-e", "-E"],
        valued: &["-I", "-M"],
    },
    Interpreter {
        name: "ruby",
        input: "-",
        inline: &["-e"],
        valued: &["-I", "-r", "-C"],
    },
    Interpreter {
        name: "node",
        input: "-",
        inline: &["-e", "--eval", "-p", "--print"],
        valued: &["-r", "--require", "--import", "--loader"],
    },
    Interpreter {
        name: "nodejs",
        input: "-",
        inline: &["-e", "--eval", "-p", "--print"],
        valued: &["-r", "--require"],
    },
    Interpreter {
        name: "php",
        input: "-",
        inline: &["-r", "-S"],
        valued: &["-c", "-d", "-z"],
    },
    Interpreter {
        name: "lua",
        input: "-",
        inline: &["-e"],
        valued: &["-l"],
    },
    Interpreter {
        name: "tclsh",
        input: "-",
        inline: &[],
        valued: &["-encoding"],
    },
    Interpreter {
        name: "busybox",
        input: "-",
        inline: &["-c"],
        valued: &[],
    },
];

/// Options of glibc's and musl's loader with a value.
const LOADER_VALUED: &[&str] = &[
    "--library-path",
    "--inhibit-rpath",
    "--preload",
    "--argv0",
    "--audit",
    "--glibc-hwcaps-prepend",
    "--glibc-hwcaps-mask",
];

const fn shell(name: &'static str) -> Interpreter {
    Interpreter {
        name,
        input: "-s",
        inline: &["-c"],
        valued: &["-o", "+o", "-O", "--rcfile", "--init-file"],
    }
}

/// What an interpreter or a loader was told to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told<'a> {
    /// A file, by its path as it was written: relative to the working directory.
    File(&'a str),
    /// What comes from its standard input.
    Input,
    /// What stands in its arguments; or it is told nothing.
    Nothing,
}

/// The path of what is run, as it was written: relative to the working directory.
pub(crate) fn of(exec: &RawExec) -> Option<&str> {
    match told(exec) {
        Told::File(path) => Some(path),
        Told::Input | Told::Nothing => None,
    }
}

/// Whether an interpreter runs what comes from its standard input.
pub(crate) fn is_from_input(exec: &RawExec) -> bool {
    told(exec) == Told::Input
}

fn told(exec: &RawExec) -> Told<'_> {
    if exec.flags & IS_SCRIPT != 0 {
        // `/dev/fd/3`: it was given by a descriptor, and has no name that leads to it now.
        let is_descriptor = exec.named.starts_with("/dev/fd/");
        if is_descriptor || exec.named.is_empty() {
            return Told::Nothing;
        }
        return Told::File(&exec.named);
    }
    let file = basename(&exec.path);
    let args = exec.args.get(1..).unwrap_or_default();
    if is_loader(file) {
        return loaded(args).map_or(Told::Nothing, Told::File);
    }
    // Of a multi-call program the first argument says what it is.
    let called = basename(
        exec.args
            .first()
            .map_or("", |first| first.trim_start_matches('-')),
    );
    let names = if file == "busybox" || file == "toybox" {
        [called, file]
    } else {
        [file, called]
    };
    let Some(interpreter) = names.iter().find_map(|name| interpreter(name)) else {
        return Told::Nothing;
    };
    let args = match args.split_first() {
        // `busybox sh x`
        Some((applet, rest)) if interpreter.name == "busybox" => {
            if self::interpreter(applet).is_none() {
                return Told::Nothing;
            }
            rest
        }
        None if interpreter.name == "busybox" => return Told::Nothing,
        _ => args,
    };
    interpreted(interpreter, args)
}

/// `java -jar x.jar` is none of these: the class path is not a program by itself, the jar is.
fn interpreter(name: &str) -> Option<&'static Interpreter> {
    INTERPRETERS.iter().find(|known| {
        let rest = name.strip_prefix(known.name);
        rest.is_some_and(|rest| {
            rest.chars()
                .all(|c| c.is_ascii_digit() || c == '.' || c == '-')
        })
    })
}

fn interpreted<'a>(interpreter: &Interpreter, args: &'a [String]) -> Told<'a> {
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if arg == "--" {
            return args.next().map_or(Told::Input, Told::File);
        }
        if arg == "-" || arg == interpreter.input {
            return Told::Input;
        }
        if arg.is_empty() {
            return Told::Nothing;
        }
        if !arg.starts_with(['-', '+']) {
            return Told::File(arg);
        }
        if is_inline(interpreter, arg) || matches!(arg, "--version" | "--help" | "-V") {
            return Told::Nothing;
        }
        if interpreter.name == "php" && arg == "-f" {
            return args.next().map_or(Told::Nothing, Told::File);
        }
        if interpreter.valued.contains(&arg) {
            args.next();
        }
    }
    Told::Input
}

/// Whether an option brings the program along: `-c`, or one of several letters, as `-lc`.
fn is_inline(interpreter: &Interpreter, arg: &str) -> bool {
    if interpreter.inline.contains(&arg) {
        return true;
    }
    let letters = arg.strip_prefix('-').filter(|rest| !rest.starts_with('-'));
    letters.is_some_and(|letters| {
        let short = interpreter.inline.iter().filter(|option| option.len() == 2);
        short
            .filter_map(|option| option.chars().nth(1))
            .any(|letter| letters.chars().all(char::is_alphabetic) && letters.ends_with(letter))
    })
}

/// Whether a path is that of a shell: it runs a file that the kernel would not.
pub(crate) fn is_shell(path: &str) -> bool {
    let known = interpreter(basename(path));
    known.is_some_and(|known| known.input == "-s" || known.name == "busybox")
}

/// Whether a path is that of a loader of programs.
pub(crate) fn is_loader(path: &str) -> bool {
    let name = basename(path);
    name.starts_with("ld-linux")
        || name.starts_with("ld-musl")
        || name == "ld.so"
        || (name.starts_with("ld-2.") && name.contains(".so"))
}

fn loaded(args: &[String]) -> Option<&str> {
    let mut args = args.iter().map(String::as_str);
    while let Some(arg) = args.next() {
        if !arg.starts_with("--") {
            return Some(arg);
        }
        if matches!(arg, "--list" | "--verify" | "--help" | "--version") {
            return None;
        }
        if LOADER_VALUED.contains(&arg) {
            args.next();
        }
    }
    None
}

fn basename(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(path: &str, args: &[&str], expected: Option<&str>) {
        let exec = RawExec {
            path: path.to_owned(),
            args: args.iter().map(|&arg| arg.to_owned()).collect(),
            ..RawExec::default()
        };
        assert_eq!(of(&exec), expected, "{path} {args:?}");
    }

    #[test]
    fn the_argument_of_an_interpreter_is_what_runs() {
        check("usr/bin/dash", &["sh", "x"], Some("x"));
        check(
            "usr/bin/bash",
            &["bash", "-e", "-o", "pipefail", "/tmp/x"],
            Some("/tmp/x"),
        );
        check("usr/bin/bash", &["-bash", "--", "x"], Some("x"));
        check(
            "usr/bin/python3.11",
            &["python3", "-W", "ignore", "a.py", "b"],
            Some("a.py"),
        );
        check(
            "usr/bin/node",
            &["node", "--require", "x", "server.js"],
            Some("server.js"),
        );
        check("usr/bin/php8.2", &["php", "-f", "a.php"], Some("a.php"));
        check("bin/busybox", &["busybox", "sh", "x"], Some("x"));
        check("bin/busybox", &["sh", "x"], Some("x"));
    }

    #[test]
    fn a_program_in_the_arguments_or_from_standard_input_is_no_file() {
        check("usr/bin/dash", &["sh", "-c", "echo x"], None);
        check("usr/bin/bash", &["bash", "-lc", "echo x"], None);
        check("usr/bin/dash", &["sh"], None);
        check("usr/bin/dash", &["sh", "-s", "x"], None);
        check("usr/bin/python3", &["python3", "-"], None);
        check("usr/bin/python3", &["python3", "-m", "http.server"], None);
        check("usr/bin/perl", &["perl", "-e", "1", "x"], None);
        check("bin/busybox", &["busybox", "ls", "x"], None);
        check("bin/busybox", &["busybox"], None);
        check("bin/busybox", &["ls", "x"], None);
        check("usr/bin/sleep", &["sleep", "5"], None);
        check("usr/bin/shuf", &["shuf", "x"], None);
    }

    #[test]
    fn an_interpreter_without_a_program_runs_its_standard_input() {
        let is_input = |path: &str, args: &[&str]| {
            is_from_input(&RawExec {
                path: path.to_owned(),
                args: args.iter().map(|&arg| arg.to_owned()).collect(),
                ..RawExec::default()
            })
        };
        for args in [
            &["sh"][..],
            &["sh", "-e"],
            &["sh", "-s", "x"],
            &["-bash"],
            &["sh", "-"],
        ] {
            assert!(is_input("usr/bin/dash", args), "{args:?}");
        }
        assert!(is_input("usr/bin/python3.11", &["python3", "-"]));
        assert!(is_input("bin/busybox", &["busybox", "sh"]));
        assert!(is_input("bin/busybox", &["sh"]));
        for args in [&["sh", "-c", "x"][..], &["sh", "x"], &["bash", "--version"]] {
            assert!(!is_input("usr/bin/dash", args), "{args:?}");
        }
        assert!(!is_input("bin/busybox", &["busybox"]));
        assert!(!is_input("usr/bin/cat", &["cat"]));
        assert!(!is_input("usr/bin/python3", &["python3", "-m", "x"]));
    }

    #[test]
    fn shells_and_loaders_are_known_by_their_names() {
        for path in ["usr/bin/dash", "bin/busybox", "bash"] {
            assert!(is_shell(path) && !is_loader(path), "{path}");
        }
        for path in ["lib64/ld-linux-x86-64.so.2", "lib/ld-musl-aarch64.so.1"] {
            assert!(is_loader(path) && !is_shell(path), "{path}");
        }
        assert!(!is_shell("usr/bin/python3") && !is_shell("bin/true"));
    }

    #[test]
    fn a_loader_runs_its_argument() {
        let path = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";
        check(path, &["/lib64/ld-linux-x86-64.so.2", "./x"], Some("./x"));
        check(
            path,
            &["ld.so", "--library-path", "/a", "--preload", "b", "/x", "y"],
            Some("/x"),
        );
        check(path, &["ld.so", "--list", "/bin/ls"], None);
        check(
            "lib/ld-musl-x86_64.so.1",
            &["ld", "--argv0", "z", "x"],
            Some("x"),
        );
    }

    #[test]
    fn a_script_is_what_was_named() {
        let exec = |named: &str| RawExec {
            path: "usr/bin/dash".to_owned(),
            named: named.to_owned(),
            args: ["/bin/sh", "./run.sh"].map(str::to_owned).into(),
            flags: IS_SCRIPT,
            ..RawExec::default()
        };
        assert_eq!(of(&exec("./run.sh")), Some("./run.sh"));
        assert_eq!(of(&exec("/dev/fd/3")), None);
        assert_eq!(of(&exec("")), None);
    }
}
