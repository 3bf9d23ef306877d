//! policy: facts in, verdicts out.
//!
//! A policy is a YAML document. For each image that it is for, it says `allow`, `warn`,
//! `incomplete` or `deny`, and why: each reason names the rule, the evidence and what to do.
//! Whenever an image was assessed, its names changed, a policy was edited, a waiver ended or newer
//! advisory data came, the verdict is judged again from what is stored; nobody is asked to look at
//! the image once more.
//!
//! The decision that shapes it: [`judge()`] is a function of a policy, the facts, the image's
//! names, the time and the age of the data, and of nothing else. So the command line, the service
//! and the tests in a policy document use the same code, and the order of rules cannot matter,
//! since the gravest reason decides. It costs expressiveness: rules are a closed set of conditions
//! and no language, and what a rule wants to ask must be a fact first.
//!
//! What it does not do: it reads no image and no advisory, it raises no alert, and it never says
//! how long a verdict holds: that depends on when somebody asks (`model::valid_until`).
//!
//! | module | holds |
//! |---|---|
//! | `document`, `condition`, `checks`, `waivers`, `values` | what a policy may say |
//! | `defaults`, `evidence`, `judge` | what follows from it |
//! | `cases` | tests inside of documents |
//! | `set`, `library`, `api` | which policies are in force |
//! | `rulings`, `ruling` | which verdicts to write, what to tell |
//! | `handler`, `owner`, `calendar` | when: a message, an edit, a day |
//! | `response` | what nodes shall do about incidents |
//!
//! To add a rule that everybody gets: `rules/default.yaml`, with a case beside it. To add a
//! condition: a variant of [`Condition`], its arm in `Condition::evidence`, its row in the table of
//! that module, and a rule in `rules/` with a case that makes each of its fields fire, which a test asks
//! for. To add a service: copy this one.

mod api;
mod calendar;
mod cases;
mod checks;
mod condition;
mod config;
mod defaults;
mod document;
mod documents;
mod evidence;
mod handler;
mod judge;
mod library;
mod metrics;
mod owner;
mod response;
mod ruling;
mod rulings;
mod set;
#[cfg(test)]
mod testing;
mod values;
mod waivers;

use std::sync::Arc;

use axum::Router;
use bus::Bus;
use chassis::{Cx, http::Operation};
use futures::FutureExt as _;

use self::{
    api::Api,
    calendar::Calendar,
    owner::Owner,
    rulings::{Judges, Objects},
};

pub use self::{
    cases::{
        Case, CaseResult, Given, GivenFinding, GivenGap, GivenLicense, GivenVulnerability,
        run_tests, untested,
    },
    checks::OwnCheck,
    condition::{
        Condition, FindingFilter, GapFilter, ImageFilter, LicenseFilter, PackageFilter, Trait,
        VulnerabilityFilter,
    },
    config::Config,
    document::{BUILTIN, DEFAULT, DOCUMENT_BYTES_MAX, Defaults, Policy, PolicyError, Rule},
    documents::PutPolicyError,
    judge::{Judgement, judge},
    library::{delete_policy, put_policy},
    response::{
        BUILTIN_RESPONSES, Limit, Limits, Protected, Replayed, ReplayedResponse, ResponseMode,
        ResponsePolicy, ResponseRule, Then, When,
    },
    set::{PolicySet, Selected},
    values::{
        Age, AgeLimit, KnownCategory, KnownGap, KnownType, LastDay, Level, NameGlobs,
        RepositoryGlobs, Share, Text,
    },
    waivers::Waiver,
};

/// What is to be said of the routes.
pub fn operations() -> Vec<Operation> {
    let mut operations = api::operations();
    operations.extend(response::operations());
    operations
}

/// Starts the role, and gives its routes. It works until `cx` stops.
pub async fn run(cx: &Cx, bus: &Bus, config: &Config) -> anyhow::Result<Router> {
    let store = bus.store();
    library::put_files(cx, &store, &config.files).await?;
    let policies = library::follow(cx, bus).await?;
    let api = Api {
        store: store.clone(),
        policies: policies.clone(),
        clock: cx.clock(),
    };
    bus.forget_records(cx, bus::RecordKind::Judged);
    let (in_force, census) = response::start(cx, bus, config).await?;
    let responses = response::Api {
        store: store.clone(),
        policies: in_force,
        census,
        cx: cx.clone(),
    };
    let (bus, concurrency) = (bus.clone(), config.concurrency.max(1));
    let partitions = bus.clone();
    let objects = Objects::new(&store);
    partitions.own_partitions(cx, "policy", move |partition, cx| {
        let (store, policies, objects) = (store.clone(), policies.clone(), objects.clone());
        let owner = Owner {
            bus: bus.clone(),
            judges: Judges {
                cx: cx.clone(),
                store,
                objects,
                policies,
            },
            partition,
            concurrency,
            calendar: Arc::new(Calendar::default()),
        };
        owner.run(cx).boxed()
    });
    Ok(api::router(api).merge(response::router(responses)))
}
