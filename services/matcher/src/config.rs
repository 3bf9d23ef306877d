//! What an operator can set.

use std::path::PathBuf;

use model::VerifyingKey;
use serde::{Deserialize, Serialize};
use vulndb::SeverityBy;

/// Settings of the matcher role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the advisories and the index live; set from the process's data directory.
    #[serde(skip)]
    pub data_dir: PathBuf,
    /// How many images of one partition are assessed at once.
    pub images_at_once: usize,
    /// Whose word decides about the severity of a finding: `vendor`, `cvss` or `highest`.
    pub severity: SeverityBy,
    /// Fetches advisories regularly; without it they come by `db update` and `db import` alone.
    pub update: Option<Update>,
    /// Public keys of those whose exports (`db export`) are taken: what `db key` prints.
    pub trusted_keys: Vec<VerifyingKey>,
    /// How much a feed may be.
    pub limits: FeedLimits,
}

/// Where advisories come from, and how often.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Update {
    /// Below it lie `<ecosystem>/all.zip` and `<ecosystem>/modified_id.csv`, as in OSV.dev's exports.
    pub url: String,
    /// Where the same lies, asked in this order where `url` fails.
    pub mirrors: Vec<String>,
    /// The ecosystems, as OSV.dev names them; without any those of the packages that images hold.
    pub ecosystems: Vec<String>,
    /// CISA's catalog of known exploited vulnerabilities; `null`: not fetched.
    pub kev_url: Option<String>,
    /// FIRST's exploit prediction; `null`: not fetched.
    pub epss_url: Option<String>,
    /// Debian's own tracker, which says beside OSV's records of it what gets no fix: 70 MB; `null`:
    /// not fetched.
    pub debian_tracker_url: Option<String>,
    /// Red Hat's VEX documents, which say beside OSV's records what has no fix yet and what gets none:
    /// 200 MB once. Its newer `…/vex-feed` has the same layout. Fetched where images hold its packages;
    /// `null`: not fetched.
    pub red_hat_vex_url: Option<String>,
    /// SUSE's and openSUSE's, all in one archive; likewise.
    pub suse_vex_url: Option<String>,
    /// Amazon Linux's repositories, with their lists of updates: OSV.dev has none. Likewise.
    pub amazon_url: Option<String>,
    /// Oracle Linux's errata: OSV.dev has none. Likewise.
    pub oracle_oval_url: Option<String>,
    /// Seconds from one fetch of a feed to the next.
    pub interval_s: u64,
}

/// How much one feed may be. What is over it is refused whole: half a feed would look like a
/// whole one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FeedLimits {
    /// Bytes of a zip.
    pub archive_bytes_max: u64,
    /// Bytes of all records together.
    pub total_bytes_max: u64,
    /// How many records.
    pub records_max: usize,
    /// How deep directories may be nested.
    pub depth_max: usize,
    /// Up to so many changed records are fetched one by one; of more the whole feed is.
    pub increment_records_max: usize,
    /// Seconds that fetching a file may take.
    pub fetch_timeout_s: u64,
}

// === impl Config ===

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: PathBuf::new(),
            images_at_once: 4,
            severity: SeverityBy::default(),
            update: None,
            trusted_keys: Vec::new(),
            limits: FeedLimits::default(),
        }
    }
}

impl Default for Update {
    fn default() -> Self {
        Self {
            url: "https://osv-vulnerabilities.storage.googleapis.com".to_owned(),
            mirrors: Vec::new(),
            ecosystems: Vec::new(),
            kev_url: Some(
                "https://www.cisa.gov/sites/default/files/feeds/known_exploited_vulnerabilities.json"
                    .to_owned(),
            ),
            epss_url: Some(
                "https://epss.empiricalsecurity.com/epss_scores-current.csv.gz".to_owned(),
            ),
            debian_tracker_url: None,
            red_hat_vex_url: Some(
                "https://security.access.redhat.com/data/csaf/v2/vex".to_owned(),
            ),
            suse_vex_url: Some(
                "https://ftp.suse.com/pub/projects/security/csaf-vex.tar.bz2".to_owned(),
            ),
            amazon_url: Some("https://cdn.amazonlinux.com".to_owned()),
            oracle_oval_url: Some(
                "https://linux.oracle.com/security/oval/com.oracle.elsa-all.xml.bz2".to_owned(),
            ),
            interval_s: 6 * 60 * 60,
        }
    }
}

impl Default for FeedLimits {
    fn default() -> Self {
        Self {
            // What an object may have.
            archive_bytes_max: 256 << 20,
            total_bytes_max: 8 << 30,
            records_max: 1_000_000,
            depth_max: 8,
            increment_records_max: 500,
            fetch_timeout_s: 15 * 60,
        }
    }
}
