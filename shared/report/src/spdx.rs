//! SPDX 2.3 as JSON: what is in the image, and what needs what.
//!
//! The document describes the image, which contains its operating system and its packages; of an
//! index it describes the index, which contains the images. A document is a function of the report:
//! its namespace is made of its content. Where gaps hide packages the image is said to contain
//! `NOASSERTION` as well, which is how the standard writes that there may be more.
//!
//! What the format has no words for is in annotations, as `name: value` (module `properties`), so that
//! the document can be read back without loss. It says nothing of vulnerabilities: SPDX 2 can only
//! point to addresses, and other formats say more.

mod document;
mod packages;
#[cfg(test)]
mod tests;

use std::io;

use model::{Digest, Hides, Report, Reports};

use self::{
    document::{CreationInfo, Document, Relationship},
    packages::Writer,
};
use crate::{identifiers::uuid, json};

/// The document's own identifier.
const DOCUMENT: &str = "SPDXRef-DOCUMENT";

pub(crate) fn render(report: &Report, out: &mut dyn io::Write) -> io::Result<()> {
    let mut writer = Writer::new(report, String::new());
    let image = writer.image();
    let mut document = document(report, &image);
    add(&mut writer, report, &image);
    writer.move_to(&mut document);
    write(document, out)
}

pub(crate) fn render_all(reports: &Reports, out: &mut dyn io::Write) -> io::Result<()> {
    let Some(first) = reports.reports.first() else {
        return write(Document::empty(), out);
    };
    let mut writer = Writer::new(first, String::new());
    let index = writer.index(reports);
    let mut document = document(first, &index);
    writer.move_to(&mut document);
    for report in &reports.reports {
        let mut writer = Writer::new(report, report.target.platform.to_string());
        let image = writer.image();
        writer.relate(&index, "CONTAINS", &image);
        add(&mut writer, report, &image);
        writer.move_to(&mut document);
    }
    write(document, out)
}

fn add(writer: &mut Writer<'_>, report: &Report, image: &str) {
    writer.contents(image);
    let hides_some = |hides| matches!(hides, Hides::Packages | Hides::Entries);
    if report.gaps.iter().any(|gap| hides_some(gap.hides)) {
        writer.relate(image, "CONTAINS", "NOASSERTION");
    }
}

fn document<'a>(report: &'a Report, about: &str) -> Document<'a> {
    let mut document = Document::empty();
    document.name = &report.target.reference;
    document.creation_info = CreationInfo {
        created: document::second(report.created_at),
        creators: vec![document::creator(&report.tool)],
        ..document.creation_info
    };
    document.relationships.push(Relationship {
        from: DOCUMENT.to_owned(),
        kind: "DESCRIBES",
        to: about.to_owned(),
    });
    document
}

fn write(mut document: Document<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    document
        .extracted
        .sort_by(|one, other| one.id.cmp(&other.id));
    document.extracted.dedup_by(|one, other| one.id == other.id);
    let content = Digest::of(&serde_json::to_vec(&document)?);
    document.namespace = format!("urn:uuid:{}", uuid(&content));
    json::write(&document, out)
}
