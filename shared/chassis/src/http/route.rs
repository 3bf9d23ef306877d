//! Routes as a table: what the router is made of is what the document says.
//!
//! A row begins with who may call it and ends with what it answers:
//!
//! ```ignore
//! READ.get("/v1/images", "listImages", "Images, one row per name", images::list)
//!     .query::<ListQuery>()
//!     .answers::<Page<Row>>(StatusCode::OK, "a page of the list")
//!     .refuses(StatusCode::BAD_REQUEST, "a parameter means nothing")
//! ```
//!
//! [`router`] mounts the rows of a table, and [`operations`] gives their documentation to
//! [`super::openapi::document`]. There is no other way to a route, so none is without a name, a
//! sentence and an access rule. The rule is checked before the handler is called, and before
//! anything of an answer is compared with what the caller has already.

use std::fmt;

use axum::{
    Router,
    extract::{Request, State},
    handler::Handler,
    http::{Method, StatusCode},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse as _, Response},
    routing::{MethodFilter, MethodRouter, on},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::{auth, etag::Validator};

/// Makes the schema of a type.
pub(super) type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// Who may call a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Everybody: it tells nothing of this installation.
    Anyone,
    /// Who proves to the handler itself that a source sends it.
    Sender,
    /// Who has a token with this scope. The handler finds an `Extension<Grant>`.
    Scope(&'static str),
}

/// A row of a table.
pub struct Route<S> {
    operation: Operation,
    /// As the router matches it. `None`: another row's wildcard does.
    mounted: Option<(String, MethodRouter<S>)>,
}

/// What is to be said of a route.
#[derive(Clone, Debug)]
pub struct Operation {
    pub(super) method: Method,
    pub(super) path: String,
    pub(super) id: &'static str,
    pub(super) summary: &'static str,
    pub(super) detail: &'static str,
    pub(super) access: Access,
    pub(super) validator: Validator,
    pub(super) paths: Vec<Parameter>,
    pub(super) headers: Vec<Parameter>,
    pub(super) query: Option<SchemaOf>,
    pub(super) body: Option<Content>,
    pub(super) answers: Vec<Answer>,
}

/// A part of the path, or a header.
#[derive(Clone, Debug)]
pub(super) struct Parameter {
    pub(super) name: &'static str,
    pub(super) description: &'static str,
    pub(super) schema: SchemaOf,
}

/// What a body holds.
#[derive(Clone, Debug)]
pub(super) struct Content {
    pub(super) media: &'static str,
    /// `None`: bytes.
    pub(super) schema: Option<SchemaOf>,
}

/// An answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) description: &'static str,
    pub(super) content: Option<Content>,
    pub(super) headers: Vec<(&'static str, &'static str)>,
}

/// What stands between the router and a handler.
#[derive(Clone, Copy, Debug)]
struct Rule {
    access: Access,
    validator: Validator,
}

/// The router of a table.
pub fn router<S: Clone + Send + Sync + 'static>(table: Vec<Route<S>>, state: S) -> Router {
    let mut router = Router::new();
    for Route { operation, mounted } in table {
        let Some((path, handler)) = mounted else {
            continue;
        };
        let rule = Rule {
            access: operation.access,
            validator: operation.validator,
        };
        let guarded = handler.route_layer(from_fn_with_state(rule, guard));
        router = router.route(&path, guarded);
    }
    router.with_state(state)
}

/// What is to be said of a table.
pub fn operations<S>(table: Vec<Route<S>>) -> Vec<Operation> {
    table.into_iter().map(|route| route.operation).collect()
}

async fn guard(State(rule): State<Rule>, mut request: Request, next: Next) -> Response {
    if let Access::Scope(scope) = rule.access {
        match auth::permit(request.headers(), request.extensions(), scope).await {
            Ok(grant) => drop(request.extensions_mut().insert(grant)),
            Err(refused) => return refused.into_response(),
        }
        if let Some(standing) = auth::Standing::of(request.headers(), request.extensions()) {
            request.extensions_mut().insert(standing);
        }
    }
    let known = rule.validator.known(request.headers());
    let response = next.run(request).await;
    rule.validator.apply(&known, response).await
}

// === impl Access ===

/// A row per method, which is mounted and described at once.
macro_rules! methods {
    ($($(#[$doc:meta])* $name:ident, $method:ident, $validator:ident;)*) => {
        $(
            $(#[$doc])*
            pub fn $name<H, T, S>(
                self,
                path: &str,
                id: &'static str,
                summary: &'static str,
                handler: H,
            ) -> Route<S>
            where
                H: Handler<T, S>,
                T: 'static,
                S: Clone + Send + Sync + 'static,
            {
                let mut operation = Operation::new(Method::$method, path, self, (id, summary));
                operation.validator = Validator::$validator;
                operation.mounted(path, on(MethodFilter::$method, handler))
            }
        )*
    };
}

impl Access {
    methods! {
        /// `GET path`; `HEAD` comes with it. The answer gets a weak `ETag`.
        get, GET, Weak;
        /// `POST path`.
        post, POST, Never;
        /// `PUT path`.
        put, PUT, Never;
        /// `DELETE path`.
        delete, DELETE, Never;
    }

    /// `GET path` that the handler of another row's wildcard answers: a row for the document alone.
    pub fn get_within<S>(self, path: &str, id: &'static str, summary: &'static str) -> Route<S> {
        let mut operation = Operation::new(Method::GET, path, self, (id, summary));
        operation.validator = Validator::Weak;
        Route {
            operation,
            mounted: None,
        }
    }
}

// === impl Operation ===

impl Operation {
    fn new(
        method: Method,
        path: &str,
        access: Access,
        (id, summary): (&'static str, &'static str),
    ) -> Self {
        Self {
            method,
            // A wildcard is a parameter with slashes in it: the document knows no other kind.
            path: path.replace("{*", "{"),
            id,
            summary,
            detail: "",
            access,
            validator: Validator::Never,
            paths: Vec::new(),
            headers: Vec::new(),
            query: None,
            body: None,
            answers: Vec::new(),
        }
    }

    fn mounted<S>(self, path: &str, handler: MethodRouter<S>) -> Route<S> {
        Route {
            operation: self,
            mounted: Some((path.to_owned(), handler)),
        }
    }
}

// === impl Route ===

impl<S> Route<S> {
    /// More than one sentence.
    #[must_use]
    pub fn detail(mut self, detail: &'static str) -> Self {
        self.operation.detail = detail;
        self
    }

    /// The same bytes are always the same answer: its `ETag` is strong.
    #[must_use]
    pub fn strong(mut self) -> Self {
        self.operation.validator = Validator::Strong;
        self
    }

    /// The answer is another one each time, as the state of this moment, or a stream: no `ETag`.
    #[must_use]
    pub fn never_same(mut self) -> Self {
        self.operation.validator = Validator::Never;
        self
    }

    /// A part of the path.
    #[must_use]
    pub fn path<T: JsonSchema>(mut self, name: &'static str, description: &'static str) -> Self {
        self.operation
            .paths
            .push(Parameter::new::<T>(name, description));
        self
    }

    /// A header that may be sent.
    #[must_use]
    pub fn header<T: JsonSchema>(mut self, name: &'static str, description: &'static str) -> Self {
        self.operation
            .headers
            .push(Parameter::new::<T>(name, description));
        self
    }

    /// The query: a struct, whose documented fields are the parameters.
    #[must_use]
    pub fn query<T: JsonSchema>(mut self) -> Self {
        self.operation.query = Some(T::json_schema);
        self
    }

    /// The body, as JSON.
    #[must_use]
    pub fn body<T: JsonSchema>(mut self) -> Self {
        self.operation.body = Some(Content::json::<T>());
        self
    }

    /// The body, as bytes of a type.
    #[must_use]
    pub fn body_of(mut self, media: &'static str) -> Self {
        self.operation.body = Some(Content {
            media,
            schema: None,
        });
        self
    }

    /// An answer in JSON.
    #[must_use]
    pub fn answers<T: JsonSchema>(self, status: StatusCode, description: &'static str) -> Self {
        self.answer(status, description, Some(Content::json::<T>()))
    }

    /// An answer of another type.
    #[must_use]
    pub fn answers_with(
        self,
        status: StatusCode,
        media: &'static str,
        description: &'static str,
    ) -> Self {
        self.answer(
            status,
            description,
            Some(Content {
                media,
                schema: None,
            }),
        )
    }

    /// An answer without a body.
    #[must_use]
    pub fn answers_nothing(self, status: StatusCode, description: &'static str) -> Self {
        self.answer(status, description, None)
    }

    /// A header of the answer that was named last.
    #[must_use]
    pub fn with_header(mut self, name: &'static str, description: &'static str) -> Self {
        if let Some(answer) = self.operation.answers.last_mut() {
            answer.headers.push((name, description));
        }
        self
    }

    /// An error, and when it is the answer. Those that every route of its kind has are not named.
    #[must_use]
    pub fn refuses(self, status: StatusCode, when: &'static str) -> Self {
        self.answer(status, when, Some(Content::problem()))
    }

    fn answer(
        mut self,
        status: StatusCode,
        description: &'static str,
        content: Option<Content>,
    ) -> Self {
        self.operation.answers.push(Answer {
            status,
            description,
            content,
            headers: Vec::new(),
        });
        self
    }
}

impl<S> fmt::Debug for Route<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.operation.method, self.operation.path)
    }
}

// === impl Parameter, Content ===

impl Parameter {
    fn new<T: JsonSchema>(name: &'static str, description: &'static str) -> Self {
        Self {
            name,
            description,
            schema: SchemaGenerator::subschema_for::<T>,
        }
    }
}

impl Content {
    fn json<T: JsonSchema>() -> Self {
        Self {
            media: "application/json",
            schema: Some(SchemaGenerator::subschema_for::<T>),
        }
    }

    pub(super) fn problem() -> Self {
        Self {
            media: super::error::MEDIA,
            schema: Some(SchemaGenerator::subschema_for::<super::Problem>),
        }
    }
}
