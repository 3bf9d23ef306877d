//! Whoever dies between two writes, or writes what another one wrote meanwhile: in the end it is as if
//! one had done it all.

use super::*;

impl World {
    /// The first writes of an outcome, as if who did them had died then: the ledger, the record, the
    /// document.
    async fn begins(&self, outcome: &Outcome, count: usize) {
        let all = outcome.values::<ResponseRecord>(RESPONSE_RECORDS);
        let [(key, record)] = all.as_slice() else {
            panic!("{all:?}");
        };
        let ledger = ResponseLedger::key(&tenant());
        let ledgers = outcome.values::<ResponseLedger>(RESPONSE_RECORDS);
        let written = ledgers.iter().find(|(key, _)| *key == ledger);
        if let Some((key, ledger)) = written.filter(|_| count > 0) {
            let put = self.store.put(RESPONSE_RECORDS, key, ledger, None);
            put.await.unwrap();
        }
        if count > 1 {
            let put = self.store.put(RESPONSE_RECORDS, key, record, None);
            put.await.unwrap();
        }
        for (key, signed) in outcome.values::<SignedDesired>(NODES) {
            if count > 2 {
                self.store.put(NODES, &key, &signed, None).await.unwrap();
            }
        }
    }

    /// How many responses are counted, and how many the node shall do.
    async fn counts(&self) -> (usize, usize, u64) {
        let desired = self.desired("n1").await;
        let counted = self.ledger().await.entries.len();
        (counted, desired.responses.len(), desired.generation)
    }
}

#[tokio::test]
async fn a_decision_is_whole_wherever_who_made_it_died() {
    for count in 0..=3 {
        let world = World::new(&enforcing(""));
        world.reported("n1", vec![container("c1"), container("c2")]);
        let one = incident(1, "n1", "c1");
        let lost = world.decide(one.clone()).await;
        world.begins(&lost, count).await;
        world.clock.advance(SignedDuration::from_secs(3));
        let again = world.happens(one.clone()).await;
        assert_eq!(world.stages(&one).await, [Stage::Ordered], "{count}");
        assert_eq!(world.counts().await, (1, 1, 1), "{count}");
        let (before, told) = (news(&lost), news(&again));
        assert_eq!(told.len(), 1);
        // What was written is told as it was written.
        assert_eq!(before == told, count >= 2, "{count}");
    }
}

#[tokio::test]
async fn an_order_is_carried_out_once_wherever_who_took_it_died() {
    for count in 0..=3 {
        let world = World::new(&enforcing(", mode: propose"));
        world.reported("n1", vec![container("c1"), container("c2")]);
        let one = incident(1, "n1", "c1");
        world.happens(one.clone()).await;
        let response = world.record(&one.id).await.responses[0].id.clone();
        let approve = || {
            let order = Order::Approve {
                response: response.clone(),
            };
            world.ordered_by_alice("o1", &one, order, false)
        };
        let lost = world.hears(approve()).await;
        world.begins(&lost, count).await;
        world.clock.advance(SignedDuration::from_secs(3));
        let again = world.told(approve()).await;
        // Evidence comes with it, and does not count.
        assert_eq!(world.stages(&one).await, [Stage::Ordered; 2], "{count}");
        assert_eq!(world.counts().await, (1, 2, 1), "{count}");
        let record = world.record(&one.id).await;
        assert_eq!(record.orders.len(), 1, "{count}");
        assert_eq!(news(&again).len(), 2, "{count}");
    }
}

#[tokio::test]
async fn an_answer_counts_once_wherever_who_took_it_died() {
    for count in 0..=3 {
        let world = World::new(&enforcing(""));
        world.reported("n1", vec![container("c1"), container("c2")]);
        let one = incident(1, "n1", "c1");
        world.happens(one.clone()).await;
        let id = world.record(&one.id).await.responses[0].id.clone();
        world.reports(&one, &id, Phase::Done).await;
        let lifted = || {
            Told::Reported(Box::new(ResponseReported {
                phase: Phase::Lifted,
                ..report(&one, &id)
            }))
        };
        let lost = world.hears(lifted()).await;
        world.begins(&lost, count).await;
        world.clock.advance(SignedDuration::from_secs(3));
        let again = world.told(lifted()).await;
        assert_eq!(world.stages(&one).await, [Stage::Lifted], "{count}");
        assert_eq!(world.counts().await, (1, 0, 2), "{count}");
        // The container serves again.
        let out = world.ledger().await.entries[0].out_until.unwrap();
        assert!(out <= world.clock.now(), "{count}");
        assert_eq!(news(&again).len(), 1, "{count}");
    }
}

#[tokio::test]
async fn of_two_that_write_one_document_neither_is_lost() {
    let world = World::new(&enforcing(""));
    let all = ["c1", "c2", "c3"].map(container);
    world.reported("n1", all.to_vec());
    let (one, two) = (incident(1, "n1", "c1"), incident(2, "n1", "c2"));
    // The first writes ledger and record; the second does it all before the document is written.
    let first = world.decide(one.clone()).await;
    world.begins(&first, 2).await;
    world.happens(two.clone()).await;
    let conflict = world.store.apply(&first).await;
    assert!(conflict.is_err());
    let again = world.happens(one.clone()).await;
    assert_eq!(news(&again), news(&first));
    assert_eq!(world.ordered(&[one, two]).await, 2);
    assert_eq!(world.counts().await, (2, 2, 2));
}
