//! A batch as its bytes hold it: the same fields as [`model::runtime::RuntimeBatch`], with texts
//! that are not copied. Most events are looked at once and forgotten, and copying their texts would
//! cost more than looking at them.

use jiff::Timestamp;
use model::{
    Digest,
    runtime::{Drop, Listen, NetworkFlow, Origin, ProcessKey, RareCall, Stdio},
};
use serde::{Deserialize, de::IgnoredAny};

/// The largest message of the stream.
pub(crate) const BATCH_BYTES_MAX: usize = 1024 * 1024;
/// Deeper nesting is no batch.
const DEPTH_MAX: usize = 16;

/// [`model::runtime::RuntimeBatch`].
#[derive(Debug, Deserialize)]
pub(crate) struct Batch<'a> {
    pub(crate) node: &'a str,
    pub(crate) boot: &'a str,
    pub(crate) booted_at: Timestamp,
    #[serde(borrow)]
    pub(crate) containers: Vec<&'a str>,
    #[serde(borrow)]
    pub(crate) events: Vec<Event<'a>>,
    #[serde(default)]
    pub(crate) drops: Vec<Drop>,
}

/// [`model::runtime::RuntimeEvent`].
#[derive(Debug, Deserialize)]
pub(crate) struct Event<'a> {
    pub(crate) at_ns: u64,
    pub(crate) container: u16,
    pub(crate) process: ProcessKey,
    #[serde(borrow)]
    pub(crate) activity: Activity<'a>,
}

/// [`model::runtime::Activity`].
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Activity<'a> {
    #[serde(borrow)]
    Exec(Box<Exec<'a>>),
    Fork {
        child: ProcessKey,
    },
    Exit {},
    Connect(NetworkFlow),
    /// What is bound and not listened on takes datagrams: nobody looks at it.
    Bind(IgnoredAny),
    Listen(Listen),
    #[serde(borrow)]
    Open(FileOpen<'a>),
    #[serde(borrow)]
    Syscall(Call<'a>),
}

/// [`model::runtime::Exec`].
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Exec<'a> {
    pub(crate) parent: ProcessKey,
    #[serde(borrow)]
    pub(crate) file: File<'a>,
    #[serde(borrow)]
    pub(crate) script: Option<File<'a>>,
    #[serde(borrow)]
    pub(crate) args: Vec<&'a str>,
    pub(crate) uid: u32,
    pub(crate) terminal: bool,
    pub(crate) stdin: Stdio,
    pub(crate) stdout: Stdio,
    pub(crate) injected: bool,
}

/// [`model::runtime::ExecutedFile`].
#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct File<'a> {
    pub(crate) path: &'a str,
    pub(crate) origin: Origin,
    pub(crate) digest: Option<Digest>,
    pub(crate) mount: Option<&'a str>,
}

/// [`model::runtime::FileOpen`].
#[derive(Debug, Deserialize)]
pub(crate) struct FileOpen<'a> {
    pub(crate) path: &'a str,
    #[serde(default)]
    pub(crate) write: bool,
}

/// [`model::runtime::SyscallMade`].
#[derive(Debug, Deserialize)]
pub(crate) struct Call<'a> {
    pub(crate) call: RareCall,
    #[serde(default)]
    pub(crate) args: Vec<u64>,
    #[serde(default)]
    pub(crate) text: Option<&'a str>,
}

// === impl Batch ===

impl<'a> Batch<'a> {
    /// Reads a batch; nesting is bounded, and the caller bounds the bytes.
    pub(crate) fn read(bytes: &'a [u8]) -> anyhow::Result<Self> {
        anyhow::ensure!(
            bytes.len() <= BATCH_BYTES_MAX,
            "a batch of {} bytes, at most {BATCH_BYTES_MAX} are allowed",
            bytes.len()
        );
        let mut deserializer = rmp_serde::Deserializer::from_read_ref(bytes);
        deserializer.set_max_depth(DEPTH_MAX);
        Ok(Self::deserialize(&mut deserializer)?)
    }
}

#[cfg(test)]
mod tests {
    use model::runtime::RuntimeBatch;

    use super::*;

    #[test]
    fn every_activity_that_agents_write_is_read_here() {
        for file in ["v1.json", "v1-least.json"] {
            let golden = concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../shared/model/testdata/events/io.tidewaiter.runtime.batch/"
            );
            let path = std::path::Path::new(golden).join(file);
            let text = chassis::files::read_text_bounded(&path, 1 << 20).unwrap();
            let whole: RuntimeBatch = serde_json::from_str(&text).unwrap();
            let bytes = bus::encode(&whole).unwrap();
            let read = Batch::read(&bytes).unwrap();
            assert_eq!(read.events.len(), whole.events.len());
            assert_eq!(read.containers, whole.containers);
            assert_eq!(
                (read.node, read.boot, read.booted_at),
                (whole.node.as_str(), &*whole.boot, whole.booted_at)
            );
            assert_eq!(read.drops, whole.drops);
            for (event, whole) in read.events.iter().zip(&whole.events) {
                assert_eq!(event.at_ns, whole.at_ns);
                assert_eq!(event.process, whole.process);
                let (short, long) = (
                    format!("{:?}", event.activity),
                    format!("{:?}", whole.activity),
                );
                let kind = |text: &str| text.split([' ', '(']).next().map(str::to_owned);
                assert_eq!(kind(&short), kind(&long));
            }
        }
    }

    #[test]
    fn a_batch_that_is_too_large_or_too_deep_is_an_error() {
        let large = vec![0xc0; BATCH_BYTES_MAX + 1];
        let error = Batch::read(&large).unwrap_err().to_string();
        assert!(error.contains("at most 1048576"), "{error}");
        let deep: Vec<u8> = std::iter::repeat_n(0x91, 10_000).chain([0xc0]).collect();
        assert!(Batch::read(&deep).is_err());
    }
}
