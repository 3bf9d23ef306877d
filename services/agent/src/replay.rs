//! Recorded events, through the same batches without a kernel.
//!
//! A recording has one event a line, as `tidewaiter-agent watch` prints them: the event with its
//! container's id.

use std::io::{self, BufRead};

use anyhow::Context as _;
use jiff::Timestamp;
use model::runtime::RuntimeBatch;

pub use crate::batch::Told;
use crate::{batch::Batch, node::Node, sender};

/// Bytes of one line.
const LINE_BYTES_MAX: u64 = 1 << 20;

/// Reads a recording and gives out batches as the sensor would make them, numbered from 1.
pub fn replay(
    mut recording: impl BufRead,
    node: &Node,
    booted_at: Timestamp,
    mut out: impl FnMut(RuntimeBatch) -> io::Result<()>,
) -> anyhow::Result<()> {
    let (mut batch, mut sequence) = (Batch::default(), 0);
    let mut give = |batch: Batch| {
        sequence += 1;
        out(sender::message(batch, node, booted_at, sequence))
    };
    let mut line = String::new();
    for number in 1_u64.. {
        line.clear();
        let mut limited = io::Read::take(&mut recording, LINE_BYTES_MAX);
        let length = limited
            .read_line(&mut line)
            .with_context(|| format!("line {number}"))?;
        if length == 0 {
            break;
        }
        if line.trim().is_empty() {
            continue;
        }
        let told: Told =
            serde_json::from_str(&line).with_context(|| format!("line {number} is no event"))?;
        batch.push(told);
        if batch.is_full() {
            give(batch.take())?;
        }
    }
    if !batch.is_empty() {
        give(batch.take())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node() -> Node {
        Node {
            name: "node-1".parse().unwrap(),
            boot: "0b".to_owned(),
        }
    }

    fn replayed(recording: &str) -> anyhow::Result<Vec<RuntimeBatch>> {
        let mut batches = Vec::new();
        replay(
            recording.as_bytes(),
            &node(),
            Timestamp::UNIX_EPOCH,
            |batch| {
                batches.push(batch);
                Ok(())
            },
        )?;
        Ok(batches)
    }

    #[test]
    fn a_recording_gives_the_batches_that_the_sensor_made() {
        let recording = include_str!("../testdata/recording.jsonl");
        let batches = replayed(recording).unwrap();
        insta::assert_json_snapshot!("recording", batches);
        // What travels is what was recorded.
        for batch in &batches {
            let bytes = bus::encode(batch).unwrap();
            assert_eq!(bus::decode::<RuntimeBatch>(&bytes).unwrap(), *batch);
        }
    }

    #[test]
    fn a_long_recording_is_cut_into_numbered_batches() {
        let line = r#"{"container":"a","at_ns":1,"process":{"pid":1,"started_ns":1},"activity":{"exit":{"code":0,"signal":0}}}"#;
        let recording = vec![line; crate::batch::EVENTS_MAX + 1].join("\n\n");
        let batches = replayed(&recording).unwrap();
        let sizes: Vec<_> = batches
            .iter()
            .map(|b| (b.sequence, b.events.len()))
            .collect();
        assert_eq!(sizes, [(1, crate::batch::EVENTS_MAX), (2, 1)]);
    }

    #[test]
    fn a_line_that_is_no_event_is_named() {
        let error = format!("{:#}", replayed("\n{}\n").unwrap_err());
        assert!(error.starts_with("line 2 is no event"), "{error}");
    }
}
