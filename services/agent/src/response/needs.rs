//! What a container needs, taken from everything that is done to it.

use std::collections::{BTreeMap, BTreeSet};

use model::runtime::{Action, Peer, Response};

use super::network::Range;

/// What a container needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Need {
    /// It stands still.
    pub(crate) frozen: bool,
    /// It speaks with nobody but these.
    pub(crate) cut: Option<Vec<Peer>>,
    /// It runs nothing but what its image holds.
    pub(crate) blocked: bool,
}

/// Whether an action is in force until it is lifted, not done once and for all.
pub(crate) const fn lasts(action: &Action) -> bool {
    match action {
        Action::Pause | Action::Quarantine { .. } | Action::Block | Action::Replace => true,
        Action::Observe | Action::CollectEvidence | Action::Kill => false,
    }
}

/// By container.
pub(crate) type Needs = BTreeMap<String, Need>;

/// What all of these together need.
pub(crate) fn of<'a>(responses: impl Iterator<Item = &'a Response>) -> Needs {
    let mut needs = Needs::new();
    for response in responses {
        let need = needs.entry(response.container.clone()).or_default();
        match &response.action {
            Action::Pause => need.frozen = true,
            Action::Quarantine { allow } => need.cut_off(allow),
            Action::Block => need.blocked = true,
            Action::Replace => {
                need.frozen = true;
                need.cut_off(&[]);
            }
            Action::Observe | Action::CollectEvidence | Action::Kill => {}
        }
    }
    needs
}

// === impl Need ===

impl Need {
    /// Whether it is anything at all.
    pub(crate) fn lasts(&self) -> bool {
        *self != Self::default()
    }

    /// Of several lists only what is in each is allowed.
    fn cut_off(&mut self, allow: &[Peer]) {
        match &mut self.cut {
            None => self.cut = Some(allow.to_vec()),
            Some(peers) => peers.retain(|peer| allow.contains(peer)),
        }
    }
}

/// As the kernel takes them: the ports of an address together, all of them where one entry has none.
pub(crate) fn ranges(peers: &[Peer]) -> Vec<Range> {
    let mut ports: BTreeMap<_, BTreeSet<Option<u16>>> = BTreeMap::new();
    for peer in peers {
        let place = ports.entry((peer.address, peer.prefix)).or_default();
        place.insert(peer.port);
    }
    let ranges = ports.into_iter().map(|((address, bits), ports)| Range {
        address,
        bits,
        ports: if ports.contains(&None) {
            Vec::new()
        } else {
            ports.into_iter().flatten().collect()
        },
    });
    ranges.collect()
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;
    use model::runtime::{Mode, ResponseId};

    use super::*;

    fn response(action: Action) -> Response {
        Response {
            id: ResponseId("1".to_owned()),
            incident: "i".to_owned(),
            action,
            container: "c".to_owned(),
            container_name: String::new(),
            container_started_at: None,
            mode: Mode::Enforced,
            issued_at: Timestamp::UNIX_EPOCH,
            expires_at: Timestamp::UNIX_EPOCH,
            approved_by: String::new(),
            reason: String::new(),
            released: None,
        }
    }

    fn peers(texts: &[&str]) -> Vec<Peer> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn of_two_quarantines_the_narrower_counts() {
        let quarantine = |texts: &[&str]| {
            response(Action::Quarantine {
                allow: peers(texts),
            })
        };
        let both = [
            quarantine(&["10.0.0.1", "10.0.0.2"]),
            quarantine(&["10.0.0.2"]),
        ];
        let needs = of(both.iter());
        assert_eq!(needs["c"].cut, Some(peers(&["10.0.0.2"])));
        let with_replace = [both[1].clone(), response(Action::Replace)];
        let needs = of(with_replace.iter());
        assert_eq!(
            (needs["c"].cut.clone(), needs["c"].frozen),
            (Some(Vec::new()), true)
        );
        assert_eq!(of([response(Action::Kill)].iter())["c"], Need::default());
    }

    #[test]
    fn ports_of_one_address_go_together() {
        let ranges = ranges(&peers(&[
            "10.0.0.1:53",
            "10.0.0.1:443",
            "fd00::1",
            "[fd00::1]:1",
        ]));
        assert_eq!(ranges.len(), 2);
        assert_eq!(ranges[0].ports, [53, 443]);
        assert!(ranges[1].ports.is_empty());
    }
}
