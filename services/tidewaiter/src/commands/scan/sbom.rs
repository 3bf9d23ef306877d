//! A bill of materials as a target: its packages are compared with advisories as those of an image are.

use std::path::Path;

use analyzers::SBOM_BYTES_MAX;
use anyhow::Context as _;
use chassis::files::read_bounded;
use model::{Decision, ImageReport};

use super::{Scanner, output::Document};

impl Scanner<'_> {
    pub(super) async fn sbom(
        &self,
        target: &str,
        file: &Path,
    ) -> anyhow::Result<(Document, Decision)> {
        let read = self.document(target, file).await?;
        let report = self.judged(read, &[]).await?;
        let decision = report.verdict.decision;
        Ok((Document::One(Box::new(report)), decision))
    }

    /// What the document tells of.
    pub(super) async fn document(&self, target: &str, file: &Path) -> anyhow::Result<ImageReport> {
        let step = self.progress.step(format!("reading {target}"));
        let (path, reference) = (file.to_owned(), target.to_owned());
        let read = self.cx.blocking(move || -> anyhow::Result<_> {
            let bytes = read_bounded(&path, SBOM_BYTES_MAX)?;
            Ok(analyzers::read_sbom(&bytes, &reference)?)
        });
        let read = read.await.context("reading the document")??;
        drop(step);
        Ok(read)
    }
}
