//! What agents send: a batch in JSON, which is encoded as agents do it, with bytes changed by what
//! stands behind its line; or the bytes as they are.

#![no_main]

use std::cell::RefCell;

use behavior::Trial;
use libfuzzer_sys::fuzz_target;
use model::runtime::{NodeReported, RuntimeBatch};
use serde_json::Value;

thread_local! {
    static TRIAL: RefCell<(Trial, u32)> = RefCell::default();
}

fuzz_target!(|bytes: &[u8]| {
    let end = bytes.iter().position(|byte| *byte == b'\n');
    let (line, edits) = bytes.split_at(end.unwrap_or(bytes.len()));
    let line: Option<Value> = serde_json::from_slice(line).ok();
    let part = |name: &str| line.as_ref().and_then(|line| line.get(name)).cloned();
    let report: Option<NodeReported> =
        part("report").and_then(|one| serde_json::from_value(one).ok());
    let batch: Option<RuntimeBatch> =
        part("batch").and_then(|one| serde_json::from_value(one).ok());
    TRIAL.with_borrow_mut(|(trial, taken)| {
        // What is remembered is bounded, and takes its time to fill: an input has to show alone what
        // it does.
        *taken += 1;
        if *taken % 64 == 0 {
            *trial = Trial::default();
        }
        if let Some(report) = report {
            let encoded = bus::encode(&report).expect("a report is encoded").to_vec();
            let _same: NodeReported =
                bus::decode(&changed(encoded, edits)).unwrap_or(report.clone());
            trial.report(&report);
        }
        match batch {
            Some(batch) => {
                let encoded = bus::encode(&batch).expect("a batch is encoded").to_vec();
                trial.batch(&encoded).expect("what agents send is read");
                let _tried = trial.batch(&changed(encoded, edits));
            }
            None => {
                let _tried = trial.batch(bytes);
                let _report = bus::decode::<NodeReported>(bytes);
            }
        }
    });
});

/// The bytes with some of them changed: two bytes say which, one what it becomes.
fn changed(mut bytes: Vec<u8>, edits: &[u8]) -> Vec<u8> {
    for edit in edits.chunks_exact(3) {
        let at = usize::from(edit[0]) << 8 | usize::from(edit[1]);
        let length = bytes.len().max(1);
        if let Some(byte) = bytes.get_mut(at % length) {
            *byte = edit[2];
        }
    }
    bytes
}
