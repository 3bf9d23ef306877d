//! Arguments without secrets: they leave this process with detections, and are kept for long.
//!
//! The rules of [`analyzers`] find secrets by their form; here what follows a flag or a name that
//! says so goes too, whatever it looks like.

use std::collections::BTreeMap;

use model::runtime::ProcessSeen;

/// What stands in place of a secret.
const MASK: &str = "****";
/// Parts of names whose values are secrets.
const NAMES: &[&str] = &[
    "password",
    "passwd",
    "passphrase",
    "secret",
    "token",
    "api-key",
    "apikey",
    "api_key",
    "access-key",
    "access_key",
    "private-key",
    "private_key",
    "credential",
];
/// A user of so many bytes, without a password, is a token.
const TOKEN_BYTES_MIN: usize = 16;
/// More is not told of one argument.
const ARG_CHARS_MAX: usize = 1_024;

/// Masks the arguments of these processes.
pub(crate) fn mask(processes: &mut [&mut ProcessSeen]) {
    let mut texts = BTreeMap::new();
    for (number, process) in processes.iter_mut().enumerate() {
        mask_named(&mut process.args);
        for (place, arg) in process.args.iter_mut().enumerate() {
            if arg.chars().nth(ARG_CHARS_MAX).is_some() {
                *arg = arg.chars().take(ARG_CHARS_MAX).chain(['…']).collect();
            }
            texts.insert(format!("{number}.{place}"), arg.clone());
        }
        // Some secrets are known by what stands before them.
        texts.insert(format!("{number}"), process.args.join(" "));
    }
    let masked = analyzers::masked_labels(texts);
    for (number, process) in processes.iter_mut().enumerate() {
        for (place, arg) in process.args.iter_mut().enumerate() {
            if let Some(text) = masked.get(&format!("{number}.{place}")) {
                arg.clone_from(text);
            }
        }
    }
}

/// Masks `--password x`, `--token=x`, `DB_PASSWORD=x`, `-px` of database clients, and what stands
/// before the `@` of an address; in each word of an argument that is a command line itself.
fn mask_named(args: &mut [String]) {
    let is_client = args.first().is_some_and(|first| {
        matches!(
            crate::programs::base(first),
            "mysql" | "mysqldump" | "mariadb" | "mysqladmin"
        )
    });
    let mut is_value = false;
    for arg in args {
        let words = arg.split_inclusive(char::is_whitespace);
        let masked: String = words
            .map(|word| mask_word(word, is_client, &mut is_value))
            .collect();
        *arg = masked;
    }
}

/// Masks a word, with the blank behind it; `is_value` says whether the word before names a secret.
fn mask_word(whole: &str, is_client: bool, is_value: &mut bool) -> String {
    let word = whole.trim_end_matches(char::is_whitespace);
    let end = whole.strip_prefix(word).unwrap_or_default();
    let was_named = std::mem::take(is_value);
    if was_named && !word.starts_with('-') && !word.is_empty() {
        return format!("{MASK}{end}");
    }
    let (name, value) = match word.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (word, None),
    };
    let lower = name.to_ascii_lowercase();
    let is_secret = NAMES.iter().any(|secret| lower.contains(secret));
    match value {
        Some(value) if is_secret && !value.is_empty() => format!("{name}={MASK}{end}"),
        None if is_client && word.starts_with("-p") && word.len() > 2 => format!("-p{MASK}{end}"),
        _ => {
            *is_value = value.is_none() && is_secret && name.starts_with('-');
            match without_user(word) {
                Some(masked) => format!("{masked}{end}"),
                None => whole.to_owned(),
            }
        }
    }
}

/// `scheme://user:password@host`, `scheme://token@host`.
fn without_user(text: &str) -> Option<String> {
    let (scheme, rest) = text.split_once("://")?;
    let end = rest.find(['/', '?', ' ']).unwrap_or(rest.len());
    let (authority, after) = rest.split_at_checked(end)?;
    let (user, host) = authority.rsplit_once('@')?;
    let user = match user.split_once(':') {
        Some((name, _)) => format!("{name}:{MASK}"),
        // Tokens stand alone; names are shorter.
        None if user.len() >= TOKEN_BYTES_MIN => MASK.to_owned(),
        None => return None,
    };
    Some(format!("{scheme}://{user}@{host}{after}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn masked(args: &[&str]) -> String {
        let mut process = ProcessSeen {
            args: args.iter().map(|arg| (*arg).to_owned()).collect(),
            ..ProcessSeen::default()
        };
        mask(&mut [&mut process]);
        process.args.join(" ")
    }

    #[test]
    fn what_a_flag_calls_a_secret_is_masked() {
        insta::assert_snapshot!(masked(&["app", "--password", "hunter2", "--port", "80"]), @"app --password **** --port 80");
        insta::assert_snapshot!(masked(&["app", "--db-token=abc", "x=1"]), @"app --db-token=**** x=1");
        insta::assert_snapshot!(masked(&["env", "DB_PASSWORD=abc", "sh"]), @"env DB_PASSWORD=**** sh");
        insta::assert_snapshot!(masked(&["mysql", "-uroot", "-phunter2"]), @"mysql -uroot -p****");
        insta::assert_snapshot!(masked(&["curl", "https://ada:pw@host.example/x?y=a@b"]), @"curl https://ada:****@host.example/x?y=a@b");
        insta::assert_snapshot!(masked(&["ls", "-password-file", "-l"]), @"ls -password-file -l");
        insta::assert_snapshot!(masked(&["sh", "-c", "a=b; PGPASSWORD=x psql  --token y z"]), @"sh -c a=b; PGPASSWORD=**** psql  --token **** z");
        insta::assert_snapshot!(masked(&[]), @"");
    }

    #[test]
    fn what_looks_like_a_secret_is_masked() {
        let key = ["ghp_", "8sK2mQ4xVbT7nR1cZ5yLpW9dJ3fHgA", "0eUoIq"].concat();
        let line = masked(&[
            "sh",
            "-c",
            &format!("git clone https://{key}@github.com/a/b"),
        ]);
        assert!(!line.contains(&key), "{line}");
        let long = "x".repeat(5_000);
        assert!(masked(&["app", &long]).chars().count() < 1_100);
    }
}
