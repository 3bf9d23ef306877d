use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::oneshot;

use super::*;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn finish_waits_for_tasks_and_reports_those_that_stay() {
    let cx = Cx::for_tests();
    let (open, opened) = oneshot::channel::<()>();
    cx.spawn("waits", async move { drop(opened.await) });
    assert!(!cx.finish(Duration::from_millis(1)).await);
    drop(open);
    assert!(cx.finish(SOON).await);
}

#[tokio::test]
async fn a_panic_in_a_task_stops_the_process_even_from_a_child() {
    let cx = Cx::for_tests();
    let child = cx.child();
    child.spawn("falls", async { panic!("on purpose") });
    tokio::time::timeout(SOON, cx.stopped()).await.unwrap();
    assert!(child.is_stopping());
    assert!(cx.finish(SOON).await);
}

#[tokio::test]
async fn stopping_goes_down_and_not_up_and_tasks_count_above() {
    let cx = Cx::for_tests();
    let one = cx.child();
    let two = cx.child();
    let seen = one.clone();
    one.spawn("until stopped", async move { seen.stopped().await });
    one.stop();
    assert!(one.finish(SOON).await);
    assert!(!cx.is_stopping() && !two.is_stopping());

    let seen = two.clone();
    two.spawn("until stopped", async move { seen.stopped().await });
    assert!(!cx.finish(Duration::from_millis(1)).await);
    cx.stop();
    assert!(two.is_stopping());
    assert!(cx.finish(SOON).await);
}

#[tokio::test]
async fn lost_work_is_an_error_and_the_pool_goes_on() {
    let cx = Cx::for_tests();
    assert_eq!(
        cx.compute(|| panic!("on purpose")).await,
        Err::<(), _>(Lost::Panicked)
    );
    assert_eq!(
        cx.blocking(|| panic!("on purpose")).await,
        Err::<(), _>(Lost::Panicked)
    );
    assert_eq!(cx.compute(|| 1).await, Ok(1));
    assert_eq!(cx.blocking(|| 2).await, Ok(2));
    assert!(!cx.is_stopping());
}

#[tokio::test]
async fn no_more_threads_work_than_allowed() {
    let limits = CxLimits {
        compute_threads: 2,
        blocking_threads: 2,
    };
    let cx = Cx::new(Arc::new(SystemClock), limits);
    let (running, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let work = || {
        let (running, most) = (Arc::clone(&running), Arc::clone(&most));
        move || {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            std::thread::yield_now();
            running.fetch_sub(1, Ordering::SeqCst);
        }
    };
    futures::future::join_all((0..50).map(|_| cx.blocking(work()))).await;
    futures::future::join_all((0..50).map(|_| cx.compute(work()))).await;
    assert!((1..=2).contains(&most.load(Ordering::SeqCst)));
}

#[tokio::test]
async fn sleep_ends_early_when_stopping() {
    let cx = Cx::for_tests();
    assert!(cx.sleep(Duration::from_millis(1)).await);
    cx.stop();
    assert!(!cx.sleep(Duration::from_hours(1)).await);
}
