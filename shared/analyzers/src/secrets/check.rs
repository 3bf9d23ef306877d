//! What must be true of a text beyond its looks, as far as it can be known without asking anybody:
//! checksums, structure, and that it is no placeholder.

use jiff::Timestamp;
use model::Severity;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::key;

/// What else must be true of a secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Check {
    /// Its last six characters are the CRC-32 of those behind its prefix, in base 62 (GitHub, npm).
    Checksum,
    /// An AWS key id: base 32, with the number of an account in it.
    AwsKeyId,
    /// A JSON web token: its parts are JSON, and its end is read.
    Jwt,
    /// A private key: what is in the armour is a key, and may be encrypted.
    PrivateKey,
    /// A private key in an armour in base 64.
    Base64Key,
    /// Base 64 of `user:password`.
    BasicAuth,
    /// Base 64 of a text that is a password.
    Base64Text,
    /// A password: neither a placeholder nor a variable.
    Password,
}

/// What is known of a secret that passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Passed {
    /// Another severity than the rule's.
    pub(super) severity: Option<Severity>,
    /// When it ends.
    pub(super) expires_at: Option<Timestamp>,
}

/// Words that stand where a secret belongs, alone or in part.
const PLACEHOLDERS: &[&[u8]] = &[
    b"example",
    b"changeme",
    b"change_me",
    b"change-me",
    b"placeholder",
    b"redacted",
    b"dummy",
    b"replace",
    b"insert",
    b"xxxxx",
    b"*****",
    b".....",
    b"_____",
    b"your_",
    b"your-",
    b"yourp",
    b"yours",
    b"yourt",
    b"yourk",
    b"todo",
    b"lorem",
    b"12345678",
    b"87654321",
    b"abcdefgh",
    b"abcd1234",
    b"qwerty",
    b"deadbeef",
    b"0123456789",
    b"sample",
    b"undefined",
    b"notreal",
    b"not-a-real",
    b"not_a_real",
    b"fakekey",
    b"fake_",
    b"fake-",
    b"testtest",
    b"foobar",
    b"secretkey",
    b"secret_key",
    b"my-secret",
    b"my_secret",
    b"mysecret",
    b"mypassword",
    b"my_password",
    b"my-password",
    b"somepassword",
    b"supersecret",
    b"super-secret",
];

/// Words that are no password where they are all of it.
const NO_PASSWORDS: &[&[u8]] = &[
    b"password",
    b"passwd",
    b"pass",
    b"pwd",
    b"secret",
    b"token",
    b"user",
    b"username",
    b"test",
    b"testing",
    b"none",
    b"null",
    b"nil",
    b"true",
    b"false",
    b"yes",
    b"default",
    b"string",
    b"value",
    b"key",
    b"apikey",
    b"admin",
    b"root",
    b"guest",
    b"postgres",
    b"mysql",
    b"redis",
    b"mongo",
    b"rabbitmq",
    b"localhost",
    b"foo",
    b"bar",
    b"baz",
    b"empty",
    b"required",
    b"optional",
    b"prompt",
    b"plain",
    b"bearer",
    b"basic",
    b"x-oauth-basic",
    b"x-token-auth",
    b"port",
    b"host",
    b"credentials",
    b"auth",
    b"login",
    b"pw",
    b"hidden",
    b"private",
    b"public",
    b"passphrase",
    b"passw0rd",
    b"p4ssw0rd",
    b"hunter2",
    b"open sesame",
    b"tiger",
    b"opensesame",
    b"gx1fbat3bv",
    b"7fjfp0zbr1ktdrbnfvdmiw",
    b"letmein",
    b"s3cret",
    b"s3cr3t",
    b"anonymous",
    b"demo",
    b"test123",
    b"pass123",
    b"password1",
    b"password123",
    b"secret123",
    b"test1234",
    b"abc123",
    b"aaa",
    b"bbb",
    b"xxx",
    b"yyy",
    b"zzz",
    b"mypass",
    b"thepassword",
    b"userpass",
    b"dbpass",
    b"dbpassword",
];

/// Words that may end a longer word without making it a password: `the_password`, `db-password`.
const NAME_ENDS: &[&[u8]] = &[
    b"password",
    b"passwd",
    b"_token",
    b"-token",
    b"_secret",
    b"-secret",
    b"_key",
    b"-key",
];

/// How far a placeholder may reach into what is left of a secret.
const RUN_MAX: usize = 7;

// === impl Check ===

impl Check {
    /// Whether people make up what it looks at.
    pub(super) const fn is_of_passwords(self) -> bool {
        matches!(self, Self::Password | Self::BasicAuth | Self::Base64Text)
    }

    /// What is known of a secret, if it is one.
    pub(super) fn pass(self, secret: &[u8]) -> Option<Passed> {
        match self {
            Self::Checksum => has_checksum(secret).then(Passed::default),
            Self::AwsKeyId => is_aws_key_id(secret).then(Passed::default),
            Self::Jwt => jwt(secret),
            Self::PrivateKey => private_key(secret),
            Self::Base64Key => private_key(&base64(secret)?),
            Self::BasicAuth => is_basic_auth(secret).then(Passed::default),
            Self::Base64Text => {
                let text = base64(secret)?;
                let is_text = text.iter().all(|b| matches!(b, b' '..=b'~' | b'\n'));
                (is_text && is_password(&text)).then(Passed::default)
            }
            Self::Password => is_password(secret).then(Passed::default),
        }
    }
}

/// Shannon's entropy, in bits per byte.
pub(super) fn entropy(bytes: &[u8]) -> f64 {
    let mut counts = [0_u32; 256];
    for byte in bytes {
        if let Some(count) = counts.get_mut(usize::from(*byte)) {
            *count = count.saturating_add(1);
        }
    }
    let all = f64::from(u32::try_from(bytes.len()).unwrap_or(u32::MAX));
    let shares = counts.iter().filter(|count| **count > 0);
    shares
        .map(|count| {
            let share = f64::from(*count) / all;
            -share * share.log2()
        })
        .sum()
}

/// Whether the text only stands where a secret belongs.
pub(super) fn is_placeholder(secret: &[u8]) -> bool {
    let lower = secret.to_ascii_lowercase();
    let has_word = |word: &&[u8]| memchr::memmem::find(&lower, word).is_some();
    PLACEHOLDERS.iter().any(has_word) || is_variable(secret) || longest_run(secret) > RUN_MAX
}

/// `${NAME}`, `$NAME`, `{{ name }}`, `%(name)s`, `<name>`, `#{name}`, `os.environ[…]`.
fn is_variable(secret: &[u8]) -> bool {
    let starts: [&[u8]; 9] = [b"${", b"$(", b"{{", b"%(", b"<", b"#{", b"%{", b"@@", b"[["];
    let contains: [&[u8]; 8] = [
        b"${",
        b"{{",
        b"$(",
        b"getenv",
        b"environ",
        b"process.env",
        b"env.",
        b"<%",
    ];
    starts.iter().any(|start| secret.starts_with(start))
        || contains
            .iter()
            .any(|part| memchr::memmem::find(secret, part).is_some())
        || is_shell_variable(secret)
        || (secret.starts_with(b"%") && secret.ends_with(b"%"))
        || (secret.starts_with(b"{") && secret.ends_with(b"}"))
}

fn is_shell_variable(secret: &[u8]) -> bool {
    let Some(name) = secret.strip_prefix(b"$") else {
        return false;
    };
    name.first().is_some_and(u8::is_ascii_alphabetic)
        && name.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_')
}

/// The longest run of one byte.
fn longest_run(bytes: &[u8]) -> usize {
    let runs = bytes.chunk_by(|a, b| a == b);
    runs.map(<[u8]>::len).max().unwrap_or_default()
}

/// Whether a text may be somebody's password.
pub(super) fn is_password(secret: &[u8]) -> bool {
    let lower = secret.to_ascii_lowercase();
    let is_path = (secret.starts_with(b"/") && memchr::memchr_iter(b'/', secret).count() > 1)
        || secret.starts_with(b"./")
        || secret.starts_with(b"file:");
    let is_url = memchr::memmem::find(&lower, b"://").is_some();
    let is_call = secret.contains(&b'(') && secret.contains(&b')');
    let is_name = lower.len() < 24
        && NAME_ENDS.iter().any(|end| lower.ends_with(end))
        && lower
            .iter()
            .all(|b| b.is_ascii_lowercase() || matches!(b, b'_' | b'-'));
    let is_port = secret.len() <= 5 && secret.iter().all(u8::is_ascii_digit);
    secret.len() >= 3
        && !is_port
        && !NO_PASSWORDS.contains(&lower.as_slice())
        && !is_placeholder(secret)
        && !(is_path || is_url || is_call || is_name)
        && longest_run(secret) < secret.len()
}

fn is_basic_auth(secret: &[u8]) -> bool {
    let Some(pair) = base64(secret) else {
        return false;
    };
    let Some(colon) = memchr::memchr(b':', &pair) else {
        return false;
    };
    let is_text = pair.iter().all(|b| matches!(b, b' '..=b'~'));
    let (user, password) = pair.split_at_checked(colon).unwrap_or_default();
    let password = password.get(1..).unwrap_or_default();
    is_text && !user.is_empty() && is_password(password)
}

/// The checksum that GitHub and npm put at the end of their tokens.
fn has_checksum(token: &[u8]) -> bool {
    let body = memchr::memrchr(b'_', token).and_then(|at| token.get(at.saturating_add(1)..));
    let body = body.unwrap_or_default();
    let Some((random, sum)) = body.split_last_chunk::<6>() else {
        return false;
    };
    base62(crc32fast::hash(random)) == *sum
}

/// Six digits in base 62: digits, upper, lower.
pub(super) fn base62(mut number: u32) -> [u8; 6] {
    const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = [b'0'; 6];
    for place in text.iter_mut().rev() {
        let digit = DIGITS.get((number % 62) as usize);
        *place = digit.copied().unwrap_or(b'0');
        number /= 62;
    }
    text
}

/// Newer key ids name their account: 40 bits behind the prefix, of which a number of twelve digits
/// needs not all.
fn is_aws_key_id(id: &[u8]) -> bool {
    const ACCOUNT_MAX: u64 = 999_999_999_999;
    let Some(rest) = id.get(4..) else {
        return false;
    };
    let mut bits = 0_u64;
    for digit in rest.iter().take(10) {
        let value = match digit {
            b'A'..=b'Z' => digit.wrapping_sub(b'A'),
            b'2'..=b'7' => digit.wrapping_sub(b'2').wrapping_add(26),
            _ => return false,
        };
        bits = (bits << 5) | u64::from(value);
    }
    // 50 bits are read; the account are the 40 behind the first.
    let account = (bits >> 9) & 0xff_ffff_ffff;
    let is_new = rest.first().is_some_and(|first| *first >= b'Q');
    (!is_new || account <= ACCOUNT_MAX) && entropy(rest) >= 2.5
}

fn jwt(token: &[u8]) -> Option<Passed> {
    let mut parts = token.split(|b| *b == b'.');
    let header: Value = serde_json::from_slice(&base64(parts.next()?)?).ok()?;
    let payload: Value = serde_json::from_slice(&base64(parts.next()?)?).ok()?;
    let algorithm = header.get("alg")?.as_str()?;
    let payload = payload.as_object()?;
    // Those that every documentation shows.
    let has = |name: &str, value: &str| payload.get(name).and_then(Value::as_str) == Some(value);
    if has("sub", "1234567890") || has("some", "payload") || has("hello", "world") {
        return None;
    }
    let end = payload.get("exp").and_then(Value::as_i64);
    let expires_at = end.and_then(|end| Timestamp::from_second(end).ok());
    Some(Passed {
        severity: algorithm
            .eq_ignore_ascii_case("none")
            .then_some(Severity::Low),
        expires_at,
    })
}

fn private_key(armour: &[u8]) -> Option<Passed> {
    let is_encrypted = key::is_encrypted(armour)?;
    Some(Passed {
        severity: is_encrypted.then_some(Severity::Low),
        expires_at: None,
    })
}

/// Decodes base 64 of either alphabet; blanks and padding do not matter.
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let (mut bits, mut count) = (0_u32, 0_u32);
    for letter in text {
        let value = match letter {
            b'A'..=b'Z' => letter.wrapping_sub(b'A'),
            b'a'..=b'z' => letter.wrapping_sub(b'a').wrapping_add(26),
            b'0'..=b'9' => letter.wrapping_sub(b'0').wrapping_add(52),
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            b'=' | b'\n' | b'\r' | b' ' | b'\t' => continue,
            _ => return None,
        };
        bits = (bits << 6) | u32::from(value);
        count = count.saturating_add(6);
        if count >= 8 {
            count = count.saturating_sub(8);
            bytes.push(u8::try_from((bits >> count) & 0xff).unwrap_or_default());
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checksums_are_those_of_the_issuers() {
        // The body that GitHub's own announcement of the format shows.
        let documented = ["gh", "p_", "zQWBuTSOoRi4A9spHcVY5ncnsDkxkJ", "0mLq17"].concat();
        assert!(has_checksum(documented.as_bytes()));
        let other = documented.replace("0mLq17", "0mLq18");
        assert!(!has_checksum(other.as_bytes()));
        assert!(!has_checksum(b"ghp_") && !has_checksum(b""));
    }

    #[test]
    fn placeholders_and_variables_are_no_passwords() {
        for text in [
            "",
            "ab",
            "password",
            "${DB_PASSWORD}",
            "$PASSWORD",
            "{{ password }}",
            "%(password)s",
            "<password>",
            "xxxxxxxxxx",
            "changeme",
            "your-token-here",
            "%PASSWORD%",
            "aaaaaaa",
            "/run/secrets/db/password",
            "os.environ['A']",
            "db_password",
            "********",
            "get_password()",
            "https://x",
        ] {
            assert!(!is_password(text.as_bytes()), "{text}");
        }
        for text in ["Tr0ub4dor&3", "correct-horse-battery", "k8s!prod", "/abc"] {
            assert!(is_password(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn entropy_counts_bits() {
        assert!(entropy(b"aaaa").abs() < f64::EPSILON);
        assert!((entropy(b"abcd") - 2.0).abs() < 1e-9);
        assert!(entropy(b"").abs() < f64::EPSILON);
    }

    #[test]
    fn base64_of_both_alphabets_is_read() {
        assert_eq!(base64(b"aGVs\nbG8=").unwrap(), b"hello");
        assert_eq!(base64(b"-_-_").unwrap(), base64(b"+/+/").unwrap());
        assert_eq!(base64(b"a.b"), None);
    }
}
