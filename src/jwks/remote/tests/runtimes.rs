//! The fetch task when its runtime is shut down or not driven, and after a suspension.

use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::{Handle, Runtime};
use tokio::task::yield_now;
use tokio::time::{Instant, advance, sleep};

use super::endpoint::{Behaviour, Endpoint};
use super::guarantees::{NEW, OLD, has, request};
use super::lifecycle::{paused, remote};
use crate::clock::Clock;
use crate::jose::{Algorithm, Jwk};
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::error::FetchError;
use crate::jwks::remote::fetch::FetchCause;
use crate::jwks::remote::handle::RemoteJwks;
use crate::jwks::remote::limits::Limits;
use crate::rejection::{Rejection, RejectionReason};

/// A key set whose task was started on `runtime`.
fn loaded_on(runtime: &Runtime, endpoint: &Endpoint) -> (RemoteJwks, Clock) {
    runtime.block_on(async {
        let (jwks, clock) = remote(endpoint, Limits::default());
        jwks.ready().await.unwrap();
        (jwks, clock)
    })
}

/// The listed key, as a cached token holds it.
fn held(jwks: &RemoteJwks, clock: &Clock) -> Arc<Jwk> {
    let Lookup::Found(key) = jwks.look_up(Some(&OLD.kid()), Algorithm::EdDSA, clock.unix_now())
    else {
        panic!("a listed key is not found");
    };
    key
}

#[test]
fn task_starts_on_first_use_and_ends_with_the_last_handle() {
    let runtime = paused();
    runtime.block_on(async {
        let endpoint = Endpoint::listing(&[OLD]);
        let (jwks, clock) = remote(&endpoint, Limits::default());
        let tasks = || Handle::current().metrics().num_alive_tasks();
        assert_eq!(tasks(), 0);
        jwks.ready().await.unwrap();
        assert_eq!(tasks(), 1);
        let shared = Arc::downgrade(jwks.shared());
        let other = jwks.clone();
        drop(jwks);
        tokio::task::yield_now().await;
        assert!(has(&other, &clock, OLD));
        assert_eq!(tasks(), 1);
        drop(other);
        tokio::task::yield_now().await;
        assert_eq!(tasks(), 0);
        assert!(shared.upgrade().is_none());
    });
}

#[test]
fn cache_outlives_its_first_runtime() {
    let endpoint = Endpoint::listing(&[OLD]);
    let first = paused();
    let (jwks, clock) = first.block_on(async { remote(&endpoint, Limits::default()) });
    first.block_on(jwks.ready()).unwrap();
    drop(first);
    assert!(!jwks.health().running);
    assert!(has(&jwks, &clock, OLD), "the set is usable without a task and a runtime");

    endpoint.world().listed.insert(NEW.kid, NEW.material);
    let second = paused();
    assert!(second.block_on(request(&jwks, &clock, &NEW.kid())).is_ok());
    assert!(jwks.health().running);
}

#[test]
fn unknown_key_outside_a_runtime_is_refused() {
    let endpoint = Endpoint::listing(&[OLD]);
    let runtime = paused();
    let (jwks, clock) = runtime.block_on(async { remote(&endpoint, Limits::default()) });
    let refused = |kid: &str| match jwks.look_up(Some(kid), Algorithm::EdDSA, clock.unix_now()) {
        Lookup::Refused(err) => Rejection::from(err).reason(),
        _ => panic!("not refused"),
    };
    assert_eq!(refused("k0"), RejectionReason::FetchFailed);
    runtime.block_on(jwks.ready()).unwrap();
    assert!(has(&jwks, &clock, OLD));
    assert_eq!(refused("k9"), RejectionReason::FetchFailed);
}

#[tokio::test(start_paused = true)]
async fn task_restarts_after_a_panic_and_its_set_stays_in_use() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    endpoint.set(Behaviour::Panics);
    assert_eq!(jwks.refresh().await, Err(FetchError::NotRunning));
    endpoint.set(Behaviour::Responds);
    endpoint.world().listed.insert(NEW.kid, NEW.material);
    assert!(has(&jwks, &clock, OLD));
    assert!(jwks.health().running);
    assert!(request(&jwks, &clock, &NEW.kid()).await.is_ok());
}

#[test]
fn waiting_refresh_restarts_the_task_on_its_own_runtime() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (first, second) = (paused(), paused());
    let (jwks, clock) = first.block_on(async { remote(&endpoint, Limits::default()) });
    first.block_on(jwks.ready()).unwrap();
    second.block_on(async {
        let refresh = tokio::spawn({
            let jwks = jwks.clone();
            async move { jwks.refresh().await }
        });
        tokio::task::yield_now().await;
        // Until now the task is pending on the first runtime, which is not polled.
        first.shutdown_background();
        refresh.await.unwrap().unwrap();
        assert!(has(&jwks, &clock, OLD));
    });
}

/// Each runtime has a paused clock of its own, which advances while the runtime is driven.
#[test]
fn new_key_is_found_while_the_first_runtime_is_not_driven() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (first, second) = (paused(), paused());
    let (jwks, clock) = loaded_on(&first, &endpoint);
    endpoint.world().listed.insert(NEW.kid, NEW.material);
    second.block_on(async {
        let start = Instant::now();
        assert!(request(&jwks, &clock, &NEW.kid()).await.is_ok());
        assert_eq!(start.elapsed(), Duration::from_millis(5020));
        assert!(jwks.health().running);
    });
    first.block_on(async {
        // The old task ends when its runtime is driven again.
        yield_now().await;
        assert_eq!(first.metrics().num_alive_tasks(), 0);
    });
    assert!(jwks.shared().is_running());
    assert_eq!(endpoint.world().violation, None);
}

#[test]
fn removed_key_expires_while_its_runtime_is_not_driven() {
    let endpoint = Endpoint::listing(&[OLD, NEW]);
    endpoint.world().max_age = Some(600);
    let (first, second) = (paused(), paused());
    let (jwks, clock) = loaded_on(&first, &endpoint);
    let cached = held(&jwks, &clock);
    endpoint.world().listed.remove(&OLD.kid);
    second.block_on(async {
        // Without a use of the key only a probe would notice that the task is late.
        advance(Duration::from_secs(600)).await;
        assert!(!cached.is_usable(clock.unix_now()), "a cached token must look its key up");
        assert!(has(&jwks, &clock, OLD), "the look-up does not wait");
        assert!(!jwks.health().last_fetch.unwrap().is_zero());
        sleep(Duration::from_secs(1)).await;
        assert!(!has(&jwks, &clock, OLD) && has(&jwks, &clock, NEW));
    });
}

#[test]
fn waiting_look_up_outlives_the_runtime_that_fetches() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (first, second) = (paused(), paused());
    let (jwks, clock) = loaded_on(&first, &endpoint);
    endpoint.world().listed.insert(NEW.kid, NEW.material);
    // The look-up joins a fetch that never ends, because its runtime does.
    endpoint.world().latency = Duration::from_secs(4);
    first.block_on(async {
        let look_up = jwks.look_up(Some(&NEW.kid()), Algorithm::EdDSA, clock.unix_now());
        assert!(matches!(look_up, Lookup::Pending(_)));
        sleep(Duration::from_secs(1)).await;
    });
    endpoint.world().latency = Duration::from_millis(20);
    second.block_on(async {
        let waiting = tokio::spawn({
            let (jwks, clock) = (jwks.clone(), clock.clone());
            async move { request(&jwks, &clock, &NEW.kid()).await.is_ok() }
        });
        yield_now().await;
        first.shutdown_background();
        assert!(waiting.await.unwrap());
    });
    let causes: Vec<_> = endpoint.world().fetches[1..].iter().map(|fetch| fetch.cause).collect();
    assert_eq!(causes, [FetchCause::UnknownKey; 2]);
}

#[test]
fn refresh_outlives_the_runtime_that_fetches() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (first, second) = (paused(), paused());
    let (jwks, _) = loaded_on(&first, &endpoint);
    endpoint.world().latency = Duration::from_secs(4);
    first.block_on(async {
        let refresh = tokio::spawn({
            let jwks = jwks.clone();
            async move { jwks.refresh().await }
        });
        sleep(Duration::from_secs(1)).await;
        refresh.abort();
    });
    second.block_on(async {
        let refresh = tokio::spawn({
            let jwks = jwks.clone();
            async move { jwks.refresh().await }
        });
        yield_now().await;
        first.shutdown_background();
        refresh.await.unwrap().unwrap();
    });
}

#[test]
fn health_shows_that_the_task_is_late() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (first, second) = (paused(), paused());
    let (jwks, _) = loaded_on(&first, &endpoint);
    second.block_on(async {
        advance(Duration::from_secs(3600)).await;
        assert!(!jwks.shared().is_running());
    });
    // Outside a runtime no use can move the task, and the real clock has not reached its due time.
    assert!(jwks.health().running);
    second.block_on(async {
        assert!(jwks.health().running, "the use moved the task");
        assert!(jwks.health().last_fetch.unwrap().as_secs() >= 3599);
        sleep(Duration::from_secs(1)).await;
        assert_eq!(jwks.health().last_fetch, Some(Duration::from_millis(980)));
    });
}

#[tokio::test(start_paused = true)]
async fn suspended_machine_fetches_at_the_first_use() {
    let endpoint = Endpoint::listing(&[OLD, NEW]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    let cached = held(&jwks, &clock);
    endpoint.world().listed.remove(&OLD.kid);
    clock.shift(2 * 3600);
    assert!(!cached.is_usable(clock.unix_now()), "a cached token must look its key up");
    assert!(has(&jwks, &clock, OLD), "the look-up does not wait");
    sleep(Duration::from_secs(1)).await;
    assert!(!has(&jwks, &clock, OLD) && has(&jwks, &clock, NEW));
}

#[tokio::test(start_paused = true)]
async fn suspended_machine_fetches_within_a_minute_without_a_use() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    clock.shift(2 * 3600);
    sleep(Duration::from_secs(61)).await;
    assert_eq!(endpoint.fetches().0, 2);
}

#[tokio::test(start_paused = true)]
async fn refresh_does_not_interrupt_a_slow_fetch() {
    let endpoint = Endpoint::listing(&[OLD]);
    let limits = Limits { timeout: Duration::from_secs(30), ..Limits::default() };
    let (jwks, clock) = remote(&endpoint, limits);
    jwks.ready().await.unwrap();
    endpoint.world().latency = Duration::from_secs(12);
    // A webhook that fires every 3 s, while a fetch takes 12 s.
    let mut refreshes = Vec::new();
    for _ in 0..10 {
        refreshes.push(tokio::spawn({
            let jwks = jwks.clone();
            async move { jwks.refresh().await }
        }));
        sleep(Duration::from_secs(3)).await;
        assert!(jwks.health().running && has(&jwks, &clock, OLD));
    }
    for refresh in refreshes {
        refresh.await.unwrap().unwrap();
    }
    let world = endpoint.world();
    assert!(world.fetches.iter().all(|fetch| fetch.ended.is_some_and(|(_, good)| good)));
}
