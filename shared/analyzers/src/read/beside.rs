//! The queue of files for analyzers that wait for another process: one thread per layer asks them, so
//! that neither the walk nor the pool stands still. What waits is bounded in bytes and number; where
//! that is full, the walk waits.

use std::{
    collections::VecDeque,
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::results::Results;
use crate::{Analyzers, File};

/// Files that wait: one that is spilled costs an open file.
const TASKS_MAX: usize = 64;

/// A call that is to be made.
pub(super) struct Task {
    pub(super) number: usize,
    pub(super) analyzer: usize,
    pub(super) files: Vec<File>,
    pub(super) bytes: u64,
}

/// Calls that are to be made, in their order.
pub(super) struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    bytes_max: u64,
    deadline: Option<Instant>,
    /// Whether a thread makes the calls.
    is_served: bool,
}

#[derive(Default)]
struct State {
    tasks: VecDeque<Task>,
    /// Bytes of those that wait, and of the one at work.
    bytes: u64,
    is_closed: bool,
}

/// Closes the queue when it is dropped.
pub(super) struct Closing<'a>(&'a Queue);

// === impl Queue ===

impl Queue {
    pub(super) fn new(bytes_max: u64, deadline: Option<Instant>) -> Self {
        Self {
            state: Mutex::default(),
            changed: Condvar::new(),
            bytes_max,
            deadline,
            is_served: true,
        }
    }

    /// One in which nothing waits: who has a call makes it.
    pub(super) fn unserved(deadline: Option<Instant>) -> Self {
        Self {
            is_served: false,
            ..Self::new(0, deadline)
        }
    }

    /// Closes it at the end of a scope, also where that is a panic.
    pub(super) fn closing(&self) -> Closing<'_> {
        Closing(self)
    }

    /// Hands a call over, or makes it where nobody else does.
    pub(super) fn push(&self, task: Task, analyzers: &Analyzers, results: &Results) {
        if self.is_served {
            self.wait_with(task);
        } else {
            self.call(&task, analyzers, results);
        }
    }

    /// Waits until there is room. A file larger than all of it goes alone.
    fn wait_with(&self, task: Task) {
        let has_room = |state: &mut State| {
            let bytes = state.bytes.saturating_add(task.bytes);
            let fits = state.tasks.len() < TASKS_MAX && bytes <= self.bytes_max;
            state.is_closed || state.bytes == 0 || fits
        };
        let waited = self
            .changed
            .wait_while(self.lock(), |state| !has_room(state));
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        // Who serves it has panicked, which is about to be the end of the walk as well.
        if !state.is_closed {
            state.bytes = state.bytes.saturating_add(task.bytes);
            state.tasks.push_back(task);
            self.changed.notify_all();
        }
    }

    /// Makes the calls until the queue is closed and empty.
    pub(super) fn serve(&self, analyzers: &Analyzers, results: &Results) {
        let _closing = self.closing();
        while let Some(task) = self.next() {
            let bytes = task.bytes;
            self.call(&task, analyzers, results);
            let mut state = self.lock();
            state.bytes = state.bytes.saturating_sub(bytes);
            self.changed.notify_all();
        }
    }

    /// Makes one call, unless it is too late.
    fn call(&self, task: &Task, analyzers: &Analyzers, results: &Results) {
        let Some(one) = analyzers.as_slice().get(task.analyzer) else {
            return;
        };
        let is_late = |deadline| Instant::now() >= deadline;
        if self.deadline.is_some_and(is_late) {
            let path = task.files.first().map(File::path).unwrap_or_default();
            results.too_late(task.number, task.analyzer, one.as_ref(), path);
        } else {
            results.analyze(task.number, task.analyzer, one.as_ref(), &task.files);
        }
    }

    fn next(&self) -> Option<Task> {
        let is_idle = |state: &mut State| state.tasks.is_empty() && !state.is_closed;
        let waited = self.changed.wait_while(self.lock(), is_idle);
        let mut state = waited.unwrap_or_else(PoisonError::into_inner);
        state.tasks.pop_front()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// === impl Closing ===

impl Drop for Closing<'_> {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering},
        thread,
    };

    use archive::{Entry, Limits};
    use model::{AnalyzerId, Digest, GapCode, Hides};

    use super::*;
    use crate::{Analyzer, Found, Malformed, Wanted};

    struct Slow {
        id: AnalyzerId,
        calls: AtomicUsize,
    }

    impl Analyzer for Slow {
        fn id(&self) -> &AnalyzerId {
            &self.id
        }

        fn hides(&self) -> Hides {
            Hides::Malware
        }

        fn waits(&self) -> bool {
            true
        }

        fn wants(&self, _entry: &Entry<'_>, _head: &[u8]) -> Wanted {
            Wanted::Alone
        }

        fn analyze(&self, files: &[File], found: &mut Found) -> Result<(), Malformed> {
            let number = self.calls.fetch_add(1, Ordering::Relaxed);
            found.malformed(files[0].path(), format!("call {number}"));
            Ok(())
        }
    }

    fn slow() -> Analyzers {
        let mut all = Analyzers::none();
        all.push(Box::new(Slow {
            id: AnalyzerId {
                name: "slow".to_owned(),
                version: 1,
                config: Digest::of(b""),
            },
            calls: AtomicUsize::new(0),
        }));
        all
    }

    fn task(number: usize, bytes: u64) -> Task {
        Task {
            number,
            analyzer: 0,
            files: vec![File::of(&format!("f{number}"), b"")],
            bytes,
        }
    }

    #[test]
    fn every_file_is_looked_at_in_order_also_one_that_is_larger_than_the_queue() {
        let (queue, analyzers) = (Queue::new(10, None), slow());
        let results = Results::new(&Limits::default());
        thread::scope(|threads| {
            threads.spawn(|| queue.serve(&analyzers, &results));
            let _closing = queue.closing();
            for number in 0..200 {
                let bytes = if number == 7 { 1000 } else { 3 };
                queue.push(task(number, bytes), &analyzers, &results);
            }
        });
        let sections = results.into_sections(&analyzers);
        let gaps = sections[0].gaps.iter();
        let said: Vec<_> = gaps.map(|gap| gap.detail.clone()).collect();
        let expected: Vec<_> = (0..200).map(|number| format!("call {number}")).collect();
        assert_eq!(said, expected);
    }

    #[test]
    fn behind_the_deadline_files_are_gaps_that_do_not_last() {
        let (queue, analyzers) = (Queue::new(10, Some(Instant::now())), slow());
        let results = Results::new(&Limits::default());
        thread::scope(|threads| {
            threads.spawn(|| queue.serve(&analyzers, &results));
            let _closing = queue.closing();
            queue.push(task(0, 1), &analyzers, &results);
        });
        let gaps = results.transient_gaps();
        assert_eq!(
            (gaps[0].code, gaps[0].hides),
            (GapCode::LimitTime, Hides::Malware)
        );
        assert_eq!(gaps[0].path.as_deref(), Some("f0"));
        assert!(results.into_sections(&analyzers)[0].gaps.is_empty());
    }

    #[test]
    fn a_queue_that_nobody_serves_any_more_keeps_nobody_waiting() {
        let (queue, analyzers) = (Queue::new(1, None), slow());
        let results = Results::new(&Limits::default());
        drop(queue.closing());
        queue.push(task(0, 1), &analyzers, &results);
        queue.push(task(1, 1), &analyzers, &results);
        assert!(queue.next().is_none());
    }

    #[test]
    fn a_queue_without_a_thread_makes_each_call_at_once() {
        let (queue, analyzers) = (Queue::unserved(None), slow());
        let results = Results::new(&Limits::default());
        queue.push(task(0, 1000), &analyzers, &results);
        assert_eq!(
            results.into_sections(&analyzers)[0].gaps[0].detail,
            "call 0"
        );
        let (late, results) = (
            Queue::unserved(Some(Instant::now())),
            Results::new(&Limits::default()),
        );
        late.push(task(0, 1), &analyzers, &results);
        assert_eq!(results.transient_gaps()[0].code, GapCode::LimitTime);
    }
}
