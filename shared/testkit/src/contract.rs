//! What an API says of itself, held against what it answers.
//!
//! The document is read as a stranger's: its shape is checked against the parts of `OpenAPI` 3.1 that
//! tools rely on, its schemas against JSON Schema 2020-12, and every answer that a test gets against
//! the schema of its route and status. What is not described is wrong, a field too many included.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
};

use serde_json::{Map, Value, json};

/// Errors that every server has and that no route describes one by one.
const EVERYWHERE: [u16; 3] = [405, 408, 500];
/// What a document must be.
const SHAPE: &str = include_str!("contract/openapi-3.1.json");

/// A document, and which of its answers were seen.
#[derive(Debug)]
pub struct Contract {
    document: Value,
    seen: Mutex<BTreeSet<String>>,
}

/// An answer, as it came.
#[derive(Clone, Copy, Debug)]
pub struct Answered<'a> {
    /// The request's method.
    pub method: &'a str,
    /// Its path, without the query.
    pub path: &'a str,
    /// The status.
    pub status: u16,
    /// The answer's `Content-Type`.
    pub media: Option<&'a str>,
    /// Its body.
    pub body: &'a [u8],
}

// === impl Contract ===

impl Contract {
    /// A contract; what is wrong with the document itself is said all at once.
    pub fn new(document: Value) -> Self {
        let wrong = wrong_with(&document);
        assert!(wrong.is_empty(), "the document:\n{}", wrong.join("\n"));
        let seen = Mutex::default();
        Self { document, seen }
    }

    /// Holds an answer against the document.
    pub fn check(&self, answered: &Answered<'_>) {
        let Answered {
            method,
            path,
            status,
            media,
            body,
        } = *answered;
        let what = format!("{method} {path}: {status}");
        let Some((template, operation)) = self.operation(method, path) else {
            assert_eq!(status, 404, "{what}: it is in no table");
            return;
        };
        let code = status.to_string();
        let described = operation["responses"].get(&code);
        let everywhere = EVERYWHERE.contains(&status) || status == 503;
        let described =
            described.or_else(|| operation["responses"].get("default").filter(|_| everywhere));
        let described = described.unwrap_or_else(|| panic!("{what}: it is not described"));
        let shown = format!("{} {template} {code}", method.to_ascii_uppercase());
        self.seen
            .lock()
            .expect("no test panicked here")
            .insert(shown);
        let Some(content) = described["content"].as_object() else {
            assert!(
                body.is_empty(),
                "{what}: it has a body, and none is described"
            );
            return;
        };
        let media = media.unwrap_or_else(|| panic!("{what}: it has no `Content-Type`"));
        let kind = |media: &str| media.split(';').next().unwrap_or(media).trim().to_owned();
        let found = content
            .iter()
            .find(|(described, _)| kind(described) == kind(media));
        let (_, content) = found.unwrap_or_else(|| panic!("{what}: `{media}` is not described"));
        if !media.contains("json") {
            return;
        }
        let body: Value =
            serde_json::from_slice(body).unwrap_or_else(|error| panic!("{what}: {error}"));
        let wrong = self.wrong_with(&content["schema"], &body);
        assert!(wrong.is_empty(), "{what}:\n{}\n{body:#}", wrong.join("\n"));
    }

    /// Answers that are described one by one and that no test has seen.
    pub fn unseen(&self) -> Vec<String> {
        let seen = self.seen.lock().expect("no test panicked here");
        let mut unseen = Vec::new();
        for (path, method, operation) in operations(&self.document) {
            for status in operation["responses"]
                .as_object()
                .into_iter()
                .flat_map(Map::keys)
            {
                let shown = format!("{} {path} {status}", method.to_ascii_uppercase());
                if status != "default" && !seen.contains(&shown) {
                    unseen.push(shown);
                }
            }
        }
        unseen
    }

    /// The operation of a request: of several that fit, the one with the most that is fixed.
    fn operation(&self, method: &str, path: &str) -> Option<(&str, &Value)> {
        let method = method.to_ascii_lowercase();
        let fitting = operations(&self.document)
            .filter(|(template, of, _)| *of == method && fits(template, path));
        let fixed = |template: &str| {
            template
                .split('/')
                .filter(|part| !part.starts_with('{'))
                .count()
        };
        let best = fitting.max_by_key(|(template, _, _)| fixed(template));
        best.map(|(template, _, operation)| (template, operation))
    }

    fn wrong_with(&self, schema: &Value, body: &Value) -> Vec<String> {
        let mut whole = json!({
            "allOf": [schema],
            "components": { "schemas": self.document["components"]["schemas"] },
        });
        close(&mut whole);
        let validator = jsonschema::validator_for(&whole).expect("the schema can be used");
        let errors = validator.iter_errors(body);
        errors
            .map(|error| format!("{}: {error}", error.instance_path()))
            .collect()
    }
}

/// All operations, as path, method and what is said of it.
fn operations(document: &Value) -> impl Iterator<Item = (&str, &str, &Value)> {
    let paths = document["paths"].as_object().into_iter().flatten();
    paths.flat_map(|(path, item)| {
        let item = item.as_object().into_iter().flatten();
        item.map(move |(method, operation)| (path.as_str(), method.as_str(), operation))
    })
}

/// Whether a path is one of a template. The last parameter of a template may hold slashes.
fn fits(template: &str, path: &str) -> bool {
    let mut parts = path.trim_start_matches('/').split('/');
    let mut wanted = template.trim_start_matches('/').split('/').peekable();
    while let Some(one) = wanted.next() {
        let Some(part) = parts.next() else {
            return false;
        };
        if one.starts_with('{') {
            if part.is_empty() {
                return false;
            }
            if wanted.peek().is_none() {
                return true;
            }
        } else if one != part {
            return false;
        }
    }
    parts.next().is_none()
}

/// Refuses fields that a schema does not name, unless it combines others.
fn close(schema: &mut Value) {
    match schema {
        Value::Object(fields) => {
            for (name, inner) in fields.iter_mut() {
                if name == "properties" || name == "schemas" {
                    inner
                        .as_object_mut()
                        .into_iter()
                        .flatten()
                        .for_each(|(_, one)| close(one));
                } else {
                    close(inner);
                }
            }
            let combines = [
                "$ref",
                "allOf",
                "anyOf",
                "oneOf",
                "additionalProperties",
                "patternProperties",
            ];
            let is_plain = !combines.iter().any(|name| fields.contains_key(*name));
            if is_plain && fields.get("properties").is_some_and(Value::is_object) {
                fields.insert("additionalProperties".to_owned(), false.into());
            }
        }
        Value::Array(all) => all.iter_mut().for_each(close),
        _ => {}
    }
}

/// What is wrong with a document.
fn wrong_with(document: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    let shape = serde_json::from_str(SHAPE).expect("our schema is JSON");
    let validator = jsonschema::validator_for(&shape).expect("our schema can be used");
    for error in validator.iter_errors(document) {
        wrong.push(format!("{}: {error}", error.instance_path()));
    }
    let schemas = document["components"]["schemas"].as_object();
    for (name, schema) in schemas.into_iter().flatten() {
        if let Err(error) = jsonschema::draft202012::meta::validate(schema) {
            wrong.push(format!("schema `{name}`: {error}"));
        }
    }
    let mut ids: BTreeMap<&str, usize> = BTreeMap::new();
    for (path, method, operation) in operations(document) {
        *ids.entry(operation["operationId"].as_str().unwrap_or_default())
            .or_default() += 1;
        wrong.extend(
            wrong_with_operation(document, path, operation)
                .map(|what| format!("{method} {path}: {what}")),
        );
    }
    let twice = ids.into_iter().filter(|(_, count)| *count > 1);
    wrong.extend(twice.map(|(id, _)| format!("the operation id `{id}` is there twice")));
    references(document, &mut |reference| {
        let target = reference
            .strip_prefix('#')
            .and_then(|at| document.pointer(at));
        if target.is_none() {
            wrong.push(format!("`{reference}` leads nowhere"));
        }
    });
    wrong
}

fn wrong_with_operation<'a>(
    document: &'a Value,
    path: &'a str,
    operation: &'a Value,
) -> impl Iterator<Item = String> {
    let mut wrong = Vec::new();
    let in_path: BTreeSet<&str> = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'))
        .collect();
    let parameters = operation["parameters"].as_array();
    let described: BTreeSet<&str> = parameters
        .into_iter()
        .flatten()
        .filter(|one| one["in"] == "path")
        .filter_map(|one| one["name"].as_str())
        .collect();
    if in_path != described {
        wrong.push(format!(
            "the path has {in_path:?}, and {described:?} are described"
        ));
    }
    let answers = operation["responses"]
        .as_object()
        .into_iter()
        .flat_map(Map::keys);
    if !answers
        .into_iter()
        .any(|status| status.starts_with(['2', '3']) && status != "304")
    {
        wrong.push("no success is described".to_owned());
    }
    for schemes in operation["security"].as_array().into_iter().flatten() {
        for scheme in schemes.as_object().into_iter().flat_map(Map::keys) {
            if document["components"]["securitySchemes"]
                .get(scheme)
                .is_none()
            {
                wrong.push(format!("there is no security scheme `{scheme}`"));
            }
        }
    }
    wrong.into_iter()
}

fn references(value: &Value, found: &mut impl FnMut(&str)) {
    match value {
        Value::Object(fields) => {
            if let Some(reference) = fields.get("$ref").and_then(Value::as_str) {
                found(reference);
            }
            fields.values().for_each(|inner| references(inner, found));
        }
        Value::Array(all) => all.iter().for_each(|inner| references(inner, found)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({
            "openapi": "3.1.0",
            "info": { "title": "t", "version": "1" },
            "paths": { "/things/{name}": { "get": {
                "operationId": "getThing",
                "summary": "A thing",
                "tags": ["things"],
                "security": [],
                "parameters": [{
                    "name": "name", "in": "path", "required": true, "description": "its name",
                    "schema": { "type": "string" },
                }],
                "responses": { "200": {
                    "description": "it",
                    "content": { "application/json": {
                        "schema": { "$ref": "#/components/schemas/Thing" },
                    } },
                } },
            } } },
            "components": { "schemas": { "Thing": {
                "type": "object",
                "required": ["name"],
                "properties": { "name": { "type": "string" } },
            } } },
        })
    }

    fn breaks(status: u16, path: &str, body: &str) -> bool {
        let contract = Contract::new(document());
        let answered = Answered {
            method: "GET",
            path,
            status,
            media: Some("application/json"),
            body: body.as_bytes(),
        };
        std::panic::catch_unwind(|| contract.check(&answered)).is_err()
    }

    #[test]
    fn an_answer_must_be_as_described() {
        assert!(!breaks(200, "/things/a", r#"{"name":"a"}"#));
        assert!(!breaks(200, "/things/a/b", r#"{"name":"a"}"#));
        assert!(!breaks(404, "/nothing", "{}"));
        for (status, path, body) in [
            (201, "/things/a", r#"{"name":"a"}"#),
            (200, "/things/a", r#"{"name":1}"#),
            (200, "/things/a", "{}"),
            (200, "/things/a", r#"{"name":"a","more":1}"#),
            (200, "/nothing", "{}"),
        ] {
            assert!(breaks(status, path, body), "{status} {path} {body}");
        }
    }

    #[test]
    fn what_no_test_has_seen_is_named() {
        assert_eq!(
            Contract::new(document()).unseen(),
            ["GET /things/{name} 200"]
        );
    }

    #[test]
    fn a_document_that_tools_cannot_read_is_refused() {
        let check = |pointer: &str, value: Value| {
            let mut document = document();
            *document.pointer_mut(pointer).expect("it is there") = value;
            assert!(!wrong_with(&document).is_empty(), "{pointer}");
        };
        let operation = "/paths/~1things~1{name}/get";
        assert_eq!(wrong_with(&document()), [""; 0]);
        check("/openapi", json!("3.0.3"));
        check("/components/schemas/Thing/type", json!("thing"));
        check(&format!("{operation}/operationId"), json!("get thing"));
        check(&format!("{operation}/summary"), json!(""));
        check(&format!("{operation}/parameters"), json!([]));
        check(&format!("{operation}/security"), json!([{ "unknown": [] }]));
        check(
            &format!("{operation}/responses"),
            json!({ "404": { "description": "none" } }),
        );
        let schema = "responses/200/content/application~1json/schema";
        check(
            &format!("{operation}/{schema}"),
            json!({ "$ref": "#/components/schemas/None" }),
        );
    }
}
