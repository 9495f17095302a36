//! The metrics of the key set.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::time::sleep;

use super::endpoint::{Behaviour, Endpoint};
use super::guarantees::{OLD, request};
use super::lifecycle::{paused, remote};
use crate::jwks::remote::limits::Limits;

/// The values of counters and gauges, by the metric's name and labels.
#[derive(Default)]
struct ValueRecorder {
    counters: Metrics,
    gauges: Metrics,
}

#[derive(Default)]
struct Metrics(Mutex<BTreeMap<String, Arc<AtomicU64>>>);

impl Metrics {
    fn register(&self, key: &Key) -> Arc<AtomicU64> {
        let labels: Vec<_> =
            key.labels().map(|label| format!("{}={}", label.key(), label.value())).collect();
        let name = format!("{} {}", key.name(), labels.join(" "));
        Arc::clone(self.0.lock().unwrap().entry(name).or_default())
    }

    fn values(&self, to_f64: fn(u64) -> f64) -> Vec<(String, f64)> {
        let metrics = self.0.lock().unwrap();
        let value = |metric: &AtomicU64| to_f64(metric.load(Ordering::Relaxed));
        metrics.iter().map(|(name, metric)| (name.clone(), value(metric))).collect()
    }
}

impl ValueRecorder {
    /// Sorted by name and labels.
    fn values(&self) -> Vec<(String, f64)> {
        let mut values = self.counters.values(|count| count as f64);
        values.extend(self.gauges.values(f64::from_bits));
        values.sort_by(|one, other| one.0.cmp(&other.0));
        values
    }
}

impl Recorder for ValueRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        Counter::from_arc(self.counters.register(key))
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        Gauge::from_arc(self.gauges.register(key))
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        Histogram::noop()
    }
}

#[test]
fn metrics_report_fetches_refusals_keys_and_staleness() {
    let recorder = ValueRecorder::default();
    metrics::with_local_recorder(&recorder, || {
        paused().block_on(async {
            let endpoint = Endpoint::listing(&[OLD]);
            let (jwks, clock) = remote(&endpoint, Limits::default());
            jwks.ready().await.unwrap();
            for number in 0..4 {
                request(&jwks, &clock, &format!("random-{number}")).await.unwrap_err();
            }
            endpoint.set(Behaviour::Hangs);
            jwks.refresh().await.unwrap_err();
            // Until the gauge is updated.
            sleep(Duration::from_secs(20)).await;
        });
    });
    let mut seen = recorder.values();
    let endpoint = "endpoint=http://in-memory";
    assert_eq!(seen.pop().unwrap(), (format!("tower_m2m_jwks_waiting_requests {endpoint}"), 0.0));
    let stale_in = seen.pop().unwrap();
    assert_eq!(stale_in.0, format!("tower_m2m_jwks_stale_in_seconds {endpoint}"));
    assert!((89_900.0..89_990.0).contains(&stale_in.1), "{stale_in:?}");
    let fetches = |labels: &str| format!("tower_m2m_jwks_fetches_total {endpoint} {labels}");
    let expected = [
        (format!("tower_m2m_jwks_fetch_limit_refusals_total {endpoint}"), 2.0),
        (fetches("cause=refresh outcome=timeout"), 1.0),
        (fetches("cause=scheduled outcome=success"), 1.0),
        (fetches("cause=unknown_key outcome=success"), 2.0),
        (format!("tower_m2m_jwks_keys {endpoint}"), 1.0),
        (format!("tower_m2m_jwks_keys_removed_total {endpoint}"), 0.0),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn gauge_of_waiting_requests_falls_when_they_are_dropped() {
    let recorder = ValueRecorder::default();
    let waiting = || {
        let gauges = recorder.gauges.values(f64::from_bits);
        gauges.iter().find(|(name, _)| name.contains("_waiting_requests ")).unwrap().1
    };
    metrics::with_local_recorder(&recorder, || {
        paused().block_on(async {
            let endpoint = Endpoint::listing(&[OLD]);
            endpoint.set(Behaviour::Hangs);
            let (jwks, clock) = remote(&endpoint, Limits::default());
            let kid = OLD.kid();
            let mut requests: Vec<_> =
                (0..3).map(|_| Box::pin(request(&jwks, &clock, &kid))).collect();
            let mut cx = Context::from_waker(Waker::noop());
            for request in &mut requests {
                assert!(request.as_mut().poll(&mut cx).is_pending());
            }
            assert_eq!(waiting(), 3.0);
            requests.pop();
            assert_eq!(waiting(), 2.0);
            // It times out.
            requests.remove(0).await.unwrap_err();
            assert_eq!(waiting(), 1.0);
            drop(requests);
            assert_eq!(waiting(), 0.0);
        });
    });
}

#[test]
fn staleness_is_up_to_date_between_and_during_fetches() {
    let recorder = ValueRecorder::default();
    metrics::with_local_recorder(&recorder, || {
        paused().block_on(async {
            let endpoint = Endpoint::listing(&[OLD]);
            let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
            let (jwks, _) = remote(&endpoint, limits);
            jwks.ready().await.unwrap();
            endpoint.set(Behaviour::Hangs);
            // Through the time without a fetch, and through some fetches of 60 s.
            for second in (0..7200).step_by(7) {
                sleep(Duration::from_secs(7)).await;
                let gauges = recorder.gauges.values(f64::from_bits);
                let is_stale_in = |(name, _): &&(String, f64)| name.contains("_stale_in_seconds ");
                let (_, stale_in) = gauges.iter().find(is_stale_in).unwrap();
                let late = stale_in - jwks.health().usable_for.as_secs_f64();
                assert!((0.0..=15.0).contains(&late), "{late} s after {second} s");
            }
            assert!(endpoint.fetches().0 > 3);
        });
    });
}
