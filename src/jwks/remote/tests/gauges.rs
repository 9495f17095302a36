//! The gauges, which change with time alone.

use std::time::Duration;

use metrics_util::debugging::{DebugValue, DebuggingRecorder, Snapshotter};
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::endpoint::{Behaviour, Endpoint};
use super::guarantees::OLD;
use super::lifecycle::remote;
use crate::jwks::remote::limits::Limits;

/// The value, or zero if it was not updated since the last call: a snapshot clears it.
fn stale_in(snapshotter: &Snapshotter) -> f64 {
    let metrics = snapshotter.snapshot().into_vec().into_iter();
    let mut values = metrics
        .filter(|(key, ..)| key.key().name() == "tower_m2m_jwks_stale_in_seconds")
        .map(|(_, _, _, value)| value);
    match values.next() {
        Some(DebugValue::Gauge(seconds)) => seconds.into_inner(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn staleness_is_up_to_date_between_and_during_fetches() {
    let recorder = DebuggingRecorder::new();
    let snapshotter = recorder.snapshotter();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    metrics::with_local_recorder(&recorder, || {
        runtime.block_on(async {
            let endpoint = Endpoint::listing(&[OLD]);
            let limits = Limits { timeout: Duration::from_secs(60), ..Limits::default() };
            let (jwks, _) = remote(&endpoint, limits);
            jwks.ready().await.unwrap();
            endpoint.set(Behaviour::Hangs);
            let mut scraped = 0.0;
            // Through the time without a fetch, and through some fetches of 60 s.
            for second in (0..7200).step_by(7) {
                sleep(Duration::from_secs(7)).await;
                let updated = stale_in(&snapshotter);
                scraped = if updated == 0.0 { scraped } else { updated };
                let late = scraped - jwks.health().usable_for.as_secs_f64();
                assert!((0.0..=15.0).contains(&late), "{late} s after {second} s");
            }
            assert!(endpoint.fetches().0 > 3);
        });
    });
}
