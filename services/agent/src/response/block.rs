//! Block, as far as the kernel does it: what starts in a blocked container and is not of its image
//! is killed before its first instruction. It holds what the guard cannot, and whatever happens to
//! the guard.

use std::{fs, path::PathBuf};

use anyhow::Context as _;
use libbpf_rs::{MapCore as _, MapFlags, MapHandle, Object, ObjectBuilder};

use super::{group::Group, pins::Pins};

static OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/block.bpf.o"));

const KIND: &str = "block";
const ID: &str = "kernel";
const LINK: &str = "link";
const BLOCKED: &str = "blocked";
const APPROVED: &str = "approved";

/// Origins as `enum origin` of `bpf/events.h` counts them.
const UPPER: u64 = 1 << 1;
const TMPFS: u64 = 1 << 2;
const OTHER: u64 = 1 << 3;
const UNLINKED: u64 = 1 << 4;

/// Blocks a container.
pub(crate) fn set(pins: &Pins, group: &Group, is_overlay: bool) -> anyhow::Result<()> {
    load(pins)?;
    // Where the root is no overlay, all of the image is of some other file system.
    let origins = if is_overlay {
        UPPER | TMPFS | OTHER | UNLINKED
    } else {
        TMPFS | UNLINKED
    };
    let map = MapHandle::from_pinned_path(path(pins, BLOCKED))?;
    let value = [origins, killed(&map, group.id).unwrap_or(0)]
        .map(u64::to_ne_bytes)
        .concat();
    map.update(&group.id.to_ne_bytes(), &value, MapFlags::ANY)
        .context("blocking it in the kernel")
}

/// Lets a container run what it likes.
pub(crate) fn clear(pins: &Pins, cgroup: u64) {
    if let Ok(map) = MapHandle::from_pinned_path(path(pins, BLOCKED)) {
        // It is not there: that is what is wanted.
        drop(map.delete(&cgroup.to_ne_bytes()));
    }
}

/// Cgroups of containers that are blocked.
pub(crate) fn all(pins: &Pins) -> Vec<u64> {
    let Ok(map) = MapHandle::from_pinned_path(path(pins, BLOCKED)) else {
        return Vec::new();
    };
    let keys = map.keys();
    keys.filter_map(|key| key.try_into().ok().map(u64::from_ne_bytes))
        .collect()
}

/// Ends it for all.
pub(crate) fn unload(pins: &Pins) -> anyhow::Result<()> {
    pins.remove(KIND, ID).context("letting go of the block")
}

/// How many programs of a container were killed.
pub(crate) fn count(pins: &Pins, cgroup: u64) -> Option<u64> {
    killed(
        &MapHandle::from_pinned_path(path(pins, BLOCKED)).ok()?,
        cgroup,
    )
}

/// Where the guard says which files were approved.
pub(crate) fn approved(pins: &Pins) -> PathBuf {
    path(pins, APPROVED)
}

fn killed(map: &MapHandle, cgroup: u64) -> Option<u64> {
    let value = map.lookup(&cgroup.to_ne_bytes(), MapFlags::ANY).ok()??;
    value.get(8..16)?.try_into().ok().map(u64::from_ne_bytes)
}

fn path(pins: &Pins, name: &str) -> PathBuf {
    pins.dir(KIND, ID).join(name)
}

/// Loads and pins the program, where it is not at work yet.
pub(crate) fn load(pins: &Pins) -> anyhow::Result<()> {
    let dir = pins.make(KIND, ID)?;
    if [LINK, BLOCKED, APPROVED]
        .iter()
        .all(|name| dir.join(name).exists())
    {
        return Ok(());
    }
    // Left by one who was stopped here before.
    for name in [LINK, BLOCKED, APPROVED] {
        drop(fs::remove_file(dir.join(name)));
    }
    let mut object = load_object()?;
    for mut map in object.maps_mut() {
        let name = map.name().to_string_lossy().into_owned();
        if name == BLOCKED || name == APPROVED {
            map.pin(dir.join(name))?;
        }
    }
    for program in object.progs_mut() {
        let mut link = program.attach().context("attaching the block")?;
        // The file system keeps it, and nothing else may: `disconnect` would leave it open here.
        link.pin(dir.join(LINK)).context("pinning the block")?;
    }
    Ok(())
}

/// Whether this kernel takes it: it is at work for a moment, for no container.
pub(crate) fn probe() -> anyhow::Result<()> {
    let object = load_object()?;
    for program in object.progs_mut() {
        drop(program.attach().context("attaching the block")?);
    }
    Ok(())
}

fn load_object() -> anyhow::Result<Object> {
    libbpf_rs::set_print(None);
    let mut builder = ObjectBuilder::default();
    builder.name("block")?;
    let opened = builder
        .open_memory(OBJECT)
        .context("reading the block's object")?;
    opened.load().context("loading the block")
}
