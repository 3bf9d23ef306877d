//! One report, many formats: a table for people, JSON for programs, SARIF for code scanning services,
//! `CycloneDX` and SPDX for bills of materials.
//!
//! The decision that shapes it: a format is a function from the finished [`model::Report`] to
//! bytes. It computes nothing that another format would not know, and decides nothing: filters
//! change what is shown and never the verdict. The price is that every format walks the whole
//! report anew.
//!
//! Everything in a report may come from a hostile image. What could steer a terminal is made
//! visible instead of being sent ([`clean`]), in every format.
//!
//! To add a format: a file beside `table.rs`, a variant of [`Format`] with its line in
//! [`Format::ALL`], a snapshot test; a format that others define is checked against their schema in
//! `testdata/schemas`.

mod clean;
mod cyclonedx;
mod format;
mod grid;
mod identifiers;
mod json;
mod licenses;
mod properties;
mod sarif;
mod spdx;
mod suppressed;
mod table;
#[cfg(test)]
mod tests;

pub use self::{
    clean::clean,
    format::{Format, FormatError, Options, render, render_all},
    grid::{Cell, Column, Cut, Grid},
    table::summary,
};
