//! Secrets in files: what should never have been put into an image.
//!
//! ```text
//! path, size, first KB ──► candidates ──► one pass for all keywords ──► a rule's expression around a hit
//!                                             │
//!   masked excerpt, keyed fingerprint, place ◄── entropy, placeholders, checksum, structure
//! ```
//!
//! A rule is data (`rule`), and the built-in ones are written in the words that users write theirs in.
//! What a rule finds is looked at as far as that is possible offline (`check`): keys are parsed, tokens
//! that carry a checksum must have the right one, web tokens are decoded, placeholders and variables
//! are none. So what only looks like a secret stays out of the report.
//!
//! The secret itself never leaves this module: a finding has an excerpt in which it is masked, and a
//! fingerprint under the installation's key ([`FingerprintKey`]), which is the same for the same
//! secret wherever it lies, and tells nothing to who does not have the key. The key's id is part of
//! the section's key.
//!
//! Keystores of Java and PKCS #12 are no texts: whether one holds private keys is read from its structure
//! (`keystore`).
//!
//! Files of a later layer do not hide those of a lower one: what is deleted is still in the image.
//! Files that are as their operating system package made them hold nobody's secret; `coalesce` knows
//! them by their digest.

mod candidates;
mod check;
mod config;
mod engine;
mod image;
mod key;
mod keystore;
mod owned;
mod rule;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tests;
mod text;

use std::sync::{Arc, OnceLock};

use archive::{Entry, Limits};
use model::{AnalyzerId, FoundFinding, FoundSecret, Gap, GapCode, Hides};

use crate::{Analyzer, Archives, Config, File, Found, Malformed, Wanted, own_id};

pub use self::image::holds_secret;
pub(crate) use self::image::{ConfigSecrets, look_into_config, look_into_text};
use self::{
    candidates::{ARCHIVE_BYTES_MAX, Kind, TEXT_BYTES_MAX},
    engine::{Engine, HITS_MAX},
};
pub use self::{
    check::Check as SecretCheck,
    config::{FingerprintKey, FingerprintKeyError, SecretsConfig},
    engine::built_in_rules,
    rule::{Assigned, Example, SecretRule, SecretRuleError, Token},
};

/// The analyzer's name.
pub(crate) const NAME: &str = "secrets";

/// Looks for secrets in texts.
pub(crate) struct Secrets {
    id: AnalyzerId,
    config: SecretsConfig,
    /// Made when the first file is looked into: no layer may need to be read.
    engine: OnceLock<Arc<Engine>>,
    limits: Limits,
}

/// Makes the rules ready that an image's layers and its config are looked into with, which takes some
/// milliseconds: for who has something else to wait for meanwhile.
pub fn prepare_secrets(config: &SecretsConfig) {
    Engine::new(config).prepare();
}

// === impl Secrets ===

impl Secrets {
    pub(crate) fn boxed(config: &Config, limits: &Limits) -> Box<dyn Analyzer> {
        let depends_on = (
            &config.skip,
            engine::built_in_digest(),
            config.secrets.digest_parts(),
        );
        Box::new(Self {
            id: own_id(NAME, 1, &depends_on, limits),
            config: config.secrets.clone(),
            engine: OnceLock::new(),
            limits: limits.clone(),
        })
    }

    /// The findings of one text of a file.
    fn text(&self, path: &str, text: &[u8], out: &mut Vec<FoundSecret>, found: &mut Found) {
        let engine = self.engine.get_or_init(|| Engine::new(&self.config));
        let (findings, is_cut) = engine.findings(path, text);
        out.extend(findings);
        if is_cut {
            let detail = format!("the file has more than {HITS_MAX} secrets");
            found.add_gap(Gap::new(GapCode::LimitResults, Hides::Secrets, detail).at(path));
        }
    }

    fn file(&self, file: &File, found: &mut Found) -> Result<(), Malformed> {
        let entry = Entry::from(&*file.entry);
        let most = TEXT_BYTES_MAX.max(ARCHIVE_BYTES_MAX);
        if entry.size > most {
            return Err(Malformed::TooLarge(entry.size, most));
        }
        let bytes = file.bytes(most)?;
        let head = bytes.get(..1024).unwrap_or(&bytes);
        let mut secrets = Vec::new();
        match candidates::kind(&entry, head) {
            None => return Ok(()),
            Some(Kind::Text) if entry.size > TEXT_BYTES_MAX => {
                return Err(Malformed::TooLarge(entry.size, TEXT_BYTES_MAX));
            }
            Some(Kind::Text) => {
                let text = text::decode(std::borrow::Cow::Borrowed(&bytes));
                self.text(entry.path, &text, &mut secrets, found);
            }
            Some(Kind::Archive) => {
                let mut texts = |path: &str, bytes: &[u8], found: &mut Found| {
                    let head = bytes.get(..1024).unwrap_or(bytes);
                    if !candidates::looks_like_text(head) && !candidates::is_keystore(path, head) {
                        return;
                    }
                    let text = text::decode(std::borrow::Cow::Borrowed(bytes));
                    self.text(path, &text, &mut secrets, found);
                };
                let (limits, wanted) = (&self.limits, candidates::is_wanted_member);
                Archives::new(limits, Hides::Secrets, TEXT_BYTES_MAX, wanted)
                    .read(entry.path, &bytes, &mut texts, found)?;
            }
        }
        if !secrets.is_empty() {
            let digests = owned::digests(&bytes);
            for mut secret in secrets {
                secret.file_digests.clone_from(&digests);
                found.add_finding(FoundFinding::Secret(secret));
            }
        }
        Ok(())
    }
}

impl Analyzer for Secrets {
    fn id(&self) -> &AnalyzerId {
        &self.id
    }

    fn hides(&self) -> Hides {
        Hides::Secrets
    }

    fn wants(&self, entry: &Entry<'_>, head: &[u8]) -> Wanted {
        let most = match candidates::kind(entry, head) {
            None => return Wanted::No,
            Some(Kind::Text) => TEXT_BYTES_MAX,
            Some(Kind::Archive) => ARCHIVE_BYTES_MAX,
        };
        // Of what is too large only the entry is needed, to say so.
        if entry.size > most {
            Wanted::Entry
        } else {
            Wanted::Alone
        }
    }

    fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
        files.iter().try_for_each(|file| self.file(file, found))
    }
}
