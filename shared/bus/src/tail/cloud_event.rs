//! A message as one JSON text: a CloudEvent in structured mode, for who wants no MessagePack.

use serde_json::{Map, Value};

use super::Tailed;
use crate::{envelope::CE_TYPE, to_json};

/// What attributes begin with as headers.
const ATTRIBUTE: &str = "ce-";
/// The trace context, an extension of CloudEvents under the same names.
const TRACE: [&str; 2] = ["traceparent", "tracestate"];

/// A message of a stream as a CloudEvent in structured mode. `stream` and `streamsequence` say where
/// it is held. It has no `data` where the body is gone or cannot be read.
pub fn cloud_event(stream: &str, message: &Tailed) -> Value {
    let Tailed {
        sequence, headers, ..
    } = message;
    let mut event = Map::new();
    let mut set = |name: &str, value: String| {
        event.insert(name.to_owned(), value.into());
    };
    set("id", format!("{stream}:{sequence}"));
    set("source", "/".to_owned());
    set("time", message.time.to_string());
    for (name, _) in headers.iter() {
        let name = name.to_ascii_lowercase();
        let attribute = name.strip_prefix(ATTRIBUTE).filter(|name| is_name(name));
        if let Some(attribute) = attribute
            && let Some(value) = headers.attribute(&name)
        {
            set(attribute, value);
        }
    }
    for name in TRACE {
        if let Some(value) = headers.get(name) {
            set(name, value.to_owned());
        }
    }
    set("specversion", "1.0".to_owned());
    set("datacontenttype", "application/json".to_owned());
    set("stream", stream.to_owned());
    set("streamsequence", sequence.to_string());
    event.remove("data");
    if let Some(data) = data(stream, message) {
        event.insert("data".to_owned(), data);
    }
    Value::Object(event)
}

/// The same as text; without its data where that makes it longer than `bytes_max`.
pub fn cloud_event_text(stream: &str, message: &Tailed, bytes_max: usize) -> String {
    let mut event = cloud_event(stream, message);
    let text = event.to_string();
    if text.len() <= bytes_max {
        return text;
    }
    let sequence = message.sequence;
    tracing::debug!(
        stream,
        sequence,
        "`{stream}` message {sequence} is too large as JSON and goes without its data"
    );
    if let Some(fields) = event.as_object_mut() {
        fields.remove("data");
    }
    event.to_string()
}

fn data(stream: &str, message: &Tailed) -> Option<Value> {
    let kind = message.headers.attribute(CE_TYPE)?;
    match to_json(&kind, message.body.as_ref()?) {
        Ok(data) => data,
        Err(error) => {
            let sequence = message.sequence;
            tracing::debug!(%error, "`{stream}` message {sequence} has no data to show: {error}");
            None
        }
    }
}

/// Lower-case letters and digits (CloudEvents, "Naming conventions").
fn is_name(name: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    (1..=20).contains(&name.len()) && name.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::event::{Event as _, ImagePushed};

    use super::*;
    use crate::{Headers, encode, testing::pushed};

    fn message(headers: &[(&str, &str)]) -> Tailed {
        let headers = headers.iter();
        Tailed {
            sequence: 7,
            time: Timestamp::UNIX_EPOCH,
            subject: "tw.evt.acme.registry.pushed.main".to_owned(),
            headers: headers
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
                .collect::<Headers>(),
            body: Some(encode(&pushed("app")).unwrap()),
        }
    }

    #[test]
    fn attributes_are_decoded_and_the_body_is_json() {
        let event = cloud_event(
            "EVENTS",
            &message(&[
                ("Ce-Id", "a%20b"),
                ("ce-source", "/registries/main"),
                ("ce-type", ImagePushed::TYPE),
                ("ce-time", "2026-01-02T03:04:05Z"),
                ("ce-datacontenttype", "application/msgpack"),
                ("ce-tenant", "acme"),
                ("ce-data", "a lie"),
                ("ce-streamsequence", "8"),
                (
                    "traceparent",
                    "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
                ),
                ("Nats-Msg-Id", "a b"),
            ]),
        );
        insta::assert_json_snapshot!(event, @r#"
        {
          "id": "a b",
          "source": "/registries/main",
          "time": "2026-01-02T03:04:05Z",
          "type": "io.tidewaiter.image.pushed.v1",
          "datacontenttype": "application/json",
          "tenant": "acme",
          "stream": "EVENTS",
          "streamsequence": "7",
          "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
          "specversion": "1.0",
          "data": {
            "source": "main",
            "repository": "app",
            "tag": null,
            "digest": null,
            "sender_id": null,
            "occurred_at": "1970-01-01T00:00:00Z"
          }
        }
        "#);
    }

    #[test]
    fn an_event_that_is_too_large_goes_without_its_data() {
        let large = message(&[("ce-type", ImagePushed::TYPE)]);
        let check = |bytes_max| {
            let text = cloud_event_text("EVENTS", &large, bytes_max);
            let event: Value = serde_json::from_str(&text).unwrap();
            assert_eq!(event["streamsequence"], "7");
            (text.len(), event.get("data").is_some())
        };
        let (whole, _) = check(usize::MAX);
        assert_eq!(check(whole), (whole, true));
        assert!(!check(whole - 1).1);
    }

    #[test]
    fn what_is_missing_or_broken_still_makes_an_event() {
        let mut broken = message(&[("ce-type", ImagePushed::TYPE)]);
        broken.body = Some(vec![0xc1].into());
        let event = cloud_event("EVENTS", &broken);
        assert_eq!(event["id"], "EVENTS:7");
        assert_eq!(event["time"], "1970-01-01T00:00:00Z");
        assert_eq!(event.get("data"), None);
    }
}
