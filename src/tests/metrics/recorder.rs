//! A recorder of every metric, with its labels.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use metrics::{
    Counter, CounterFn, Gauge, GaugeFn, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder,
    SharedString, Unit,
};

#[derive(Default)]
pub(super) struct Seen {
    described: Mutex<BTreeMap<String, Described>>,
    recorded: Mutex<BTreeMap<String, Recorded>>,
}

#[derive(Clone)]
pub(super) struct Described {
    pub(super) kind: &'static str,
    /// The name of the variant, or empty.
    pub(super) unit: String,
    pub(super) description: String,
}

#[derive(Clone)]
pub(super) struct Recorded {
    pub(super) kind: &'static str,
    /// The labels of each series, with their values.
    pub(super) series: BTreeSet<BTreeMap<String, String>>,
    /// Whether one of them was ever other than 0.
    pub(super) has_changed: bool,
    changed: Arc<Changed>,
}

#[derive(Default)]
struct Changed(AtomicBool);

impl Changed {
    fn record(&self, has_changed: bool) {
        self.0.fetch_or(has_changed, Ordering::Relaxed);
    }
}

impl CounterFn for Changed {
    fn increment(&self, value: u64) {
        self.record(value > 0);
    }

    fn absolute(&self, value: u64) {
        self.record(value > 0);
    }
}

impl GaugeFn for Changed {
    fn increment(&self, value: f64) {
        self.record(value != 0.0);
    }

    fn decrement(&self, value: f64) {
        self.record(value != 0.0);
    }

    fn set(&self, value: f64) {
        self.record(value != 0.0);
    }
}

impl HistogramFn for Changed {
    fn record(&self, value: f64) {
        Self::record(self, value > 0.0);
    }
}

impl Seen {
    pub(super) fn described(&self) -> BTreeMap<String, Described> {
        self.described.lock().unwrap().clone()
    }

    pub(super) fn recorded(&self) -> BTreeMap<String, Recorded> {
        let mut recorded = self.recorded.lock().unwrap().clone();
        for metric in recorded.values_mut() {
            metric.has_changed = metric.changed.0.load(Ordering::Relaxed);
        }
        recorded
    }

    fn describe(&self, kind: &'static str, name: &KeyName, unit: Option<Unit>, text: &str) {
        let unit = unit.map(|unit| format!("{unit:?}")).unwrap_or_default();
        let described = Described { kind, unit, description: text.to_owned() };
        let before = self.described.lock().unwrap().insert(name.as_str().to_owned(), described);
        assert!(before.is_none(), "{name:?} is described twice");
    }

    fn register(&self, kind: &'static str, key: &Key) -> Arc<Changed> {
        let mut recorded = self.recorded.lock().unwrap();
        let metric = recorded.entry(key.name().to_owned()).or_insert_with(|| Recorded {
            kind,
            series: BTreeSet::new(),
            has_changed: false,
            changed: Arc::default(),
        });
        assert_eq!(metric.kind, kind, "{} has two kinds", key.name());
        let labels = key.labels().map(|label| (label.key().to_owned(), label.value().to_owned()));
        metric.series.insert(labels.collect());
        Arc::clone(&metric.changed)
    }
}

impl Recorder for Seen {
    fn describe_counter(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("counter", &name, unit, &text);
    }

    fn describe_gauge(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("gauge", &name, unit, &text);
    }

    fn describe_histogram(&self, name: KeyName, unit: Option<Unit>, text: SharedString) {
        self.describe("histogram", &name, unit, &text);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.register("counter", key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.register("gauge", key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(self.register("histogram", key))
    }
}
