//! Drift: a file ran that the image does not hold. It needs no time to learn, for the image says
//! which content is at which path.
//!
//! The kernel says where a file comes from. What is of the image's own layers is right by
//! construction. What was copied up is compared by content: `chmod` of a program of the image copies
//! it up as it is, and raises nothing. Scripts, and what a loader is told to run (`ld.so ./x`), are
//! judged like programs.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use model::{
    Digest, Severity,
    runtime::{Evidence, Origin},
};

use crate::{
    attack,
    detectors::Definition,
    engine::{Draft, Suspect},
    facts::ImageFiles,
    programs,
    wire::{Exec, File},
};

/// What comparing a file with an image gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Judgement {
    /// The image holds the same.
    Unchanged,
    /// It does not.
    Drift(&'static Definition, Severity),
}

static MODIFIED: Definition = rule(
    "drift/modified-executable",
    Severity::Critical,
    "Replace the container by a fresh one of the same image, and find out who wrote the file.",
    &[attack::MASQUERADE],
);
static ADDED: Definition = rule(
    "drift/added-executable",
    Severity::Critical,
    "Keep a copy of the file, then replace the container by a fresh one of the same image.",
    &[attack::TOOL_TRANSFER],
);
static IN_MEMORY: Definition = rule(
    "drift/fileless-execution",
    Severity::Critical,
    "Take the container off the network while the process still runs: its program is nowhere else.",
    &[attack::FILELESS],
);
static UNLINKED: Definition = rule(
    "drift/deleted-executable",
    Severity::Critical,
    "Keep a copy of the program from `/proc/<pid>/exe` while it runs: its file was deleted.",
    &[attack::FILELESS],
);
static TMPFS: Definition = rule(
    "drift/tmpfs-executable",
    Severity::High,
    "Mount file systems in memory with `noexec`; keep a copy of the file while the container runs.",
    &[attack::TOOL_TRANSFER],
);
static VOLUME: Definition = rule(
    "drift/volume-executable",
    Severity::Medium,
    "Mount volumes with `noexec` where nothing is to run from them, or set `volume_severity`.",
    &[attack::TOOL_TRANSFER],
);
static UNVERIFIED: Definition = rule(
    "drift/unverified-executable",
    Severity::Medium,
    "Let the image be scanned: add a source for its registry. Until then nobody can say whether \
     the file is the image's own.",
    &[attack::TOOL_TRANSFER],
);

static UNREAD: Definition = rule(
    "drift/unread-executable",
    Severity::Medium,
    "The image holds a file of this name; what ran was changed or copied up, and nobody could read \
     it in time. Find out who replaced it, and look at what ran next.",
    &[attack::MASQUERADE],
);

const fn rule(
    rule: &'static str,
    severity: Severity,
    advice: &'static str,
    techniques: &'static [attack::Attack],
) -> Definition {
    Definition {
        rule,
        severity,
        advice,
        techniques,
        looks_at: &[],
    }
}

/// What stands for a file with its content.
pub(crate) fn hash_of(path: &str, digest: Option<Digest>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (path, digest).hash(&mut hasher);
    hasher.finish()
}

/// Whether a file that runs must be compared with the image's.
pub(crate) fn is_suspect(exec: &Exec<'_>, file: &File<'_>) -> bool {
    match file.origin {
        Origin::Lower => false,
        Origin::Unlinked => !is_runtime(exec, file),
        Origin::Upper | Origin::Tmpfs | Origin::Other | Origin::Unknown => !file.path.is_empty(),
    }
}

/// A runtime enters the container as a copy of itself in memory, from outside, told to `init`.
fn is_runtime(exec: &Exec<'_>, file: &File<'_>) -> bool {
    let name = programs::base(file.path.trim_start_matches("memfd:"));
    let is_copy = matches!(name, "runc_cloned" | "exe" | "runc" | "crun" | "youki")
        || file.path.starts_with("memfd:runc_cloned");
    exec.injected && is_copy && exec.args.get(1) == Some(&"init")
}

/// Compares a file with its image; `None` stands for an image that is not known and was waited for.
pub(crate) fn judge(
    suspect: &Suspect,
    image: Option<&ImageFiles>,
    volume_severity: Severity,
) -> Judgement {
    let file = &suspect.file;
    let held = image.map(|image| image.digest(&file.path));
    let is_held = |digest: Digest| image.is_some_and(|image| image.holds(&digest));
    let drift = |definition: &'static Definition| Judgement::Drift(definition, definition.severity);
    match (file.origin, file.digest) {
        (Origin::Lower, _) => Judgement::Unchanged,
        // The same content is harmless, wherever it lies: a volume is filled from the image.
        (Origin::Other | Origin::Unknown, Some(digest)) if is_held(digest) => Judgement::Unchanged,
        (Origin::Unlinked, _) if file.path.starts_with("memfd:") => drift(&IN_MEMORY),
        (Origin::Unlinked, _) => drift(&UNLINKED),
        (Origin::Tmpfs, _) => drift(&TMPFS),
        (Origin::Other, _) => Judgement::Drift(&VOLUME, volume_severity),
        (Origin::Upper, Some(digest)) => match held {
            Some(Some(expected)) if expected == digest => Judgement::Unchanged,
            Some(Some(_)) => drift(&MODIFIED),
            Some(None) if is_held(digest) => Judgement::Drift(&ADDED, Severity::High),
            Some(None) if image.is_some_and(ImageFiles::is_partial) => drift(&UNVERIFIED),
            Some(None) => drift(&ADDED),
            None => drift(&UNVERIFIED),
        },
        // It was gone before it could be read, or it is too large to be.
        (Origin::Upper, None) => match held {
            Some(Some(_)) => drift(&UNREAD),
            Some(None) if !image.is_some_and(ImageFiles::is_partial) => drift(&ADDED),
            _ => drift(&UNVERIFIED),
        },
        (Origin::Unknown, _) => match held {
            Some(Some(_)) => Judgement::Unchanged,
            _ => drift(&UNVERIFIED),
        },
    }
}

/// Whether a judgement needs the image's files.
pub(crate) fn needs_image(origin: Origin) -> bool {
    matches!(origin, Origin::Upper | Origin::Other | Origin::Unknown)
}

/// The detection of a file that is not the image's.
pub(crate) fn draft(
    suspect: Suspect,
    (definition, severity): (&'static Definition, Severity),
    image: Option<&ImageFiles>,
) -> Draft {
    let Suspect {
        container,
        file,
        is_script,
        process,
        ancestors,
        at,
    } = suspect;
    let expected = image.and_then(|image| image.digest(&file.path));
    let title = title(definition, severity, (&file.path, is_script));
    let digest = file.digest.map(|digest| digest.short());
    let subject = format!("{} {}", file.path, digest.unwrap_or_default());
    let mut evidence = Vec::new();
    if let Some(digest) = expected {
        let path = file.path.clone();
        evidence.push(Evidence::Expected { path, digest });
    }
    evidence.insert(0, Evidence::File(file));
    Draft {
        container,
        definition,
        severity,
        subject,
        title,
        process,
        ancestors,
        evidence,
        at,
    }
}

fn title(definition: &Definition, severity: Severity, (path, is_script): (&str, bool)) -> String {
    let what = if is_script { "the script " } else { "" };
    let how = match definition.rule {
        "drift/modified-executable" => "which is not as the image holds it",
        "drift/added-executable" if severity < Severity::Critical => {
            "which the image holds under another name"
        }
        "drift/added-executable" => "which the image does not hold",
        "drift/fileless-execution" => "a program that was never a file",
        "drift/deleted-executable" => "whose file was deleted",
        "drift/tmpfs-executable" => "from a file system in memory",
        "drift/unread-executable" => "which could not be read before it was gone",
        "drift/volume-executable" => "from a volume, which the image does not hold",
        _ => "which cannot be compared with the image",
    };
    format!("ran {what}{path}, {how}")
}

#[cfg(test)]
mod tests {
    use model::runtime::{ExecutedFile, ProcessSeen};

    use super::*;

    fn suspect(path: &str, origin: Origin, digest: Option<&str>) -> Suspect {
        Suspect {
            container: "c".into(),
            file: ExecutedFile {
                path: path.to_owned(),
                origin,
                digest: digest.map(|text| Digest::of(text.as_bytes())),
                mount: None,
            },
            is_script: false,
            process: ProcessSeen::default(),
            ancestors: Vec::new(),
            at: jiff::Timestamp::UNIX_EPOCH,
        }
    }

    fn judged(path: &str, origin: Origin, digest: Option<&str>) -> String {
        let image = ImageFiles::for_tests(&[("bin/sh", "sh"), ("bin/ls", "ls")]);
        let one = suspect(path, origin, digest);
        let with = |image| match judge(&one, image, Severity::Medium) {
            Judgement::Unchanged => "-".to_owned(),
            Judgement::Drift(definition, severity) => format!("{} {severity}", definition.rule),
        };
        format!("{} | {}", with(Some(&image)), with(None))
    }

    #[test]
    fn content_decides_what_was_copied_up() {
        let sh = Some("sh");
        insta::assert_snapshot!(judged("bin/sh", Origin::Lower, None), @"- | -");
        insta::assert_snapshot!(judged("bin/sh", Origin::Upper, sh), @"- | drift/unverified-executable medium");
        insta::assert_snapshot!(judged("bin/ls", Origin::Upper, sh), @"drift/modified-executable critical | drift/unverified-executable medium");
        insta::assert_snapshot!(judged("tmp/x", Origin::Upper, sh), @"drift/added-executable high | drift/unverified-executable medium");
        insta::assert_snapshot!(judged("tmp/x", Origin::Upper, Some("x")), @"drift/added-executable critical | drift/unverified-executable medium");
        insta::assert_snapshot!(judged("tmp/x", Origin::Upper, None), @"drift/added-executable critical | drift/unverified-executable medium");
        insta::assert_snapshot!(judged("bin/sh", Origin::Upper, None), @"drift/unread-executable medium | drift/unverified-executable medium");
    }

    #[test]
    fn other_origins_have_classes_of_their_own() {
        insta::assert_snapshot!(judged("dev/shm/x", Origin::Tmpfs, Some("x")), @"drift/tmpfs-executable high | drift/tmpfs-executable high");
        insta::assert_snapshot!(judged("data/x", Origin::Other, Some("x")), @"drift/volume-executable medium | drift/volume-executable medium");
        insta::assert_snapshot!(judged("data/sh", Origin::Other, Some("sh")), @"- | drift/volume-executable medium");
        insta::assert_snapshot!(judged("tmp/x", Origin::Unlinked, Some("sh")), @"drift/deleted-executable critical | drift/deleted-executable critical");
        insta::assert_snapshot!(judged("memfd:x", Origin::Unlinked, None), @"drift/fileless-execution critical | drift/fileless-execution critical");
        insta::assert_snapshot!(judged("bin/ls", Origin::Unknown, None), @"- | drift/unverified-executable medium");
    }

    #[test]
    fn only_a_runtime_from_outside_may_run_from_memory() {
        let exec = |injected: bool, args: &[&'static str]| Exec {
            injected,
            args: args.to_vec(),
            ..Exec::default()
        };
        let file = |path: &'static str| File {
            path,
            origin: Origin::Unlinked,
            ..File::default()
        };
        let copy = "memfd:runc_cloned:/proc/self/exe";
        assert!(!is_suspect(&exec(true, &["runc", "init"]), &file(copy)));
        assert!(is_suspect(&exec(false, &["runc", "init"]), &file(copy)));
        assert!(is_suspect(&exec(true, &["runc", "x"]), &file(copy)));
        assert!(is_suspect(&exec(true, &["x", "init"]), &file("memfd:x")));
    }
}
