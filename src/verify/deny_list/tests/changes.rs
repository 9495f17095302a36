//! Waiting for changes of the lists, as streams do.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Wake, Waker};

use super::super::entry::DenyEntry;
use super::super::list::DenyList;
use super::super::lists::DenyLists;

fn two() -> (DenyList, DenyList, DenyLists) {
    let (one, other) = (DenyList::new(), DenyList::new());
    let mut lists = DenyLists::default();
    lists.add(one.clone());
    lists.add(other.clone());
    (one, other, lists)
}

fn is_ready(future: impl Future) -> bool {
    pin!(future).poll(&mut Context::from_waker(Waker::noop())).is_ready()
}

#[test]
fn change_of_any_list_is_reported_once() {
    let (one, other, lists) = two();
    one.replace([]);
    let mut changes = lists.changes();
    assert!(!is_ready(changes.changed()), "an earlier change");
    for list in [&one, &other, &one] {
        list.replace([DenyEntry::key("k1")]);
        assert!(is_ready(changes.changed()));
        assert!(!is_ready(changes.changed()));
    }
}

#[tokio::test]
async fn change_wakes_a_stream_that_waits() {
    let (_one, other, lists) = two();
    let waiting = tokio::spawn({
        let lists = lists.clone();
        async move { lists.changes().changed().await }
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    other.replace([]);
    waiting.await.unwrap();
}

#[test]
fn dropped_list_is_no_change() {
    let (one, other, lists) = two();
    let mut changes = lists.changes();
    drop((one, lists));
    assert!(!is_ready(changes.changed()));
    other.replace([]);
    assert!(is_ready(changes.changed()));
    drop(other);
    assert!(!is_ready(changes.changed()));
    assert!(!is_ready(DenyLists::default().changes().changed()));
}

/// Reads the generation when it is woken.
struct GenerationWaker {
    list: DenyList,
    seen: AtomicU64,
}

impl Wake for GenerationWaker {
    fn wake(self: Arc<Self>) {
        self.seen.store(self.list.generation(), Ordering::SeqCst);
    }
}

#[test]
fn stream_is_woken_after_the_generation_has_increased() {
    let list = DenyList::new();
    let mut lists = DenyLists::default();
    lists.add(list.clone());
    let waker = Arc::new(GenerationWaker { list: list.clone(), seen: 0.into() });
    let mut changes = lists.changes();
    let mut changed = pin!(changes.changed());
    let by_generation = Waker::from(Arc::clone(&waker));
    assert!(changed.as_mut().poll(&mut Context::from_waker(&by_generation)).is_pending());
    list.replace([]);
    assert_eq!(waker.seen.load(Ordering::SeqCst), 1);
}
