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
//! Files with malware are components of their own, with the rule that fires on them among the
//! vulnerabilities. Secrets are in no bill of materials, and neither are misconfigurations: it is handed
//! to who uses the image, who must learn what is in it, and not where its owner left a password. They are
//! in the other formats.
//!
//! What the format has no words for is in properties (module `properties`), so that the document can be
//! read back without loss.

mod components;
mod dependencies;
mod document;
mod malware;
mod vulnerabilities;

use std::io;

use model::{Digest, Hides, Report, Reports};

pub(crate) use self::document::{License, LicenseChoice};
use self::{
    components::Refs,
    document::{Bom, Component, Composition, Lifecycle, Metadata, Tools},
    malware::Files,
};
use crate::{Options, identifiers::uuid, json};

pub(crate) fn render(
    report: &Report,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let refs = Refs::default();
    let mut bom = Bom::new(metadata(report, components::image(report, &refs)));
    bom.components = components(report, &refs, options);
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
            components: components(report, &refs, options),
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

/// The operating system, the packages, and the files that have malware.
fn components<'a>(report: &'a Report, refs: &Refs, options: &Options) -> Vec<Component<'a>> {
    let mut all = components::packages(report, refs);
    all.extend(Files::of(report, refs, options).components());
    all
}

/// What the report says beside that.
fn add<'a>(bom: &mut Bom<'a>, report: &'a Report, refs: &Refs, options: &Options) {
    bom.dependencies.extend(dependencies::of(report, refs));
    bom.vulnerabilities
        .extend(vulnerabilities::of(report, refs, options));
    let files = Files::of(report, refs, options);
    bom.vulnerabilities.extend(files.vulnerabilities(refs));
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
    bom.serial_number = Some(format!("urn:uuid:{}", uuid(&content)));
    json::write(&bom, out)
}

#[cfg(test)]
mod tests;
