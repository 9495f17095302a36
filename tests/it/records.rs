//! What a layer records about requests: events at `debug` and the counter.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use tokio::sync::Notify;
use tokio::time::timeout;

use crate::support::{Logs, TIMEOUT};

/// The counters of one thread.
#[derive(Clone, Default)]
pub(crate) struct Counters(Arc<Shared>);

thread_local! {
    // One for all records, because a layer uses the recorder of its first request.
    static COUNTERS: Counters = Counters::default();
}

#[derive(Default)]
struct Shared {
    counts: Mutex<BTreeMap<String, u64>>,
    registrations: AtomicUsize,
    counted: Notify,
}

struct Series {
    name: String,
    counters: Counters,
}

impl CounterFn for Series {
    fn increment(&self, value: u64) {
        *self.counters.0.counts.lock().unwrap().entry(self.name.clone()).or_default() += value;
        self.counters.0.counted.notify_one();
    }

    fn absolute(&self, _: u64) {
        unreachable!("requests are counted one by one")
    }
}

impl Recorder for Counters {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        if key.name() != "tower_m2m_requests_total" {
            return Counter::noop();
        }
        self.0.registrations.fetch_add(1, Ordering::SeqCst);
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let series = Series { name: labels.join(" "), counters: self.clone() };
        Counter::from_arc(Arc::new(series))
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

impl Counters {
    pub(crate) fn of_this_thread() -> Self {
        COUNTERS.with(Self::clone)
    }

    /// How many handles of the counter were made.
    pub(crate) fn registrations(&self) -> usize {
        self.0.registrations.load(Ordering::SeqCst)
    }

    /// The requests since the last call, by the labels `outcome`, `reason`, `protocol` and
    /// `enforced`.
    pub(crate) fn take(&self) -> Vec<(String, u64)> {
        std::mem::take(&mut *self.0.counts.lock().unwrap()).into_iter().collect()
    }

    /// Waits until this many requests are counted since the last [`take`](Self::take).
    pub(crate) async fn wait_for(&self, count: u64) {
        let wait = async {
            while self.0.counts.lock().unwrap().values().sum::<u64>() < count {
                self.0.counted.notified().await;
            }
        };
        timeout(TIMEOUT, wait).await.unwrap_or_else(|_| panic!("{count} requests not counted"));
    }
}

/// What was recorded about one request or several.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// The fields of each event `request refused`.
    pub(crate) refusals: Vec<String>,
    pub(crate) counts: Vec<(String, u64)>,
}

impl Record {
    /// This record, as an observing layer makes it.
    pub(crate) fn observed(self) -> Self {
        let observed = |text: String| text.replace("enforced=true", "enforced=false");
        Self {
            refusals: self.refusals.into_iter().map(observed).collect(),
            counts: self.counts.into_iter().map(|(labels, n)| (observed(labels), n)).collect(),
        }
    }
}

/// The log of this thread and its counters, recorded by `action`.
pub(crate) async fn record<T>(action: impl AsyncFnOnce(&Counters) -> T) -> (T, Record) {
    let counters = Counters::of_this_thread();
    counters.take();
    let (logs, _guard) = (Logs::of_this_thread(), metrics::set_default_local_recorder(&counters));
    let result = action(&counters).await;
    let text = logs.text();
    let events = text.lines().filter_map(|line| line.split_once("request refused "));
    let refusals = events.map(|(_, fields)| fields.to_owned()).collect();
    (result, Record { refusals, counts: counters.take() })
}
