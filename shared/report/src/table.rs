//! The table for people: what was scanned, what is wrong, what could not be seen, what follows.

mod findings;
mod gaps;
mod header;
mod licenses;
mod packages;
mod page;
mod verdict;
mod vulnerabilities;

use std::io;

use model::{Report, Reports, Verdict};

use self::page::Page;
use crate::{Options, clean};

/// The verdict and why, in one line.
pub fn summary(verdict: &Verdict) -> String {
    clean(&verdict::last_line(verdict, None)).into_owned()
}

pub(crate) fn render(
    report: &Report,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut page = Page::new(options, out);
    write(report, &mut page)?;
    verdict::write(&report.verdict, &mut page)
}

pub(crate) fn render_all(
    reports: &Reports,
    options: &Options,
    out: &mut dyn io::Write,
) -> io::Result<()> {
    let mut page = Page::new(options, out);
    for report in &reports.reports {
        write(report, &mut page)?;
        verdict::write(&report.verdict, &mut page)?;
        page.blank()?;
    }
    let count = reports.reports.len();
    page.line(&format!(
        "index {} with {count} platforms",
        reports.index_digest
    ))?;
    verdict::write(&reports.verdict, &mut page)
}

fn write(report: &Report, page: &mut Page<'_>) -> io::Result<()> {
    header::write(report, page)?;
    packages::write(report, page)?;
    vulnerabilities::write(report, page)?;
    findings::secrets(&report.secrets, page)?;
    findings::misconfigurations(&report.misconfigurations, page)?;
    findings::malware(&report.malware, page)?;
    findings::tampered(&report.tampered, page)?;
    findings::removed(&report.removed, page)?;
    licenses::write(&report.licenses, page)?;
    gaps::write(&report.gaps, page)
}
