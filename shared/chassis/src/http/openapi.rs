//! The document of an API, made of its tables: `OpenAPI` 3.1, whose schemas are JSON Schema 2020-12.
//!
//! Answers are described as they are written, requests as they are read: a field with a default is
//! there in every answer and may be left out of a request.

use schemars::{SchemaGenerator, generate::SchemaSettings};
use serde_json::{Map, Value, json};

use super::{
    etag::Validator,
    route::{Access, Answer, Content, Operation, Parameter},
};

/// What is to be said of the whole.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The API's name.
    pub title: &'static str,
    /// Its version.
    pub version: &'static str,
    /// A few paragraphs, in Markdown.
    pub description: &'static str,
}

/// Generators of schemas, for the two ways in which a type is used.
struct Schemas {
    answers: SchemaGenerator,
    requests: SchemaGenerator,
}

/// The document. Rows are in the order of paths, whatever the order of the tables.
pub fn document(info: Info, operations: &[Operation]) -> Value {
    let settings = || {
        SchemaSettings::draft2020_12().with(|settings| {
            settings.definitions_path = "/components/schemas".into();
            settings.meta_schema = None;
        })
    };
    let inline = |settings: &mut SchemaSettings| settings.inline_subschemas = true;
    let mut schemas = Schemas {
        answers: settings().for_serialize().into_generator(),
        // Whole: a type that is also in an answer may look otherwise there.
        requests: settings().for_deserialize().with(inline).into_generator(),
    };
    let mut paths = Map::new();
    for operation in operations {
        let described = schemas.operation(operation);
        let path = paths
            .entry(operation.path.clone())
            .or_insert_with(|| json!({}));
        path[operation.method.as_str().to_ascii_lowercase()] = described;
    }
    let mut document = json!({
        "openapi": "3.1.0",
        "info": {
            "title": info.title,
            "version": info.version,
            "description": info.description,
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
        },
        "servers": [{ "url": "/", "description": "where this document comes from" }],
        "paths": paths,
        "components": {
            "schemas": schemas.answers.take_definitions(true),
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token of `POST /v1/tokens`; its scopes say what it may do.",
                },
                "hook_token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The source's `hook_token`.",
                },
                "hook_signature": {
                    "type": "apiKey",
                    "in": "header",
                    "name": "X-Tidewaiter-Signature",
                    "description":
                        "`t=<unix seconds>,v1=<hex>`: HMAC-SHA256 with the source's secret over the \
                         time, a dot and the body.",
                },
            },
        },
    });
    // The same text, whatever the order in which tables and types are written.
    document.sort_all_objects();
    document
}

// === impl Schemas ===

impl Schemas {
    fn operation(&mut self, operation: &Operation) -> Value {
        let mut described = json!({
            "operationId": operation.id,
            "summary": operation.summary,
            "tags": [tag(&operation.path)],
            "security": security(operation.access),
            "responses": self.answers(operation),
        });
        if !operation.detail.is_empty() {
            described["description"] = operation.detail.into();
        }
        let parameters = self.parameters(operation);
        if !parameters.is_empty() {
            described["parameters"] = parameters.into();
        }
        if let Some(body) = &operation.body {
            let content = content(&mut self.requests, body);
            described["requestBody"] = json!({ "required": true, "content": content });
        }
        described
    }

    fn parameters(&mut self, operation: &Operation) -> Vec<Value> {
        let mut parameters = Vec::new();
        let mut add = |place: &str, one: &Parameter, requests: &mut SchemaGenerator| {
            parameters.push(json!({
                "name": one.name,
                "in": place,
                "required": place == "path",
                "description": one.description,
                "schema": (one.schema)(requests),
            }));
        };
        for one in &operation.paths {
            add("path", one, &mut self.requests);
        }
        for one in &operation.headers {
            add("header", one, &mut self.requests);
        }
        if operation.validator != Validator::Never {
            parameters.push(json!({
                "name": "If-None-Match",
                "in": "header",
                "required": false,
                "description": "The `ETag` of the answer that the caller has.",
                "schema": { "type": "string" },
            }));
        }
        let Some(query) = operation.query else {
            return parameters;
        };
        let query = query(&mut self.requests);
        let required = query.get("required").cloned().unwrap_or_default();
        let fields = query.get("properties").and_then(Value::as_object);
        for (name, schema) in fields.into_iter().flatten() {
            let mut schema = schema.clone();
            let description = schema
                .as_object_mut()
                .and_then(|schema| schema.remove("description"));
            parameters.push(json!({
                "name": name,
                "in": "query",
                "required": required.as_array().is_some_and(|all| all.contains(&json!(name))),
                "description": description.unwrap_or_default(),
                "schema": present(schema),
            }));
        }
        parameters
    }

    fn answers(&mut self, operation: &Operation) -> Value {
        let mut answers = Map::new();
        for answer in &operation.answers {
            let described = self.answer(answer, operation.validator);
            answers.insert(answer.status.as_str().to_owned(), described);
        }
        let mut problem = |status: &str, description: &str| {
            let content = content(&mut self.answers, &Content::problem());
            let described = json!({ "description": description, "content": content });
            answers.entry(status).or_insert(described);
        };
        if let Access::Scope(_) = operation.access {
            problem(
                "401",
                "there is no token, or nobody knows it, or it ran out",
            );
            problem("403", "the token lacks the scope");
        }
        let is_json = operation
            .body
            .as_ref()
            .is_some_and(|body| body.schema.is_some());
        if operation.query.is_some() || is_json {
            problem("400", "the request cannot be understood");
        }
        if is_json {
            problem("415", "the body's `Content-Type` is not `application/json`");
            problem("422", "the body is JSON, and not what is described");
        }
        if operation.body.is_some() {
            problem("413", "the body is too large");
        }
        problem(
            "default",
            "something else is wrong; `503` and `429` say when to try again",
        );
        if operation.validator != Validator::Never {
            let described =
                json!({ "description": "the caller has the answer: `If-None-Match` names it" });
            answers.insert("304".to_owned(), described);
        }
        answers.into()
    }

    fn answer(&mut self, answer: &Answer, validator: Validator) -> Value {
        let mut described = json!({ "description": answer.description });
        if let Some(body) = &answer.content {
            described["content"] = content(&mut self.answers, body);
        }
        let mut headers = Map::new();
        let mut header = |name: &str, description: &str| {
            let header = json!({ "description": description, "schema": { "type": "string" } });
            headers.insert(name.to_owned(), header);
        };
        for (name, description) in &answer.headers {
            header(name, description);
        }
        if validator != Validator::Never && answer.status.as_u16() == 200 {
            header("ETag", "for `If-None-Match`");
        }
        if !headers.is_empty() {
            described["headers"] = headers.into();
        }
        described
    }
}

/// A parameter that may be left out is not sent as null.
fn present(mut schema: Value) -> Value {
    let Some(fields) = schema.as_object_mut() else {
        return schema;
    };
    fields.remove("default");
    if let Some(kinds) = fields.get_mut("type").and_then(Value::as_array_mut) {
        kinds.retain(|kind| kind != "null");
        if let [one] = kinds.as_slice() {
            let one = one.clone();
            fields.insert("type".to_owned(), one);
        }
    }
    let Some(choices) = fields.get_mut("anyOf").and_then(Value::as_array_mut) else {
        return schema;
    };
    choices.retain(|choice| choice["type"] != "null");
    match choices.as_slice() {
        [one] => one.clone(),
        _ => schema,
    }
}

fn content(generator: &mut SchemaGenerator, content: &Content) -> Value {
    let schema = content
        .schema
        .map_or_else(|| json!({}), |of| of(generator).to_value());
    let mut by_media = Map::new();
    by_media.insert(content.media.to_owned(), json!({ "schema": schema }));
    by_media.into()
}

fn security(access: Access) -> Value {
    match access {
        Access::Anyone => json!([]),
        Access::Sender => json!([{ "hook_token": [] }, { "hook_signature": [] }]),
        Access::Scope(scope) => json!([{ "token": [scope] }]),
    }
}

/// What the path is about: its first part behind the version.
fn tag(path: &str) -> &str {
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    match parts.next() {
        Some("v1") => parts.next().unwrap_or("v1"),
        Some(part) => part,
        None => "root",
    }
}

#[cfg(test)]
mod tests {
    use axum::{Json, extract::State, http::StatusCode};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};

    use super::{
        super::route::{Route, operations},
        *,
    };

    #[derive(Serialize, Deserialize, JsonSchema)]
    struct Thing {
        #[serde(default)]
        name: String,
    }

    /// A query.
    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is used")]
    struct Query {
        /// How many.
        #[serde(default)]
        limit: Option<u8>,
        /// Which.
        name: String,
    }

    async fn handle(State(()): State<()>) -> Json<Thing> {
        Json(Thing {
            name: String::new(),
        })
    }

    #[test]
    fn a_row_is_all_that_the_document_says() {
        let read = Access::Scope("read");
        let table: Vec<Route<()>> = vec![
            read.get("/v1/things/{*name}", "getThing", "A thing", handle)
                .path::<String>("name", "its name")
                .query::<Query>()
                .answers::<Thing>(StatusCode::OK, "the thing"),
            read.put("/v1/things/{*name}", "putThing", "Puts a thing", handle)
                .path::<String>("name", "its name")
                .body::<Thing>()
                .answers_nothing(StatusCode::NO_CONTENT, "it is there"),
        ];
        let info = Info {
            title: "things",
            version: "1",
            description: "",
        };
        let document = document(info, &operations(table));
        let things = &document["paths"]["/v1/things/{name}"];
        let parameter = |name: &str, place: &str, required: bool, description: &str| {
            let kind = if name == "limit" {
                json!({ "type": "integer", "format": "uint8", "minimum": 0, "maximum": 255 })
            } else {
                json!({ "type": "string" })
            };
            json!({
                "name": name,
                "in": place,
                "required": required,
                "description": description,
                "schema": kind,
            })
        };
        let known = "The `ETag` of the answer that the caller has.";
        let expected = json!([
            parameter("name", "path", true, "its name"),
            parameter("If-None-Match", "header", false, known),
            parameter("limit", "query", false, "How many."),
            parameter("name", "query", true, "Which."),
        ]);
        assert_eq!(things["get"]["parameters"], expected);
        assert_eq!(things["get"]["security"], json!([{ "token": ["read"] }]));
        let statuses = |method: &str| {
            let answers = things[method]["responses"].as_object().unwrap();
            answers.keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(
            statuses("get"),
            ["200", "304", "400", "401", "403", "default"]
        );
        let of_put = ["204", "400", "401", "403", "413", "415", "422", "default"];
        assert_eq!(statuses("put"), of_put);
        // Read, it may go without its name.
        let body = &things["put"]["requestBody"]["content"]["application/json"]["schema"];
        assert_eq!(body["properties"]["name"]["type"], "string");
        assert_eq!(body.get("required"), None);
        // Written, it has one.
        let thing = &document["components"]["schemas"]["Thing"];
        assert_eq!(thing["required"], json!(["name"]));
    }
}
