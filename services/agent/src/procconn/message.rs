//! Messages of the process connector (`linux/netlink.h`, `linux/connector.h`, `linux/cn_proc.h`).

/// A netlink header, and that of the connector behind it.
const NETLINK_BYTES: usize = 16;
const CONNECTOR_BYTES: usize = 20;
/// Before what an event says of itself: what it is, a processor, a time.
const EVENT: usize = NETLINK_BYTES + CONNECTOR_BYTES;
const TIME: usize = EVENT + 8;
const DATA: usize = EVENT + 16;
/// The whole message.
const DONE: u16 = 3;
/// `PROC_CN_MCAST_LISTEN`
const LISTEN: u32 = 1;
/// `CN_IDX_PROC` and `CN_VAL_PROC`.
const PROCESSES: u32 = 1;

/// What happened to a process; processes are thread groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The answer to a request: 0, or an error's number.
    Ack(u32),
    Fork {
        parent: u32,
        child: u32,
    },
    Exec(u32),
    Exit {
        pid: u32,
        code: u32,
    },
}

/// The request to be told of everything.
pub(super) fn listen() -> Vec<u8> {
    let mut bytes = Vec::with_capacity(EVENT + 4);
    let length = u32::try_from(EVENT + 4).unwrap_or(u32::MAX);
    bytes.extend(length.to_ne_bytes());
    bytes.extend(DONE.to_ne_bytes());
    bytes.extend([0; 10]);
    for number in [PROCESSES, PROCESSES, 0, 0] {
        bytes.extend(number.to_ne_bytes());
    }
    bytes.extend(4_u16.to_ne_bytes());
    bytes.extend([0; 2]);
    bytes.extend(LISTEN.to_ne_bytes());
    bytes
}

/// When something happened, in nanoseconds since the boot, and what; `None` for threads, for what
/// is nothing here, and for what does not come from the kernel.
pub(super) fn read(bytes: &[u8]) -> Option<(u64, Event)> {
    let sender = u32_at(bytes, 12)?;
    if sender != 0 || u32_at(bytes, NETLINK_BYTES)? != PROCESSES {
        return None;
    }
    let at_ns = bytes.get(TIME..TIME + 8)?.try_into().ok()?;
    let data = |at: usize| u32_at(bytes, DATA + at);
    let event = match u32_at(bytes, EVENT)? {
        0 => Event::Ack(data(0)?),
        1 => {
            let (thread, child) = (data(8)?, data(12)?);
            if thread != child {
                return None;
            }
            Event::Fork {
                parent: data(4)?,
                child,
            }
        }
        2 => Event::Exec(data(4)?),
        0x8000_0000 => {
            let (thread, pid) = (data(0)?, data(4)?);
            if thread != pid {
                return None;
            }
            Event::Exit {
                pid,
                code: data(8)?,
            }
        }
        _ => return None,
    };
    Some((u64::from_ne_bytes(at_ns), event))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    bytes.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(what: u32, data: &[u32]) -> Vec<u8> {
        let mut bytes = vec![0; NETLINK_BYTES];
        bytes.extend(PROCESSES.to_ne_bytes());
        bytes.extend(PROCESSES.to_ne_bytes());
        bytes.extend([0; 12]);
        bytes.extend(what.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend(77_u64.to_ne_bytes());
        for number in data {
            bytes.extend(number.to_ne_bytes());
        }
        bytes
    }

    #[test]
    fn starts_forks_and_ends_of_processes_are_read() {
        let check = |what, data: &[u32], expected| {
            assert_eq!(read(&message(what, data)), expected, "{what} {data:?}");
        };
        check(0, &[1], Some((77, Event::Ack(1))));
        let fork = Event::Fork {
            parent: 10,
            child: 20,
        };
        check(1, &[11, 10, 20, 20], Some((77, fork)));
        check(2, &[21, 20], Some((77, Event::Exec(20))));
        let exit = Event::Exit { pid: 20, code: 256 };
        check(0x8000_0000, &[20, 20, 256, 17], Some((77, exit)));
    }

    #[test]
    fn threads_others_and_what_is_cut_off_are_nothing() {
        assert_eq!(read(&message(1, &[10, 10, 21, 20])), None);
        assert_eq!(read(&message(0x8000_0000, &[21, 20, 0, 0])), None);
        assert_eq!(read(&message(0x200, &[20, 20])), None);
        assert_eq!(read(&message(2, &[20])), None);
        let mut forged = message(2, &[20, 20]);
        forged[12] = 1;
        assert_eq!(read(&forged), None);
        let whole = message(1, &[10, 10, 20, 20]);
        for end in 0..whole.len() {
            assert_eq!(read(&whole[..end]), None);
        }
    }
}
