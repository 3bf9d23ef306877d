//! JSON Schemas of what is written as text: marks for `#[schemars(with = "…")]`.
//!
//! Types of this crate derive [`schemars::JsonSchema`], so a field that is added is in every
//! document that shows the type. Times belong to a crate that knows no schemas, so fields name what
//! they look like.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

/// A moment: RFC 3339, in UTC.
#[derive(Clone, Copy, Debug)]
pub struct Time;

/// A day of the calendar: RFC 3339, `full-date`.
#[derive(Clone, Copy, Debug)]
pub struct Day;

impl JsonSchema for Time {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl JsonSchema for Day {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Day".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date" })
    }
}
