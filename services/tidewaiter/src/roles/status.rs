//! Says how this process does, in a record that expires with it: health shows all of them.

use std::{fs::File, io::Read as _};

use bus::Bus;
use chassis::{Cx, Readiness};
use model::{ProcessRecord, event::LEASES};
use tracing::debug;

const HOST_BYTES_MAX: u64 = 256;

/// Writes the record several times in a lease's life, until the process stops.
pub(super) fn tell(cx: &Cx, bus: &Bus, roles: Vec<String>, readiness: Readiness) {
    let (cx_here, bus) = (cx.clone(), bus.clone());
    let first = ProcessRecord {
        id: bus.id().to_owned(),
        roles,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        host: host(),
        started_at: cx.now(),
        ..ProcessRecord::default()
    };
    cx.spawn("status", async move {
        let (store, key) = (bus.store(), ProcessRecord::key(&first.id));
        loop {
            if bus.is_connected() {
                let record = now(&cx_here, &bus, &readiness, &first);
                if let Err(error) = store.put(LEASES, &key, &record, None).await {
                    debug!("how this process does is not told: {error:#}");
                }
            }
            if !cx_here.sleep(bus.config().lease() / 3).await {
                break;
            }
        }
        if let Err(error) = store.delete(LEASES, &key).await {
            debug!("that this process stops is not told: {error:#}");
        }
    });
}

fn now(cx: &Cx, bus: &Bus, readiness: &Readiness, first: &ProcessRecord) -> ProcessRecord {
    let checks = readiness.checks().into_iter();
    ProcessRecord {
        seen_at: cx.now(),
        unready: checks
            .filter_map(|(name, ready)| (!ready).then_some(name))
            .collect(),
        notes: cx.notes().all(),
        full: bus.full(),
        spool: bus.spool(),
        queues: bus.queues().iter().map(bus::Queue::state).collect(),
        ..first.clone()
    }
}

/// The host's name, as the kernel has it; in a container, the container's.
fn host() -> String {
    let mut name = String::new();
    let file = File::open("/proc/sys/kernel/hostname");
    let read = file.and_then(|file| file.take(HOST_BYTES_MAX).read_to_string(&mut name));
    match read {
        Ok(_) => name.trim().to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}
