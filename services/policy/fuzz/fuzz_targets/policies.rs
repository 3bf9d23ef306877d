//! Policy documents, with the tests in them.

#![no_main]

use libfuzzer_sys::fuzz_target;
use policy::{Policy, PolicySet, run_tests};

fuzz_target!(|text: &str| {
    let Ok(policy) = Policy::parse(text) else {
        return;
    };
    let _age = policy.age_max();
    let results = run_tests(text).expect("it was read before");
    assert_eq!(results.len(), policy.tests.len());
    let set = PolicySet::new([policy]);
    assert!(!set.select(["registry.example/team/app", ""]).is_empty());
});
