//! A metrics recorder that reads the key set. It deadlocks if a metric is recorded under a lock.

use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use metrics::{Counter, Gauge, Histogram, Key, KeyName, Metadata, Recorder, SharedString, Unit};
use tokio::runtime::Builder;
use tokio::time::sleep;

use super::endpoint::{Behaviour, Endpoint};
use super::guarantees::{NEW, OLD, request};
use super::lifecycle::remote;
use crate::clock::Clock;
use crate::jose::Algorithm;
use crate::jwks::remote::handle::RemoteJwks;
use crate::jwks::remote::limits::Limits;

/// The test reports a deadlock after this time. It only ends a hang.
const DEADLOCK_TIMEOUT: Duration = Duration::from_secs(120);

struct ReadingRecorder {
    jwks: RemoteJwks,
    clock: Clock,
}

impl ReadingRecorder {
    fn read(&self) {
        let _ = (self.jwks.health(), self.jwks.to_json(), format!("{:?}", self.jwks));
        for kid in [OLD.kid(), NEW.kid(), "k9".to_owned()] {
            self.jwks.look_up(Some(&kid), Algorithm::EdDSA, self.clock.unix_now());
        }
        self.jwks.bad_signature_seen();
    }
}

impl Recorder for ReadingRecorder {
    fn describe_counter(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_gauge(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn describe_histogram(&self, _: KeyName, _: Option<Unit>, _: SharedString) {}

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        // Recorded by a look-up of an unknown key: `read` would recurse.
        if key.name() != "tower_m2m_jwks_fetch_limit_refusals_total" {
            self.read();
        }
        Counter::noop()
    }

    fn register_gauge(&self, _: &Key, _: &Metadata<'_>) -> Gauge {
        self.read();
        Gauge::noop()
    }

    fn register_histogram(&self, _: &Key, _: &Metadata<'_>) -> Histogram {
        self.read();
        Histogram::noop()
    }
}

async fn rotate_and_fail(endpoint: &Endpoint, jwks: &RemoteJwks, clock: &Clock) {
    jwks.ready().await.unwrap();
    for behaviour in [Behaviour::Fails, Behaviour::Hangs, Behaviour::SendsHtml, Behaviour::Responds]
    {
        endpoint.set(behaviour);
        let _ = jwks.refresh().await;
        let _ = request(jwks, clock, "k8").await;
    }
    endpoint.world().listed = [(NEW.kid, NEW.material)].into();
    jwks.refresh().await.unwrap();
    // Scheduled fetches and updates of `tower_m2m_jwks_stale_in_seconds`.
    sleep(Duration::from_secs(7200)).await;
    assert!(jwks.health().running);
}

#[test]
fn recorder_that_reads_the_key_set_never_deadlocks() {
    let (done, finished) = channel();
    // In its own thread, because a deadlocked one never ends.
    let thread = std::thread::spawn(move || {
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        let endpoint = Endpoint::listing(&[OLD]);
        let (jwks, clock) = runtime.block_on(async { remote(&endpoint, Limits::default()) });
        let recorder = ReadingRecorder { jwks: jwks.clone(), clock: clock.clone() };
        metrics::with_local_recorder(&recorder, || {
            runtime.block_on(rotate_and_fail(&endpoint, &jwks, &clock))
        });
        done.send(()).unwrap();
    });
    assert_ne!(
        finished.recv_timeout(DEADLOCK_TIMEOUT),
        Err(RecvTimeoutError::Timeout),
        "a deadlock"
    );
    thread.join().unwrap();
}
