//! A recorder that renders what it has recorded in Prometheus' text format. A service uses an exporter, such as the crate
//! metrics-exporter-prometheus; this one spares the examples its dependencies.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};

/// Cheap to clone; clones share what was recorded.
#[derive(Clone, Default)]
pub(crate) struct Prometheus(Arc<Mutex<Recorded>>);

#[derive(Default)]
struct Recorded {
    help: BTreeMap<String, String>,
    counters: Families<AtomicU64>,
    gauges: Families<AtomicU64>,
    summaries: Families<Summary>,
}

/// The series of each metric, by their labels as text.
type Families<V> = BTreeMap<String, BTreeMap<String, Arc<V>>>;

/// A histogram without buckets. Its average is `_sum` divided by `_count`.
#[derive(Default)]
struct Summary(Mutex<(u64, f64)>);

impl HistogramFn for Summary {
    fn record(&self, value: f64) {
        let mut summary = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        summary.0 += 1;
        summary.1 += value;
    }
}

impl Prometheus {
    /// The text of a scrape.
    pub(crate) fn render(&self) -> String {
        let recorded = self.recorded();
        let mut text = Text { help: &recorded.help, text: String::new() };
        text.families("counter", &recorded.counters, |text, name, labels, value| {
            text.sample(name, labels, value.load(Ordering::Relaxed) as f64);
        });
        text.families("gauge", &recorded.gauges, |text, name, labels, value| {
            text.sample(name, labels, f64::from_bits(value.load(Ordering::Relaxed)));
        });
        text.families("summary", &recorded.summaries, |text, name, labels, value| {
            let (count, sum) = *value.0.lock().unwrap_or_else(PoisonError::into_inner);
            text.sample(&format!("{name}_sum"), labels, sum);
            text.sample(&format!("{name}_count"), labels, count as f64);
        });
        text.text
    }

    fn recorded(&self) -> MutexGuard<'_, Recorded> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, name: &KeyName, help: &str) {
        self.recorded().help.insert(name.as_str().to_owned(), help.to_owned());
    }
}

struct Text<'r> {
    help: &'r BTreeMap<String, String>,
    text: String,
}

impl Text<'_> {
    fn families<V>(
        &mut self,
        kind: &str,
        families: &Families<V>,
        sample: impl Fn(&mut Self, &str, &str, &V),
    ) {
        for (name, series) in families {
            if let Some(help) = self.help.get(name) {
                let _ = writeln!(self.text, "# HELP {name} {help}");
            }
            let _ = writeln!(self.text, "# TYPE {name} {kind}");
            series.iter().for_each(|(labels, value)| sample(self, name, labels, value));
        }
    }

    fn sample(&mut self, name: &str, labels: &str, value: f64) {
        let _ = writeln!(self.text, "{name}{labels} {value}");
    }
}

/// The value of a series, which is made at its first use.
fn series<V: Default>(families: &mut Families<V>, key: &Key) -> Arc<V> {
    let label = |label: &metrics::Label| {
        let value = label.value().replace('\\', r"\\").replace('"', "\\\"").replace('\n', r"\n");
        format!("{}=\"{value}\"", label.key())
    };
    let labels: Vec<_> = key.labels().map(label).collect();
    let labels = match &*labels {
        [] => String::new(),
        labels => format!("{{{}}}", labels.join(",")),
    };
    Arc::clone(families.entry(key.name().to_owned()).or_default().entry(labels).or_default())
}

impl Recorder for Prometheus {
    fn describe_counter(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_gauge(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn describe_histogram(&self, name: KeyName, _: Option<Unit>, help: SharedString) {
        self.describe(&name, &help);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(series(&mut self.recorded().counters, key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(series(&mut self.recorded().gauges, key))
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::from_arc(series(&mut self.recorded().summaries, key))
    }
}
