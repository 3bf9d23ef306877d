//! `CycloneDX` 1.6: what is in the image, what needs what, and what is wrong with it.
//!
//! The image is the document's component, its packages are the components. Of a package the
//! document says where it was found (`evidence`: the file, and the layer that brought it in), and of
//! a vulnerability what was decided (`analysis`: from VEX documents and waivers). The whole index of
//! platforms is one document, in which each platform's image is a component that holds its packages.
//!
//! The document is a function of the report: its serial number is made of its content, so that the
//! same report written twice is the same document. Where gaps hide packages, `compositions` calls
//! the list incomplete; it never calls it complete, for nobody can know that.
//!
//! Names of properties begin with `tidewaiter:`.

mod components;
mod dependencies;
mod document;
mod licenses;
mod vulnerabilities;

use std::io;

use model::{Digest, Hides, Report, Reports};

use self::{
    components::Refs,
    document::{Bom, Component, Composition, Lifecycle, Metadata, Tools},
};
use crate::{Options, json};

pub(crate) fn render(
    report: &Report,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let refs = Refs::default();
    let mut bom = Bom::new(metadata(report, components::image(report, &refs)));
    bom.components = components::packages(report, &refs);
    add(&mut bom, report, &refs, options);
    write(bom, out)
}

pub(crate) fn render_all(
    reports: &Reports,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let Some(first) = reports.reports.first() else {
        return write(Bom::empty(), out);
    };
    let index = components::index(reports, first);
    let mut bom = Bom::new(metadata(first, index));
    let mut platforms = Vec::new();
    for report in &reports.reports {
        let refs = Refs::of_platform(&report.target.platform.to_string());
        let image = Component {
            components: components::packages(report, &refs),
            ..components::image(report, &refs)
        };
        platforms.push(image.bom_ref.clone());
        bom.components.push(image);
        add(&mut bom, report, &refs, options);
    }
    bom.dependencies
        .insert(0, dependencies::of_index(platforms));
    write(bom, out)
}

/// What the report says beside its packages.
fn add<'a>(bom: &mut Bom<'a>, report: &'a Report, refs: &Refs, options: &Options) {
    bom.dependencies.extend(dependencies::of(report, refs));
    bom.vulnerabilities
        .extend(vulnerabilities::of(report, refs, options));
    let hides_some = |hides| matches!(hides, Hides::Packages | Hides::Entries);
    if report.gaps.iter().any(|gap| hides_some(gap.hides)) {
        bom.compositions.push(Composition {
            aggregate: "incomplete",
            assemblies: vec![refs.image()],
        });
    }
}

fn metadata<'a>(report: &'a Report, component: Component<'a>) -> Metadata<'a> {
    Metadata {
        timestamp: report.created_at.to_string(),
        lifecycles: [Lifecycle {
            phase: "post-build",
        }],
        tools: Tools {
            components: [components::tool(&report.tool)],
        },
        component,
    }
}

fn write(mut bom: Bom<'_>, out: &mut dyn io::Write) -> io::Result<()> {
    let content = Digest::of(&serde_json::to_vec(&bom)?);
    bom.serial_number = Some(serial_number(&content));
    json::write(&bom, out)
}

/// A UUID of version 8 (RFC 9562), which is for those who make it of content in their own way.
fn serial_number(content: &Digest) -> String {
    let mut bytes = [0; 16];
    let from = content.as_bytes().iter();
    bytes
        .iter_mut()
        .zip(from)
        .for_each(|(to, from)| *to = *from);
    bytes[6] = bytes[6] & 0x0f | 0x80;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex = model::hex(&bytes);
    let parts = [0..8, 8..12, 12..16, 16..20, 20..32].map(|digits| &hex[digits]);
    format!("urn:uuid:{}", parts.join("-"))
}

#[cfg(test)]
mod tests;
