use std::future::poll_fn;
use std::num::NonZero;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::time::timeout;

use super::super::concurrency::{Permit, SignatureLimit};
use crate::rejection::RejectionReason;

/// A test fails if a wait takes longer. It only ends a hang.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Polls `future` once, and asserts that it waits.
async fn pending_once<F: Future>(mut future: Pin<&mut F>) {
    let waits = poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await;
    assert!(waits, "the future does not wait");
}

/// Yields ten times, so that every other task of this thread's runtime runs until it waits.
async fn settle() {
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
}

/// Waits until this many jobs are queued behind the one that the thread has taken.
async fn until_queued(limit: &SignatureLimit, count: usize) {
    while limit.queued() != count {
        tokio::task::yield_now().await;
    }
}

fn one_permit() -> Arc<SignatureLimit> {
    Arc::new(SignatureLimit::new(1, 1))
}

#[test]
fn limit_leaves_one_core_free() {
    let cores = thread::available_parallelism().map_or(1, NonZero::get);
    let limit = SignatureLimit::of_machine();
    let permits: Vec<_> = std::iter::from_fn(|| limit.try_acquire()).collect();
    assert_eq!(permits.len(), if cores == 1 { 1 } else { cores - 1 });
    drop(permits);
    assert!(limit.try_acquire().is_some());
}

#[tokio::test]
async fn queue_is_served_in_the_order_of_arrival() {
    let limit = one_permit();
    let done = Arc::new(Mutex::new(Vec::new()));
    let permit = limit.try_acquire().unwrap();
    assert!(limit.try_acquire().is_none());
    let (release, released) = mpsc::channel();
    let released = Arc::new(Mutex::new(released));
    let waiting: Vec<_> = (0..3)
        .map(|number| {
            let (slot, done, released) =
                (limit.enqueue().unwrap(), Arc::clone(&done), Arc::clone(&released));
            tokio::spawn(slot.run(move |_permit| {
                released.lock().unwrap().recv().unwrap();
                done.lock().unwrap().push(number);
                Ok(())
            }))
        })
        .collect();
    settle().await;
    assert!(done.lock().unwrap().is_empty());
    drop(permit);
    (0..3).for_each(|_| release.send(()).unwrap());
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    assert_eq!(*done.lock().unwrap(), [0, 1, 2]);
    assert!(limit.try_acquire().is_some());
}

#[tokio::test]
async fn queue_rejects_the_1025th_token() {
    let limit = one_permit();
    let permit = limit.try_acquire().unwrap();
    let wait = || limit.enqueue().map(|slot| tokio::spawn(slot.run(|_permit| Ok(()))));
    // The thread takes the first token and waits for its permit.
    let mut waiting = vec![wait().unwrap()];
    until_queued(&limit, 0).await;
    waiting.extend((0..1024).map(|_| wait().unwrap()));
    settle().await;
    assert_eq!(limit.enqueue().err(), Some(RejectionReason::TooManyWaiting));
    drop(permit);
    for task in waiting {
        task.await.unwrap().unwrap();
    }
    assert!(limit.enqueue().is_ok());
}

#[tokio::test]
async fn future_that_is_dropped_or_not_polled_blocks_no_other() {
    let limit = one_permit();
    let permit = limit.try_acquire().unwrap();
    let wait = || Box::pin(limit.enqueue().unwrap().run(|_permit| Ok(())));
    let (mut unpolled, mut dropped, mut polled) = (wait(), wait(), wait());
    for waiting in [&mut unpolled, &mut dropped, &mut polled] {
        pending_once(waiting.as_mut()).await;
    }
    drop(dropped);
    drop(permit);
    timeout(TIMEOUT, polled).await.expect("the queued token still waits").unwrap();
    assert!(limit.try_acquire().is_some());
    unpolled.await.unwrap();
}

#[tokio::test]
async fn work_of_a_future_dropped_in_the_queue_is_not_run() {
    let limit = one_permit();
    let permit = limit.try_acquire().unwrap();
    let first = tokio::spawn(limit.enqueue().unwrap().run(|_permit| Ok(())));
    until_queued(&limit, 0).await;
    let (ran, has_run) = mpsc::channel();
    let work = move |_permit: Permit<'_>| {
        ran.send(()).unwrap();
        Ok(())
    };
    let mut dropped = Box::pin(limit.enqueue().unwrap().run(work));
    pending_once(dropped.as_mut()).await;
    drop(dropped);
    let last = tokio::spawn(limit.enqueue().unwrap().run(|_permit| Ok(())));
    drop(permit);
    first.await.unwrap().unwrap();
    last.await.unwrap().unwrap();
    assert!(has_run.try_recv().is_err());
}

#[tokio::test]
async fn thread_exits_after_its_limit_is_dropped() {
    let limit = one_permit();
    let permits = Arc::downgrade(limit.permits());
    limit.enqueue().unwrap().run(|_permit| Ok(())).await.unwrap();
    drop(limit);
    while permits.strong_count() > 0 {
        tokio::task::yield_now().await;
    }
}

#[test]
fn runtime_that_is_not_driven_blocks_no_other() {
    let runtime = || Builder::new_current_thread().enable_time().build().unwrap();
    let limit = one_permit();
    let wait = || Box::pin(limit.enqueue().unwrap().run(|_permit| Ok(())));
    let permit = limit.try_acquire().unwrap();
    let (idle, mut unpolled) = (runtime(), wait());
    idle.block_on(async {
        pending_once(unpolled.as_mut()).await;
        settle().await;
    });
    drop(permit);
    let polled = async { timeout(TIMEOUT, wait()).await };
    runtime().block_on(polled).expect("the queued token still waits").unwrap();
}

#[test]
fn queue_works_without_a_runtime() {
    let limit = one_permit();
    let permit = limit.try_acquire().unwrap();
    let mut waiting = pin!(limit.enqueue().unwrap().run(|_permit| Ok(())));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(waiting.as_mut().poll(&mut cx).is_pending());
    drop(permit);
    let served = loop {
        match waiting.as_mut().poll(&mut cx) {
            Poll::Ready(served) => break served,
            Poll::Pending => thread::yield_now(),
        }
    };
    assert!(served.is_ok());
}

/// The task that drops the permit blocks the worker that the waiting task was woken on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn busy_worker_blocks_no_queued_token() {
    let limit: &'static _ = Box::leak(Box::new(one_permit()));
    let permit = limit.try_acquire().unwrap();
    let slot = limit.enqueue().unwrap();
    let (served, is_served) = mpsc::channel();
    let waiting = tokio::spawn(slot.run(move |_permit| {
        served.send(()).unwrap();
        Ok(())
    }));
    until_queued(limit, 0).await;
    tokio::spawn(async move {
        drop(permit);
        is_served.recv_timeout(TIMEOUT).expect("the queued token still waits");
    })
    .await
    .unwrap();
    waiting.await.unwrap().unwrap();
}

#[tokio::test]
async fn panicking_job_releases_its_permit_to_the_next_job() {
    let limit = one_permit();
    let permit = limit.try_acquire().unwrap();
    let lost =
        tokio::spawn(limit.enqueue().unwrap().run::<(), _>(|_permit| panic!("deliberately")));
    let behind = tokio::spawn(limit.enqueue().unwrap().run(|_permit| Ok(())));
    settle().await;
    drop(permit);
    timeout(TIMEOUT, behind).await.expect("the queued token still waits").unwrap().unwrap();
    assert_eq!(lost.await.unwrap().unwrap_err().reason(), RejectionReason::TooManyWaiting);
    assert!(limit.try_acquire().is_some());
}

#[tokio::test]
async fn job_runs_on_a_named_thread_in_its_callers_runtime() {
    let slot = one_permit().enqueue().unwrap();
    let done = slot
        .run(|_permit| Ok((Handle::current().id(), thread::current().name().map(str::to_owned))))
        .await;
    let name = "tower-m2m-signatures".to_owned();
    assert_eq!(done.unwrap(), (Handle::current().id(), Some(name)));
}
