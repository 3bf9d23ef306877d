//! The rules for malware: how their engine is started, the bundle that is kept here, and which rules
//! are in force in a process that goes on ([`InForce`]).

mod in_force;

use std::{path::Path, time::SystemTime};

use anyhow::Context as _;
use chassis::Cx;
use jiff::{SignedDuration, Timestamp};
use malware::{Bundle, BundleAt, BundleDir, BundleError, Config, Malware, MalwareError, RuleSet};

pub(crate) use self::in_force::InForce;
use crate::{
    cli::{Server, Token, Trust},
    client::Client,
};

/// Whether a bundle is asked for that is old or not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Asking {
    Yes,
    No,
}

/// The settings of a process that can start the engine.
pub(crate) fn with_engine(mut config: crate::config::Config) -> crate::config::Config {
    if cfg!(feature = "malware") {
        config.scanner.malware.program = Some(malware::Program {
            // The same program even where its file was replaced since it was started.
            path: "/proc/self/exe".into(),
            arguments: vec![crate::cli::MALWARE_ENGINE.into()],
            // Else a GiB counts as written to from the start, and the limit of memory begins there.
            environment: vec![("MIMALLOC_ARENA_EAGER_COMMIT".into(), "0".into())],
        });
    }
    config
}

/// Sees to it that the rules of the bundle are there, where the configuration names one: a new one is
/// fetched when the one that is kept in `dir` was not asked for of late. Where that fails, the old one
/// stays in force, and the answer is what to tell people; without an old one it is an error, for these
/// rules are wanted.
pub(crate) async fn prepare(
    cx: &Cx,
    config: &mut Config,
    dir: &Path,
    asking: Asking,
) -> anyhow::Result<Option<String>> {
    let is_used = config.enabled && config.program.is_some();
    let Some(at) = config.bundle.clone().filter(|_| is_used) else {
        return Ok(None);
    };
    let place = BundleDir::new(dir);
    let (reading, keys) = (place.clone(), at.keys.clone());
    let kept = cx.blocking(move || reading.kept(&keys)).await?;
    let (kept, broken) = match kept {
        Ok(kept) => (kept, None),
        Err(error) => (None, Some(error)),
    };
    let refresh = SignedDuration::from_hours(at.refresh_hours.into());
    let is_recent = |(_, asked): &(Bundle, SystemTime)| {
        let asked = Timestamp::try_from(*asked).unwrap_or_default();
        (SignedDuration::ZERO..refresh).contains(&cx.now().duration_since(asked))
    };
    let is_enough = |kept: &(Bundle, SystemTime)| asking == Asking::No || is_recent(kept);
    if let Some((bundle, _)) = kept.as_ref().filter(|kept| is_enough(kept)) {
        config.fetched.clone_from(&bundle.rules);
        return Ok(None);
    }
    let fetched = match asking {
        Asking::Yes => fetch(cx, config, &at, place).await,
        Asking::No => Err(anyhow::anyhow!("it was asked for a short while ago")),
    };
    match fetched {
        Ok(bundle) => {
            config.fetched = bundle.rules;
            Ok(None)
        }
        Err(error) => {
            let error = error.context(format!("fetching the rules for malware from `{}`", at.url));
            let Some((old, _)) = kept else {
                let kept = broken.map(|broken| format!("those in `{}`: {broken}", dir.display()));
                let none = kept.unwrap_or_else(|| "there are none here yet".to_owned());
                return Err(error.context(none));
            };
            config.fetched = old.rules;
            let made_at = old.made_at;
            Ok(Some(format!(
                "the rules for malware of {made_at} stay in force: {error:#}"
            )))
        }
    }
}

async fn fetch(
    cx: &Cx,
    config: &Config,
    at: &BundleAt,
    place: BundleDir,
) -> anyhow::Result<Bundle> {
    let server = Server {
        url: at.url.clone(),
        token: Token { token_file: None },
        trust: Trust {
            server_ca: None,
            client_certificate: None,
            client_key: None,
        },
    };
    // A token that the environment has is for another server.
    let client = Client::new(&server)?.anonymous();
    let zip = client.bytes("").await?.context("nothing is there")?;
    let (keys, settings) = (at.keys.clone(), config.clone());
    let check = move |rules: &[RuleSet]| {
        let settings = Config {
            fetched: rules.to_vec(),
            ..settings
        };
        check(&settings).map_err(BundleError::from)
    };
    let replacing = move || place.replace(&zip, &keys, check);
    Ok(cx.blocking(replacing).await??)
}

/// Whether an engine takes the rules.
pub(crate) fn check(config: &Config) -> Result<(), MalwareError> {
    Malware::open(config)?.map_or(Ok(()), |malware| malware.check())
}
