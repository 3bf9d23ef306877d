//! What a registry wants to see before it lets us in: the header `WWW-Authenticate` (RFC 9110,
//! section 11.6.1).

use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// Bytes of one header value that are looked at.
const BYTES_MAX: usize = 8 << 10;

/// A way to be let in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from a token server.
    Bearer {
        /// The token server's URL.
        realm: String,
        /// What the token is for, in the server's words.
        service: Option<String>,
    },
}

/// The challenges that we can answer.
pub(super) fn parse_all(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(WWW_AUTHENTICATE).iter().take(8);
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(parse)
        .collect()
}

fn parse(value: &str) -> Vec<Challenge> {
    let mut found = Vec::new();
    let mut open: Option<(String, Vec<(String, String)>)> = None;
    for item in items(value) {
        // `Scheme key="value"`, `key="value"` or `Scheme`.
        let (before, text) = item.split_once('=').unwrap_or((item.as_str(), ""));
        let (scheme, key) = match before.trim().rsplit_once(char::is_whitespace) {
            Some((scheme, key)) => (Some(scheme.trim()), key),
            None if text.is_empty() && !item.contains('=') => (Some(before.trim()), ""),
            None => (None, before.trim()),
        };
        if let Some(scheme) = scheme {
            found.extend(open.replace((scheme.to_ascii_lowercase(), Vec::new())));
        }
        if let (Some((_, parameters)), false) = (&mut open, key.is_empty()) {
            parameters.push((key.to_ascii_lowercase(), unquote(text.trim())));
        }
    }
    found.extend(open);
    found
        .into_iter()
        .filter_map(|(scheme, parameters)| challenge(&scheme, &parameters))
        .collect()
}

fn challenge(scheme: &str, parameters: &[(String, String)]) -> Option<Challenge> {
    let value = |name: &str| {
        parameters
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.clone())
    };
    match scheme {
        "basic" => Some(Challenge::Basic),
        "bearer" => Some(Challenge::Bearer {
            realm: value("realm")?,
            service: value("service"),
        }),
        _ => None,
    }
}

/// The parts between commas that are not in quotes.
fn items(value: &str) -> Vec<String> {
    let mut items = vec![String::new()];
    let (mut quoted, mut escaped) = (false, false);
    for letter in value.chars().take(BYTES_MAX) {
        match letter {
            ',' if !quoted => {
                items.push(String::new());
                continue;
            }
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && letter == '\\' && !escaped;
        if let Some(item) = items.last_mut() {
            item.push(letter);
        }
    }
    items.retain(|item| !item.trim().is_empty());
    items
}

fn unquote(text: &str) -> String {
    let Some(inner) = text
        .strip_prefix('"')
        .and_then(|text| text.strip_suffix('"'))
    else {
        return text.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut letters = inner.chars();
    while let Some(letter) = letters.next() {
        plain.extend(if letter == '\\' {
            letters.next()
        } else {
            Some(letter)
        });
    }
    plain
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn real_challenges_are_understood() {
        let bearer = |realm: &str, service: Option<&str>| Challenge::Bearer {
            realm: realm.to_owned(),
            service: service.map(ToOwned::to_owned),
        };
        for (value, expected) in [
            (r#"Basic realm="Registry Realm""#, vec![Challenge::Basic]),
            ("Basic", vec![Challenge::Basic]),
            (
                r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="repository:a/b:pull,push""#,
                vec![bearer(
                    "https://auth.docker.io/token",
                    Some("registry.docker.io"),
                )],
            ),
            (
                r#"bearer service=x , realm="https://a/\"q\"", error="invalid_token", Basic realm="b""#,
                vec![bearer(r#"https://a/"q""#, Some("x")), Challenge::Basic],
            ),
            (r#"Negotiate, Basic realm="x""#, vec![Challenge::Basic]),
            (r#"Bearer service="no realm""#, vec![]),
            ("", vec![]),
        ] {
            assert_eq!(parse(value), expected, "{value}");
        }
    }

    proptest! {
        #[test]
        fn no_value_panics(value in ".{0,200}") {
            let _parsed = parse(&value);
        }
    }
}
