//! How a source is looked around in.

use anyhow::{Context as _, bail};
use globset::{Glob, GlobSet, GlobSetBuilder};
use serde::{Deserialize, Serialize};

use crate::decoders;

/// Patterns of one repository's tags.
const PATTERNS_MAX: usize = 100;

/// How a source is looked around in for what no webhook told of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct CrawlConfig {
    /// Whether it is.
    pub enabled: bool,
    /// Whether the registry's catalog says which repositories there are. Without it, and where the
    /// registry does not list them, only `repositories` are looked at.
    pub catalog: bool,
    /// Repositories to look at, whatever the catalog says.
    pub repositories: Vec<CrawlRepository>,
    /// Requests to the registry per second.
    pub requests_per_second: u32,
    /// Every tag is looked at once in this time, seconds.
    pub check_interval_s: u32,
    /// How long after its start a process begins, seconds: webhooks go first.
    pub start_after_s: u32,
}

/// A repository to look at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CrawlRepository {
    /// Its name, as `team/app`.
    pub name: String,
    /// Which of its tags, as `1.*`; all without.
    #[serde(default)]
    pub tags: Vec<String>,
}

// === impl CrawlConfig ===

impl CrawlConfig {
    pub(super) fn check(&self) -> anyhow::Result<()> {
        if self.requests_per_second == 0 {
            bail!("`requests_per_second` is 0; `enabled: false` stops it");
        }
        if self.check_interval_s == 0 {
            bail!("`check_interval_s` is 0");
        }
        for repository in &self.repositories {
            if decoders::check_names(&repository.name, None).is_err() {
                bail!("`{}` is not the name of a repository", repository.name);
            }
            repository.globs()?;
        }
        Ok(())
    }
}

impl Default for CrawlConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            catalog: true,
            repositories: Vec::new(),
            requests_per_second: 5,
            check_interval_s: 24 * 3600,
            start_after_s: 60,
        }
    }
}

// === impl CrawlRepository ===

impl CrawlRepository {
    /// The patterns of its tags; `None` takes all.
    pub(crate) fn globs(&self) -> anyhow::Result<Option<GlobSet>> {
        if self.tags.is_empty() {
            return Ok(None);
        }
        if self.tags.len() > PATTERNS_MAX {
            bail!(
                "more than {PATTERNS_MAX} patterns for tags of `{}`",
                self.name
            );
        }
        let mut globs = GlobSetBuilder::new();
        for pattern in &self.tags {
            let glob = Glob::new(pattern);
            globs.add(glob.with_context(|| format!("`{pattern}` is not a pattern for tags"))?);
        }
        Ok(Some(globs.build().context("the patterns of tags")?))
    }
}
