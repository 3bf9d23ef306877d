//! A stream's message, taken apart.

use async_nats::{Message, Subject};
use bytes::Bytes;
use jiff::Timestamp;
use model::{RecordKey, Slug};

use crate::{
    envelope::{CE_ID, CE_TENANT, CE_TYPE, Headers},
    subject,
    wire::headers,
};

/// A message with the place it has in its stream.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) subject: String,
    pub(crate) headers: Headers,
    pub(crate) body: Bytes,
    pub(crate) handle: Subject,
    pub(crate) place: Place,
}

/// What the handle of a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) delivered: u64,
    pub(crate) stream_sequence: u64,
    pub(crate) consumer_sequence: u64,
    pub(crate) pending: u64,
    /// When the stream stored it.
    pub(crate) stored_at: Timestamp,
}

/// Whose message it is, and what it is.
#[derive(Debug)]
pub(crate) struct Identity {
    pub(crate) tenant: Slug,
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) key: Option<RecordKey>,
}

// === impl Arrived ===

impl Arrived {
    /// `None`: not a message of a stream.
    pub(crate) fn new(message: Message) -> Option<Self> {
        let handle = message.reply?;
        let place = Place::parse(&handle)?;
        let headers = headers(message.headers.as_ref());
        let subject = message.subject.to_string();
        Some(Self {
            subject,
            headers,
            body: message.payload,
            handle,
            place,
        })
    }

    /// Tenant, id and type. The tenant of the subject counts; a different one in the headers is a
    /// lie.
    pub(crate) fn identity(&self) -> Result<Identity, String> {
        let subject = &self.subject;
        let tenant = subject::tenant(subject)
            .ok_or_else(|| format!("subject `{subject}` names no tenant"))?;
        if let Some(claimed) = self.headers.attribute(CE_TENANT)
            && claimed != tenant.as_str()
        {
            return Err(format!("`ce-tenant` is `{claimed}` on subject `{subject}`"));
        }
        let kind = self
            .headers
            .attribute(CE_TYPE)
            .ok_or("`ce-type` is missing or broken")?;
        let key = subject::key_of(subject).and_then(|(_, key)| key.parse().ok());
        let id = self.headers.attribute(CE_ID);
        let id = id.unwrap_or_else(|| format!("{subject}:{}", self.place.stream_sequence));
        Ok(Identity {
            tenant,
            id,
            kind,
            key,
        })
    }
}

// === impl Place ===

impl Place {
    /// `$JS.ACK.<stream>.<consumer>.<delivered>.<stream seq>.<consumer seq>.<time>.<pending>`, or
    /// with domain and account hash before the stream, and perhaps a token after it all.
    fn parse(handle: &str) -> Option<Self> {
        let tokens: Vec<&str> = handle.strip_prefix("$JS.ACK.")?.split('.').collect();
        let numbers = match tokens.as_slice() {
            [_, _, numbers @ ..] if numbers.len() == 5 => numbers,
            [_, _, _, _, numbers @ ..] if numbers.len() >= 5 => numbers,
            _ => return None,
        };
        let [delivered, stream, consumer, time, pending, ..] = numbers else {
            return None;
        };
        let stored_at = Timestamp::from_nanosecond(time.parse().ok()?).ok()?;
        Some(Self {
            delivered: delivered.parse().ok()?,
            stream_sequence: stream.parse().ok()?,
            consumer_sequence: consumer.parse().ok()?,
            pending: pending.parse().ok()?,
            stored_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_handles_are_read() {
        let place = Place {
            delivered: 2,
            stream_sequence: 30,
            consumer_sequence: 4,
            pending: 5,
            stored_at: "1970-01-01T00:00:01.7Z".parse().unwrap(),
        };
        let check = |text: &str| assert_eq!(Place::parse(text), Some(place), "{text}");
        check("$JS.ACK.JOBS.image_high.2.30.4.1700000000.5");
        check("$JS.ACK.hub.ACCHASH.JOBS.image_high.2.30.4.1700000000.5");
        check("$JS.ACK.hub.ACCHASH.JOBS.image_high.2.30.4.1700000000.5.token");
        for bad in ["", "$JS.ACK.a.b.1.2.3", "_INBOX.x", "$JS.ACK.s.c.x.1.1.1.1"] {
            assert_eq!(Place::parse(bad), None, "{bad}");
        }
    }

    fn arrived(subject: &str, pairs: &[(&str, &str)]) -> Arrived {
        Arrived {
            subject: subject.to_owned(),
            headers: pairs
                .iter()
                .map(|(n, v)| ((*n).to_owned(), (*v).to_owned()))
                .collect(),
            body: Bytes::new(),
            handle: "$JS.ACK.S.C.1.2.3.4.5".into(),
            place: Place {
                delivered: 1,
                stream_sequence: 2,
                consumer_sequence: 3,
                pending: 5,
                stored_at: Timestamp::UNIX_EPOCH,
            },
        }
    }

    #[test]
    fn a_tenant_in_the_headers_cannot_differ_from_the_subject() {
        let subject = "tw.res.acme.image.judged";
        let headers = [("ce-type", "t"), ("CE-Tenant", "acme")];
        assert_eq!(
            arrived(subject, &headers)
                .identity()
                .unwrap()
                .tenant
                .as_str(),
            "acme"
        );
        let headers = [("ce-type", "t"), ("ce-tenant", "other")];
        assert!(arrived(subject, &headers).identity().is_err());
        assert!(arrived("tw.dlq.A.b", &headers).identity().is_err());
    }
}
