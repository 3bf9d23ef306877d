//! What a subject says: tenant, template, key.

use model::Slug;

/// The subject of a key.
pub(crate) fn of_key(bucket: &str, key: &str) -> String {
    format!("$KV.{bucket}.{key}")
}

/// Bucket and key of a subject, if it is one of a bucket.
pub(crate) fn key_of(subject: &str) -> Option<(&str, &str)> {
    subject.strip_prefix("$KV.")?.split_once('.')
}

/// The tenant that a subject names.
pub(crate) fn tenant(subject: &str) -> Option<Slug> {
    let tokens: Vec<&str> = subject.split('.').collect();
    let (["tw", "job", _, _, tenant]
    | ["tw", "evt" | "res" | "alert", tenant, ..]
    | ["$KV", _, tenant, _, ..]) = tokens.as_slice()
    else {
        return None;
    };
    tenant.parse().ok()
}

/// The subject with what varies taken out: the name of spans and metrics.
pub(crate) fn template(subject: &str) -> String {
    let tokens: Vec<&str> = subject.split('.').collect();
    match tokens.as_slice() {
        ["tw", "evt", _, class, kind, _] => format!("tw.evt.{{tenant}}.{class}.{kind}.{{source}}"),
        ["tw", "job", kind, priority, _] => format!("tw.job.{kind}.{priority}.{{tenant}}"),
        ["tw", "res", _, rest @ ..] => format!("tw.res.{{tenant}}.{}", rest.join(".")),
        ["tw", "alert", _, severity] => format!("tw.alert.{{tenant}}.{severity}"),
        ["tw", "req", _, what, ..] => format!("tw.req.{{tenant}}.{what}"),
        ["tw", "json", rest @ ..] => {
            let original = template(&format!("tw.{}", rest.join(".")));
            original.replacen("tw.", "tw.json.", 1)
        }
        ["tw", "dlq", stream, consumer] => format!("tw.dlq.{stream}.{consumer}"),
        ["$KV", bucket, _, _, what, ..] if bucket.starts_with("tw_images_") => {
            format!("$KV.tw_images.{{tenant}}.{{image}}.{what}")
        }
        ["$KV", bucket, ..] => format!("$KV.{bucket}.{{key}}"),
        _ => "other".to_owned(),
    }
}

/// Whether a subject fits a filter, which may have wildcards; an empty one fits all.
pub(crate) fn matches(filter: &str, subject: &str) -> bool {
    if filter.is_empty() {
        return true;
    }
    let mut tokens = subject.split('.');
    for wanted in filter.split('.') {
        match tokens.next() {
            Some(_) if wanted == ">" => return true,
            Some(token) if wanted == "*" || wanted == token => {}
            _ => return false,
        }
    }
    tokens.next().is_none()
}

/// Whether NATS takes it as a key: tokens of `A-Z a-z 0-9 - _ = /`, joined by dots.
pub(crate) fn is_key(key: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'=' | b'/');
    key.len() <= 512
        && key
            .split('.')
            .all(|token| !token.is_empty() && token.bytes().all(allowed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tenants_come_from_their_place_in_the_subject() {
        let check = |subject: &str| tenant(subject).map(String::from);
        assert_eq!(
            check("tw.evt.acme.registry.pushed.main").as_deref(),
            Some("acme")
        );
        assert_eq!(check("tw.job.image.high.acme").as_deref(), Some("acme"));
        assert_eq!(check("tw.res.acme.image.judged").as_deref(), Some("acme"));
        assert_eq!(
            check("$KV.tw_images_f.acme.00ff.scanned").as_deref(),
            Some("acme")
        );
        assert_eq!(check("tw.dlq.JOBS.image_high"), None);
        assert_eq!(check("tw.evt.A*.registry.pushed.main"), None);
    }

    #[test]
    fn templates_have_few_values() {
        insta::assert_snapshot!(template("tw.evt.acme.registry.pushed.main"), @"tw.evt.{tenant}.registry.pushed.{source}");
        insta::assert_snapshot!(template("tw.job.image.high.acme"), @"tw.job.image.high.{tenant}");
        insta::assert_snapshot!(template("tw.res.acme.vulnerability.appeared"), @"tw.res.{tenant}.vulnerability.appeared");
        insta::assert_snapshot!(template("$KV.tw_images_f.acme.00ff.judged.default"), @"$KV.tw_images.{tenant}.{image}.judged");
        insta::assert_snapshot!(template("$KV.tw_config.tokens.abc"), @"$KV.tw_config.{key}");
    }

    #[test]
    fn filters_fit_as_those_of_the_server() {
        for filter in ["", ">", "a.>", "a.*.c", "a.b.c", "*.*.*"] {
            assert!(matches(filter, "a.b.c"), "{filter}");
        }
        for filter in ["a", "a.b", "a.b.c.>", "a.*", "a.b.c.d", "b.>"] {
            assert!(!matches(filter, "a.b.c"), "{filter}");
        }
    }

    #[test]
    fn keys_never_widen_a_subject() {
        for bad in ["", ".", "a.", ".a", "a..b", "a b", "a.*", ">", "ä"] {
            assert!(!is_key(bad), "{bad}");
        }
        assert!(is_key("default.00ff.judged.default"));
    }
}
