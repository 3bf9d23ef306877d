//! `images`: what a server knows.

use std::fmt::Write as _;

use jiff::Timestamp;
use model::{Counts, Decision, Digest, Platform, Severity};
use serde::{Deserialize, Serialize};

use crate::{
    cli::{Format, ImagesArgs},
    client::Client,
    commands::{paging, print},
    exit::Exit,
};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Image {
    image: Digest,
    /// The name, where the row stands for one.
    #[serde(default)]
    reference: Option<String>,
    #[serde(default)]
    platform: Platform,
    #[serde(default)]
    decision: Option<Decision>,
    #[serde(default)]
    counts: Counts,
    /// When a source was asked last whether a name still leads to it.
    #[serde(default)]
    checked_at: Option<Timestamp>,
}

pub(crate) async fn run(args: ImagesArgs) -> anyhow::Result<Exit> {
    let client = Client::new(&args.server)?;
    let filters = [
        ("repository", args.repository),
        ("cve", args.cve),
        ("decision", args.decision),
    ];
    let filters = filters.into_iter();
    let filters: Vec<_> = filters
        .filter_map(|(name, value)| Some((name, value?)))
        .collect();
    let images: Vec<Image> = paging::rows(&client, "/v1/images", &filters).await?;
    match args.format {
        Format::Json => print(&format!("{}\n", serde_json::to_string_pretty(&images)?))?,
        Format::Table => print(&table(&images)?)?,
    }
    Ok(Exit::Ok)
}

fn table(images: &[Image]) -> anyhow::Result<String> {
    if images.is_empty() {
        return Ok("no image fits\n".to_owned());
    }
    let mut text = format!(
        "{:<11} {:>4} {:>4} {:>4}  {:<20}  IMAGE\n",
        "VERDICT", "CRIT", "HIGH", "MED", "CHECKED"
    );
    for image in images {
        let decision = image.decision.map_or("pending", Decision::as_str);
        let of = |severity| image.counts.of_severity(severity);
        let (critical, high, medium) = (
            of(Severity::Critical),
            of(Severity::High),
            of(Severity::Medium),
        );
        let checked = image.checked_at.map(|at| format!("{at:.0}"));
        let checked = checked.unwrap_or_else(|| "never".to_owned());
        write!(
            text,
            "{decision:<11} {critical:>4} {high:>4} {medium:>4}  {checked:<20}  "
        )?;
        let name = image
            .reference
            .clone()
            .unwrap_or_else(|| image.image.to_string());
        writeln!(text, "{name} ({})", image.platform)?;
    }
    writeln!(text, "{} images", images.len())?;
    Ok(text)
}
