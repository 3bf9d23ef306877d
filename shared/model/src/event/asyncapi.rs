//! The AsyncAPI document of what subscribers get, made from [`NEWS`].

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{Kind, NEWS};

/// The version of the document: the second number grows with what is added, the first with what
/// breaks a subscriber.
const VERSION: &str = "1.2.0";
const DESCRIPTION: &str = "\
What Tidewaiter tells: pushes and requests as they arrive, verdicts, vulnerabilities that come and \
go, what containers do that they should not, alerts.\n\nOver NATS a message is a CloudEvent in binary mode: attributes are headers, the body \
is MessagePack with named fields. The payload schemas here describe the same body as JSON; a digest \
is text in JSON and 32 raw bytes in MessagePack. An event over 256 KiB travels as an object: its \
body is empty and the header `tw-claim` names it.\n\nWhere the JSON bridge is on, each event is \
also stored in the stream `JSON` and published below `tw.json.` as a CloudEvent in structured mode. \
`GET /v1/events` gives the same JSON as server-sent events.\n\nAn event may come twice, always with \
the same id and source. Fields, values of enumerations and kinds of events may be added: ignore what \
you do not know. A change of meaning gets a new type.";

/// The AsyncAPI 3.0 document.
pub fn asyncapi() -> Value {
    let settings = SchemaSettings::draft07().with(|settings| {
        settings.definitions_path = "/components/schemas".into();
        settings.meta_schema = None;
    });
    let mut generator = settings.into_generator();
    let mut parts = Parts::default();
    for kind in NEWS {
        parts.add(kind, &mut generator);
    }
    let mut schemas = generator.take_definitions(true);
    schemas.insert("CloudEventHeaders".to_owned(), headers());
    schemas.insert("CloudEvent".to_owned(), envelope());
    parts.add_http();
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Tidewaiter events",
            "version": VERSION,
            "description": DESCRIPTION,
            "license": { "name": "Apache-2.0" },
        },
        "defaultContentType": "application/msgpack",
        "servers": servers(),
        "channels": parts.channels,
        "operations": parts.operations,
        "components": {
            "messages": parts.messages,
            "schemas": schemas,
            "parameters": parameters(),
            "securitySchemes": security_schemes(),
        },
    })
}

/// What grows by each kind.
#[derive(Default)]
struct Parts {
    channels: Map<String, Value>,
    operations: Map<String, Value>,
    messages: Map<String, Value>,
}

// === impl Parts ===

impl Parts {
    fn add(&mut self, kind: &Kind, generator: &mut SchemaGenerator) {
        let name = camel_case(kind.name());
        let body = (kind.part)(generator).to_value();
        let bridged = format!("{name}Json");
        self.messages
            .insert(name.clone(), binary_message(kind, &body));
        self.messages
            .insert(bridged.clone(), structured_message(kind, &body));
        let address = kind.address;
        self.channel(&name, address, &format!("Stream `{}`", kind.stream));
        let json_address = bridge_subject(address);
        self.channel(&bridged, &json_address, "Stream `JSON`");
    }

    /// One message on one subject.
    fn channel(&mut self, name: &str, address: &str, description: &str) {
        let parameters: Map<String, Value> = names(address)
            .map(|name| (name.to_owned(), reference("components/parameters", name)))
            .collect();
        let channel = json!({
            "address": address,
            "description": description,
            "servers": [reference("servers", "nats")],
            "parameters": parameters,
            "messages": { name: reference("components/messages", name) },
        });
        self.channels.insert(name.to_owned(), channel);
        let operation = json!({
            "action": "send",
            "channel": reference("channels", name),
            "messages": [reference(&format!("channels/{name}/messages"), name)],
        });
        self.operations.insert(send(name), operation);
    }

    /// Server-sent events: all kinds on one channel.
    fn add_http(&mut self) {
        let bridged: Vec<String> = NEWS
            .iter()
            .map(|kind| format!("{}Json", camel_case(kind.name())))
            .collect();
        let messages: Map<String, Value> = bridged
            .iter()
            .map(|name| (name.clone(), reference("components/messages", name)))
            .collect();
        let in_channel = bridged
            .iter()
            .map(|name| reference("channels/serverSentEvents/messages", name));
        let operation = json!({
            "action": "send",
            "channel": reference("channels", "serverSentEvents"),
            "messages": in_channel.collect::<Vec<_>>(),
            "bindings": { "http": { "method": "GET", "bindingVersion": "0.3.0" } },
        });
        let channel = json!({
            "address": "/v1/events",
            "description": "Server-sent events (`text/event-stream`): `event` is the kind, `data` \
                the CloudEvent, `id` the position to send back as `Last-Event-ID`.",
            "servers": [reference("servers", "api")],
            "messages": messages,
        });
        self.channels.insert("serverSentEvents".to_owned(), channel);
        self.operations.insert(send("serverSentEvents"), operation);
    }
}

/// The subject of the JSON bridge for a subject of ours.
pub fn bridge_subject(subject: &str) -> String {
    format!("tw.json.{}", subject.strip_prefix("tw.").unwrap_or(subject))
}

fn binary_message(kind: &Kind, body: &Value) -> Value {
    let sample = kind.sample();
    let of_kind = json!({ "properties": { "ce-type": { "const": kind.ce_type } } });
    json!({
        "name": kind.ce_type,
        "title": kind.name(),
        "summary": kind.summary,
        "contentType": "application/msgpack",
        "headers": { "allOf": [reference("components/schemas", "CloudEventHeaders"), of_kind] },
        "payload": body,
        "examples": [{
            "name": "all-fields",
            "summary": format!("On `{}`", sample.subject),
            "headers": {
                "ce-specversion": "1.0",
                "ce-id": sample.id,
                "ce-source": sample.origin,
                "ce-type": kind.ce_type,
                "ce-time": EXAMPLE_TIME,
                "ce-datacontenttype": "application/msgpack",
                "ce-tenant": "default",
                "Nats-Msg-Id": sample.id,
            },
            "payload": sample.body,
        }],
    })
}

const EXAMPLE_TIME: &str = "2026-01-02T03:04:05Z";

fn structured_message(kind: &Kind, body: &Value) -> Value {
    let sample = kind.sample();
    let of_kind = json!({
        "properties": { "type": { "const": kind.ce_type }, "data": body },
        "required": ["data"],
    });
    json!({
        "name": format!("{}+json", kind.ce_type),
        "title": format!("{} as JSON", kind.name()),
        "summary": kind.summary,
        "contentType": "application/cloudevents+json",
        "payload": { "allOf": [reference("components/schemas", "CloudEvent"), of_kind] },
        "examples": [{
            "name": "all-fields",
            "summary": format!("On `{}`", bridge_subject(&sample.subject)),
            "payload": {
                "specversion": "1.0",
                "id": sample.id,
                "source": sample.origin,
                "type": kind.ce_type,
                "time": EXAMPLE_TIME,
                "datacontenttype": "application/json",
                "tenant": "default",
                "stream": kind.stream,
                "streamsequence": "7",
                "data": sample.body,
            },
        }],
    })
}

/// The headers of binary mode (CloudEvents NATS binding): header values are percent-encoded.
fn headers() -> Value {
    json!({
        "title": "CloudEventHeaders",
        "description": "CloudEvents attributes in binary mode; values are percent-encoded.",
        "type": "object",
        "required": [
            "ce-specversion", "ce-id", "ce-source", "ce-type", "ce-time", "ce-datacontenttype",
            "ce-tenant",
        ],
        "properties": {
            "ce-specversion": { "type": "string", "const": "1.0" },
            "ce-id": { "type": "string", "description": "Computed from the content: the same event has the same id." },
            "ce-source": { "type": "string", "format": "uri-reference" },
            "ce-type": { "type": "string" },
            "ce-time": { "type": "string", "format": "date-time" },
            "ce-datacontenttype": { "type": "string", "const": "application/msgpack" },
            "ce-tenant": reference("components/schemas", "Slug"),
            "traceparent": { "type": "string", "description": "W3C trace context" },
            "tracestate": { "type": "string", "description": "W3C trace context" },
            "tw-claim": { "type": "string", "description": "Names the object that holds the body, where that is over 256 KiB." },
            "Nats-Msg-Id": { "type": "string", "description": "The same as `ce-id`, not encoded." },
        },
    })
}

/// The envelope of structured mode.
fn envelope() -> Value {
    json!({
        "title": "CloudEvent",
        "description": "A CloudEvent in structured mode.",
        "type": "object",
        "required": ["specversion", "id", "source", "type", "time", "datacontenttype", "tenant", "stream", "streamsequence"],
        "properties": {
            "specversion": { "type": "string", "const": "1.0" },
            "id": { "type": "string", "description": "Computed from the content: the same event has the same id." },
            "source": { "type": "string", "format": "uri-reference" },
            "type": { "type": "string" },
            "time": { "type": "string", "format": "date-time" },
            "datacontenttype": { "type": "string", "const": "application/json" },
            "tenant": reference("components/schemas", "Slug"),
            "stream": { "type": "string", "description": "The stream that holds the event." },
            "streamsequence": { "type": "string", "pattern": "^[0-9]+$", "description": "Its number there: what came later has a greater one." },
            "traceparent": { "type": "string", "description": "W3C trace context" },
            "tracestate": { "type": "string", "description": "W3C trace context" },
            "data": { "description": "The event; absent where nobody can read it any more." },
        },
    })
}

fn servers() -> Value {
    json!({
        "nats": {
            "host": "nats.example:4222",
            "protocol": "nats",
            "description": "The NATS server of the installation, with JetStream.",
            "security": [reference("components/securitySchemes", "credentials")],
        },
        "api": {
            "host": "tidewaiter.example",
            "protocol": "https",
            "description": "The REST API of the installation.",
            "security": [reference("components/securitySchemes", "token")],
        },
    })
}

fn security_schemes() -> Value {
    json!({
        "credentials": {
            "type": "userPassword",
            "description": "A NATS user that may read the streams; or a credentials file.",
        },
        "token": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token with the scope `read`; it sees its own tenant.",
        },
    })
}

fn parameters() -> Value {
    json!({
        "tenant": {
            "description": "Whose it is; `default` where nobody asked for tenants.",
            "default": "default",
        },
        "source": { "description": "The name of the registry's source." },
        "system": { "description": "The CI system or client that asks." },
        "change": {
            "description": "What became of the vulnerability.",
            "enum": ["appeared", "resolved"],
        },
        "node": { "description": "The node." },
        "incident": {
            "description": "What became of the incident.",
            "enum": ["incident_opened", "incident_closed"],
        },
        "severity": {
            "description": "How bad it is.",
            "enum": ["critical", "high", "medium", "low", "negligible", "unknown"],
        },
    })
}

/// What stands in braces.
fn names(address: &str) -> impl Iterator<Item = &str> {
    address
        .split('.')
        .filter_map(|token| token.strip_prefix('{')?.strip_suffix('}'))
}

fn reference(place: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/{place}/{name}") })
}

/// `image.judged` is `imageJudged`.
fn camel_case(name: &str) -> String {
    let mut words = name.split('.');
    let first = words.next().unwrap_or_default().to_owned();
    words.fold(first, |text, word| text + &capital(word))
}

/// The operation that sends on a channel.
fn send(channel: &str) -> String {
    format!("send{}", capital(channel))
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    let first = chars.next().map(|first| first.to_ascii_uppercase());
    first.into_iter().chain(chars).collect()
}
