//! How long a stream stays open while the key of its token changes:
//! [`ServiceClaims::expired`](crate::ServiceClaims::expired).

use std::time::Duration;

use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::endpoint::{Behaviour, Endpoint};
use super::guarantees::{NEW, OLD};
use super::lifecycle::remote;
use crate::clock::Clock;
use crate::jwks::remote::handle::RemoteJwks;
use crate::jwks::remote::limits::Limits;
use crate::verify::Verifier;

/// A machine that was suspended for this long has a late fetch task, and keys that are not stale.
const NIGHT: i64 = 12 * 3600;

/// A stream of a caller whose token is valid for a year, signed with the key `OLD`.
struct Stream {
    endpoint: Endpoint,
    jwks: RemoteJwks,
    clock: Clock,
    opened: Instant,
    /// The seconds until the token ended.
    ended: JoinHandle<f64>,
}

impl Stream {
    async fn open() -> Self {
        let endpoint = Endpoint::listing(&[OLD, NEW]);
        let (jwks, clock) = remote(&endpoint, Limits::default());
        let verifier = Verifier::new(jwks.clone()).on_clock(clock.clone());
        let exp = clock.unix_now() + 365 * 86_400;
        let claims = format!(r#"{{"source":"microservice","exp":{exp}}}"#);
        let claims = verifier.verify(&OLD.sign(&claims)).await.unwrap();
        let opened = Instant::now();
        let ended = tokio::spawn(async move {
            claims.expired().await;
            opened.elapsed().as_secs_f64()
        });
        Self { endpoint, jwks, clock, opened, ended }
    }

    /// Sleeps until this many seconds after the stream was opened.
    async fn sleep_until(&self, second: u64) {
        tokio::time::sleep_until(self.opened + Duration::from_secs(second)).await;
    }

    /// When the stream ended, in seconds. `None` if it is still open after this many seconds.
    async fn ended_within(self, seconds: u64) -> Option<f64> {
        self.sleep_until(seconds).await;
        if self.ended.is_finished() { Some(self.ended.await.unwrap()) } else { None }
    }
}

#[tokio::test(start_paused = true)]
async fn stream_survives_a_suspension_of_the_machine() {
    let stream = Stream::open().await;
    stream.sleep_until(1).await;
    stream.clock.shift(NIGHT);
    let fetches = stream.endpoint.fetches().0;
    // The stream's own check starts the fetch.
    stream.sleep_until(9).await;
    assert_eq!(stream.endpoint.fetches().0, fetches);
    stream.sleep_until(11).await;
    assert_eq!(stream.endpoint.fetches().0, fetches + 1);
    assert_eq!(stream.ended_within(3600).await, None);
}

#[tokio::test(start_paused = true)]
async fn stream_survives_a_slow_fetch_after_a_suspension() {
    // (seconds that the set is stale, latency in seconds, end of the stream)
    let stale = NIGHT + 24 * 3600;
    for (shift, latency, ended) in [(NIGHT, 4, None), (stale, 4, None), (stale, 60, Some(20.0))] {
        let stream = Stream::open().await;
        stream.sleep_until(1).await;
        stream.clock.shift(shift);
        stream.endpoint.world().latency = Duration::from_secs(latency);
        assert_eq!(stream.ended_within(3600).await, ended, "{shift} {latency}");
    }
}

#[tokio::test(start_paused = true)]
async fn stream_ends_when_the_key_set_is_stale() {
    let stream = Stream::open().await;
    stream.endpoint.set(Behaviour::Refuses);
    // A lifetime of 1 h, `stale_if_error` of 24 h, and at most two checks.
    let ended = stream.ended_within(26 * 3600).await.unwrap();
    assert!((90_000.0..=90_020.0).contains(&ended), "{ended}");
}

#[tokio::test(start_paused = true)]
async fn stream_ends_within_20_s_after_refresh_dropped_its_key() {
    let stream = Stream::open().await;
    stream.sleep_until(5).await;
    stream.endpoint.world().listed.remove(&OLD.kid);
    stream.jwks.refresh().await.unwrap();
    let (fetches, requested) = stream.endpoint.fetches();
    let (endpoint, ended) = (stream.endpoint.clone(), stream.ended_within(60).await);
    assert_eq!(ended, Some(20.0));
    assert_eq!(endpoint.fetches(), (fetches + 1, requested + 1), "one fetch looks for the key");
}

#[tokio::test(start_paused = true)]
async fn stream_survives_if_a_dropped_key_is_listed_again() {
    let stream = Stream::open().await;
    stream.sleep_until(5).await;
    let material = stream.endpoint.world().listed.remove(&OLD.kid).unwrap();
    stream.jwks.refresh().await.unwrap();
    // The fetch of the stream's first check finds the key, which is another object now.
    stream.endpoint.world().listed.insert(OLD.kid, material);
    stream.sleep_until(105).await;
    assert!(!stream.ended.is_finished());
    // When it is dropped for good, the grace begins anew.
    stream.endpoint.world().listed.remove(&OLD.kid);
    stream.jwks.refresh().await.unwrap();
    assert_eq!(stream.ended_within(200).await, Some(120.0));
}

#[tokio::test(start_paused = true)]
async fn stream_ends_at_the_next_check_if_its_kid_names_another_key() {
    let stream = Stream::open().await;
    stream.sleep_until(5).await;
    stream.endpoint.world().listed.insert(OLD.kid, 1);
    stream.jwks.refresh().await.unwrap();
    assert_eq!(stream.ended_within(60).await, Some(10.0));
}

#[tokio::test(start_paused = true)]
async fn thousands_of_streams_take_no_place_of_a_pending_request() {
    let stream = Stream::open().await;
    let verifier = Verifier::new(stream.jwks.clone()).on_clock(stream.clock.clone());
    let exp = stream.clock.unix_now() + 365 * 86_400;
    let token = OLD.sign(&format!(r#"{{"source":"microservice","exp":{exp}}}"#));
    let claims = verifier.verify(&token).await.unwrap();
    let streams: Vec<_> = (0..2000).map(|_| tokio::spawn(claims.expired())).collect();
    stream.sleep_until(1).await;
    stream.endpoint.world().latency = Duration::from_secs(4);
    stream.clock.shift(NIGHT + 24 * 3600);
    // All of them wait for the fetch, and so does a request.
    stream.sleep_until(11).await;
    assert!(verifier.verify(&token).await.is_ok());
    assert!(stream.opened.elapsed() > Duration::from_secs(13), "the fetch was over");
    assert!(streams.iter().all(|stream| !stream.is_finished()));
}
