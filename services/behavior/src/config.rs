//! Configuration of the role `behavior`.

use anyhow::ensure;
use model::Severity;
use serde::{Deserialize, Serialize};

use crate::exceptions::Exception;

/// Longer than the stream of runtime events keeps them.
const SECONDS_MAX: u32 = 24 * 3600;

/// How what containers do is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Detections of a container belong to one incident while no more seconds lie between them;
    /// then it is closed.
    pub incident_window_s: u32,
    /// How long a file that ran waits for its image to be scanned before it is reported as
    /// unverified, seconds.
    pub facts_wait_s: u32,
    /// How much of the stream a new owner of a shard reads again, seconds: what waited for an
    /// image when a process died is found there.
    pub replay_s: u32,
    /// How severe it is to run a file of a volume that the image does not hold; `negligible` says
    /// nothing.
    pub volume_severity: Severity,
    /// Memory for the lists of files of images, for each process.
    pub facts_bytes_max: u64,
    /// What is known and accepted.
    pub exceptions: Vec<Exception>,
}

// === impl Config ===

impl Config {
    /// Says what is wrong with it, before anything is started.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        for (name, seconds) in [
            ("incident_window_s", self.incident_window_s),
            ("facts_wait_s", self.facts_wait_s),
            ("replay_s", self.replay_s),
        ] {
            ensure!(
                (1..=SECONDS_MAX).contains(&seconds),
                "`{name}` is {seconds}: 1 to {SECONDS_MAX} are allowed"
            );
        }
        ensure!(
            self.replay_s >= self.facts_wait_s,
            "`replay_s` is less than `facts_wait_s`: what waits for an image would be lost when its \
             process dies"
        );
        Ok(())
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            incident_window_s: 900,
            facts_wait_s: 300,
            replay_s: 600,
            volume_severity: Severity::Medium,
            facts_bytes_max: 256 * 1024 * 1024,
            exceptions: Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_must_be_found_again() {
        Config::default().check().unwrap();
        let wrong = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            config.check().unwrap_err().to_string()
        };
        assert!(wrong(|config| config.replay_s = 299).contains("`facts_wait_s`"));
        assert!(wrong(|config| config.incident_window_s = 0).contains("`incident_window_s` is 0"));
        assert!(wrong(|config| config.replay_s = 86_401).contains("`replay_s` is 86401"));
    }
}
