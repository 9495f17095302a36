//! The counter and the gauges of deny lists.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::runtime::Builder;
use tokio::time::{advance, sleep};

use super::super::entry::DenyEntry;
use super::super::list::DenyList;
use crate::clock::Clock;

/// The values of counters and gauges, by the metric's name and labels.
#[derive(Default)]
struct ValueRecorder {
    counters: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
    gauges: Mutex<BTreeMap<String, Arc<AtomicU64>>>,
}

fn register(metrics: &Mutex<BTreeMap<String, Arc<AtomicU64>>>, key: &Key) -> Arc<AtomicU64> {
    let labels = key.labels().map(|label| format!(" {}={}", label.key(), label.value()));
    let name = key.name().to_owned() + &labels.collect::<String>();
    let name = name.replace("tower_m2m_deny_list_", "");
    Arc::clone(metrics.lock().unwrap().entry(name).or_default())
}

impl ValueRecorder {
    /// The counters, then the gauges.
    fn values(&self) -> Vec<(String, f64)> {
        let of = |metrics: &Mutex<BTreeMap<String, Arc<AtomicU64>>>, to_f64: fn(u64) -> f64| {
            let metrics = metrics.lock().unwrap();
            let value = |metric: &AtomicU64| to_f64(metric.load(Ordering::Relaxed));
            metrics.iter().map(|(name, metric)| (name.clone(), value(metric))).collect::<Vec<_>>()
        };
        [of(&self.counters, |count| count as f64), of(&self.gauges, f64::from_bits)].concat()
    }
}

impl Recorder for ValueRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match key.name().starts_with("tower_m2m_deny_list_") {
            true => Counter::from_arc(register(&self.counters, key)),
            false => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match key.name().starts_with("tower_m2m_deny_list_") {
            true => Gauge::from_arc(register(&self.gauges, key)),
            false => Gauge::noop(),
        }
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        unreachable!("no histogram is registered")
    }
}

fn expected(values: &[(&str, f64)]) -> Vec<(String, f64)> {
    values.iter().map(|(name, value)| ((*name).to_owned(), *value)).collect()
}

#[test]
fn gauges_report_the_entries_and_their_age() {
    let recorder = ValueRecorder::default();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("denied.json");
    std::fs::write(&path, r#"[{"key":"k1"}]"#).unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let clock = Clock::driven(1_800_000_000);
            let (replaced, watched) =
                (DenyList::on_clock(clock.clone()), DenyList::on_clock(clock));
            replaced.replace([DenyEntry::key("k1"), DenyEntry::key("k2"), DenyEntry::key("")]);
            watched.watch_file(&path).unwrap();
            let named = |name: &str| format!("{name} file={}", path.display());
            let (age, entries) = (named("age_seconds"), named("entries"));
            let gauges = |watched_age, replaced_age| {
                expected(&[
                    ("age_seconds file=", replaced_age),
                    (&age, watched_age),
                    ("entries file=", 2.0),
                    (&entries, 1.0),
                ])
            };
            assert_eq!(recorder.values(), gauges(0.0, 0.0));
            std::fs::remove_file(&path).unwrap();
            // Until three reads have failed.
            sleep(Duration::from_secs(30)).await;
            sleep(Duration::from_millis(1)).await;
            assert_eq!(recorder.values(), gauges(30.0, 0.0));
            advance(Duration::from_millis(999)).await;
            let _ = replaced.health();
            assert_eq!(recorder.values(), gauges(30.0, 31.0));
        });
    });
}

#[cfg(feature = "testing")]
#[test]
fn hits_are_counted_for_new_and_cached_tokens() {
    use crate::testing::TestAuthority;

    let authority = TestAuthority::offline();
    let list = DenyList::new();
    list.replace([DenyEntry::claim("jti", "t1"), DenyEntry::claim("service", "orders")]);
    let verifier = authority.verifier().deny_list(list);
    let token = |service: &str, jti: &str| {
        authority.token().claim("service", service).claim("jti", jti).sign()
    };
    let (revoked, denied, good) = (token("a", "t1"), token("orders", "t2"), token("a", "t2"));
    let recorder = ValueRecorder::default();
    let runtime = Builder::new_current_thread().build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            for token in [&revoked, &revoked, &revoked, &denied, &denied, &good, &good] {
                let _ = verifier.verify(token).await;
            }
        });
    });
    let hits = [("hits_total reason=caller_denied", 2.0), ("hits_total reason=token_revoked", 3.0)];
    assert_eq!(recorder.values(), expected(&hits));
}
