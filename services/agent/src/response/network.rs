//! Quarantine: a container's cgroup lets pass only what is said with a list of addresses.
//!
//! Programs are attached to the cgroup and pinned. What is asked for a second time is attached
//! first and the older one let go of then, so nothing passes in between.

use std::{
    fs::{self, File},
    net::IpAddr,
    os::fd::AsRawFd as _,
    path::Path,
};

use anyhow::{Context as _, ensure};
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder};

use super::pins::Pins;

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/quarantine.bpf.o"));

const KIND: &str = "cut";
const PROGRAMS: [&str; 6] = [
    "on_received",
    "on_sent",
    "on_connect4",
    "on_connect6",
    "on_sendmsg4",
    "on_sendmsg6",
];
const CUT: &str = "cut";
/// What is attached and not yet in force under its name.
const NEW: &str = "-new";
/// `PORTS_MAX` of `bpf/quarantine.bpf.c`.
pub(crate) const PORTS_MAX: usize = 8;
/// Entries of its `allowed`.
pub(crate) const RANGES_MAX: usize = 1_024;
const V4_BITS: u32 = 96;

/// Addresses that a container in quarantine may still speak with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    /// The first address.
    pub(crate) address: IpAddr,
    /// How many of its bits count.
    pub(crate) bits: u8,
    /// Ports of the other side; none: all of them.
    pub(crate) ports: Vec<u16>,
}

/// Cuts a container off, but for a list.
pub(crate) fn cut(
    pins: &Pins,
    container: &str,
    cgroup: &Path,
    allowed: &[Range],
) -> anyhow::Result<()> {
    ensure!(
        allowed.len() <= RANGES_MAX,
        "more than {RANGES_MAX} ranges of addresses"
    );
    let dir = pins.make(KIND, container)?;
    let group = File::open(cgroup).with_context(|| format!("opening `{}`", cgroup.display()))?;
    let mut object = load(allowed)?;
    // Left by one who was stopped here before.
    for name in PROGRAMS.iter().chain([&CUT]) {
        drop(fs::remove_file(dir.join(format!("{name}{NEW}"))));
    }
    for program in object.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        let attached = program.attach_cgroup(group.as_raw_fd());
        let mut link = attached.with_context(|| format!("attaching `{name}`"))?;
        let pinned = link.pin(dir.join(format!("{name}{NEW}")));
        pinned.with_context(|| format!("pinning `{name}`"))?;
        // The file system keeps it, and nothing else may: `disconnect` would leave it open here.
    }
    for mut map in object.maps_mut() {
        if map.name() == CUT {
            map.pin(dir.join(format!("{CUT}{NEW}")))?;
        }
    }
    for name in PROGRAMS.iter().chain([&CUT]) {
        // bpffs replaces nothing.
        drop(fs::remove_file(dir.join(name)));
        fs::rename(dir.join(format!("{name}{NEW}")), dir.join(name))
            .with_context(|| format!("keeping `{name}`"))?;
    }
    Ok(())
}

/// Whether this kernel takes it: attached to a cgroup for a moment.
pub(crate) fn probe(cgroup: &Path) -> anyhow::Result<()> {
    let group = File::open(cgroup).with_context(|| format!("opening `{}`", cgroup.display()))?;
    let object = load(&[])?;
    for program in object.progs_mut() {
        let name = program.name().to_string_lossy().into_owned();
        let attached = program.attach_cgroup(group.as_raw_fd());
        drop(attached.with_context(|| format!("attaching `{name}`"))?);
    }
    Ok(())
}

/// Whether a container is cut off: every program is in force.
pub(crate) fn is_cut(pins: &Pins, container: &str) -> bool {
    let dir = pins.dir(KIND, container);
    PROGRAMS.iter().all(|name| dir.join(name).exists())
}

/// How many packets and connections were cut.
pub(crate) fn count(pins: &Pins, container: &str) -> Option<u64> {
    let map = MapHandle::from_pinned_path(pins.dir(KIND, container).join(CUT)).ok()?;
    let value = map
        .lookup(&0_u32.to_ne_bytes(), MapFlags::ANY)
        .ok()
        .flatten()?;
    value.try_into().ok().map(u64::from_ne_bytes)
}

/// Lets a container speak again.
pub(crate) fn mend(pins: &Pins, container: &str) -> anyhow::Result<()> {
    pins.remove(KIND, container)
        .with_context(|| format!("letting `{container}` speak again"))
}

/// Containers that are cut off.
pub(crate) fn all(pins: &Pins) -> Vec<String> {
    pins.list(KIND)
}

fn load(allowed: &[Range]) -> anyhow::Result<Object> {
    libbpf_rs::set_print(None);
    let mut builder = ObjectBuilder::default();
    builder.name("quarantine")?;
    let opened = builder
        .open_memory(OBJECT)
        .context("reading the quarantine's object")?;
    let object = opened.load().context("loading the quarantine")?;
    let map = object.maps().find(|map| map.name() == "allowed");
    let map = map.context("the quarantine's object has no map `allowed`")?;
    for range in allowed {
        map.update(&key(range)?, &ports(range)?, MapFlags::ANY)?;
    }
    Ok(object)
}

/// `struct range`.
fn key(range: &Range) -> anyhow::Result<Vec<u8>> {
    let bits = u32::from(range.bits);
    let (bits, address) = match range.address {
        IpAddr::V4(v4) => (V4_BITS + bits, v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => (bits, v6),
    };
    ensure!(
        bits <= 128,
        "`{}/{}` has too many bits",
        range.address,
        range.bits
    );
    Ok([bits.to_ne_bytes().as_slice(), &address.octets()].concat())
}

/// `struct ports`.
fn ports(range: &Range) -> anyhow::Result<Vec<u8>> {
    let count = u32::try_from(range.ports.len())?;
    ensure!(
        range.ports.len() <= PORTS_MAX,
        "more than {PORTS_MAX} ports of `{}`",
        range.address
    );
    let mut bytes = count.to_ne_bytes().to_vec();
    for at in 0..PORTS_MAX {
        let port = range.ports.get(at).copied().unwrap_or(0);
        bytes.extend(port.to_ne_bytes());
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range(address: &str, bits: u8, ports: &[u16]) -> Range {
        Range {
            address: address.parse().unwrap(),
            bits,
            ports: ports.to_vec(),
        }
    }

    #[test]
    fn ranges_are_written_as_the_kernel_reads_them() {
        let bytes = key(&range("10.0.0.0", 8, &[])).unwrap();
        assert_eq!(bytes[..4], 104_u32.to_ne_bytes());
        assert_eq!(bytes[14..], [0xff, 0xff, 10, 0, 0, 0]);
        let bytes = key(&range("::1", 128, &[])).unwrap();
        assert_eq!((bytes[0], bytes[19]), (128, 1));
        assert!(key(&range("10.0.0.0", 33, &[])).is_err());
        let bytes = ports(&range("::1", 128, &[53, 443])).unwrap();
        assert_eq!(bytes.len(), 4 + 2 * PORTS_MAX);
        assert_eq!(bytes[6..8], 443_u16.to_ne_bytes());
        assert!(ports(&range("::1", 128, &[1; PORTS_MAX])).is_ok());
        assert!(ports(&range("::1", 128, &[1; PORTS_MAX + 1])).is_err());
    }
}
