//! Two servers behind one URL that list different keys.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::endpoint::{Behaviour, Endpoint, Etags, TestKey};
use super::guarantees::{NEW, OLD, has, request};
use super::lifecycle::remote;
use crate::clock::Clock;
use crate::jose::Algorithm;
use crate::jwks::remote::fetch::FetchCause;
use crate::jwks::remote::handle::RemoteJwks;
use crate::jwks::remote::limits::Limits;

/// A key that the other server lists.
const OTHER: TestKey = TestKey { kid: 2, material: 0 };

const HOUR: u64 = 3600;

/// A key set that has seen the keys of both servers.
async fn flapping(max_age: u64, etags: Etags) -> (Endpoint, RemoteJwks, Clock) {
    let endpoint = Endpoint::listing(&[OLD, NEW, OTHER]);
    {
        let mut world = endpoint.world();
        (world.is_flapping, world.max_age, world.etags) = (true, Some(max_age), etags);
    }
    let (jwks, clock) = remote(&endpoint, Limits::default());
    for key in [NEW, OTHER, NEW] {
        while request(&jwks, &clock, &key.kid()).await.is_err() {
            sleep(Duration::from_millis(500)).await;
        }
    }
    (endpoint, jwks, clock)
}

/// Like [`flapping`], after `NEW` was removed and has expired.
async fn flapping_without_new(max_age: u64, etags: Etags) -> (Endpoint, RemoteJwks, Clock) {
    let (endpoint, jwks, clock) = flapping(max_age, etags).await;
    sleep(Duration::from_secs(3 * max_age)).await;
    assert!(has(&jwks, &clock, NEW) && has(&jwks, &clock, OTHER), "{max_age}");
    endpoint.world().listed.remove(&NEW.kid);
    sleep(Duration::from_secs(2 * max_age)).await;
    assert!(!has(&jwks, &clock, NEW), "{max_age}");
    assert!(has(&jwks, &clock, OLD) && has(&jwks, &clock, OTHER), "{max_age}");
    (endpoint, jwks, clock)
}

/// Uses each key every `step` seconds, beside an attacker's made-up kids. Returns the number of
/// refused requests.
async fn count_refused(jwks: &RemoteJwks, clock: &Clock, seconds: u64, step: u64) -> usize {
    let mut requests = JoinSet::new();
    for number in 0..seconds / step {
        let _ = jwks.look_up(Some(&number.to_string()), Algorithm::EdDSA, clock.unix_now());
        for key in [OLD, NEW, OTHER] {
            if !has(jwks, clock, key) {
                let (jwks, clock) = (jwks.clone(), clock.clone());
                requests.spawn(async move { request(&jwks, &clock, &key.kid()).await.is_err() });
            }
        }
        sleep(Duration::from_secs(step)).await;
    }
    requests.join_all().await.into_iter().filter(|refused| *refused).count()
}

#[tokio::test(start_paused = true)]
async fn no_token_is_refused_while_two_lists_flap() {
    for (max_age, hours, step) in [(30, 1, 1), (600, 3, 5), (HOUR, 12, 15)] {
        for etags in [Etags::None, Etags::Honest, Etags::Constant] {
            let (endpoint, jwks, clock) = flapping(max_age, etags).await;
            let refused = count_refused(&jwks, &clock, hours * HOUR, step).await;
            assert_eq!(refused, 0, "{max_age} {etags:?}");
            let scheduled = count_scheduled(&endpoint);
            // An endpoint with one list gets 1.4 in each lifetime at most.
            let limit = 4 * (hours * HOUR / max_age) + 4;
            assert!(scheduled <= limit, "{scheduled} fetches, {max_age} {etags:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn flapping_keys_last_through_an_outage_of_20_h() {
    for max_age in [30, 600, HOUR] {
        let (endpoint, jwks, clock) = flapping(max_age, Etags::None).await;
        assert_eq!(count_refused(&jwks, &clock, 4 * max_age, max_age / 30).await, 0, "{max_age}");
        endpoint.set(Behaviour::Refuses);
        let before = count_scheduled(&endpoint);
        assert_eq!(count_refused(&jwks, &clock, 20 * HOUR, 30).await, 0, "{max_age}");
        assert!(count_scheduled(&endpoint) - before < 20 * 120, "faster than the back-off");
        endpoint.set(Behaviour::Responds);
        assert_eq!(count_refused(&jwks, &clock, 4 * max_age, max_age / 30).await, 0, "{max_age}");
    }
}

#[tokio::test(start_paused = true)]
async fn flapping_key_expires_within_twice_the_lifetime() {
    for max_age in [30, 600, HOUR] {
        flapping_without_new(max_age, Etags::Honest).await;
    }
}

#[tokio::test(start_paused = true)]
async fn failed_fetch_revives_no_expired_key() {
    for max_age in [30, 600, HOUR] {
        let (endpoint, jwks, clock) = flapping_without_new(max_age, Etags::None).await;
        endpoint.set(Behaviour::Refuses);
        jwks.refresh().await.unwrap_err();
        assert!(!has(&jwks, &clock, NEW), "in the outage, {max_age}");
        assert!(has(&jwks, &clock, OLD) && has(&jwks, &clock, OTHER), "{max_age}");
        endpoint.set(Behaviour::Responds);
        sleep(Duration::from_secs(max_age)).await;
        assert!(!has(&jwks, &clock, NEW), "after the outage, {max_age}");
    }
}

fn count_scheduled(endpoint: &Endpoint) -> u64 {
    let world = endpoint.world();
    world.fetches.iter().filter(|fetch| fetch.cause.is_scheduled()).count() as u64
}

#[tokio::test(start_paused = true)]
async fn unlisted_key_is_looked_for_until_it_expires() {
    let endpoint = Endpoint::listing(&[OLD, NEW]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    let listed = Instant::now();
    endpoint.world().listed.remove(&NEW.kid);
    request(&jwks, &clock, "k9").await.unwrap_err();
    assert!(has(&jwks, &clock, NEW), "a response alone expired the key");
    assert_eq!(jwks.health().keys, 2);

    sleep(Duration::from_secs(HOUR - 2) - listed.elapsed()).await;
    assert!(has(&jwks, &clock, NEW));
    sleep(Duration::from_secs(2)).await;
    assert!(!has(&jwks, &clock, NEW));
    assert_eq!(jwks.health().keys, 1);
    let is_look = |cause| cause == FetchCause::UnlistedKey;
    let looks = endpoint.world().fetches.iter().filter(|fetch| is_look(fetch.cause)).count();
    assert!((10..=13).contains(&looks), "{looks}");
}

#[tokio::test(start_paused = true)]
async fn unlisted_key_expires_in_an_outage() {
    // The thief of the key blocks the endpoint after its removal.
    let endpoint = Endpoint::listing(&[OLD, NEW]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    let removed = Instant::now();
    endpoint.world().listed.remove(&NEW.kid);
    request(&jwks, &clock, "k9").await.unwrap_err();
    endpoint.set(Behaviour::Refuses);
    sleep(Duration::from_secs(HOUR - 2) - removed.elapsed()).await;
    assert!(has(&jwks, &clock, NEW) && has(&jwks, &clock, OLD));
    sleep(Duration::from_secs(2)).await;
    assert!(!has(&jwks, &clock, NEW) && has(&jwks, &clock, OLD));
}

#[tokio::test(start_paused = true)]
async fn refresh_expires_the_keys_that_its_response_lacks() {
    // Also if a scheduled fetch is due at the same moment.
    for is_due in [false, true] {
        let endpoint = Endpoint::listing(&[OLD, NEW]);
        let (jwks, clock) = remote(&endpoint, Limits::default());
        jwks.ready().await.unwrap();
        endpoint.world().listed.remove(&NEW.kid);
        if is_due {
            jwks.shared().abort_task();
            sleep(Duration::from_secs(HOUR * 9 / 10)).await;
        }
        jwks.refresh().await.unwrap();
        assert!(!has(&jwks, &clock, NEW) && has(&jwks, &clock, OLD), "due: {is_due}");
    }
}

#[tokio::test(start_paused = true)]
async fn lying_validators_hide_a_change_for_at_most_max_age() {
    for max_age in [30, 300, HOUR] {
        let endpoint = Endpoint::listing(&[OLD, NEW]);
        (endpoint.world().etags, endpoint.world().max_age) = (Etags::Constant, Some(max_age));
        let (jwks, clock) = remote(&endpoint, Limits::default());
        jwks.ready().await.unwrap();
        endpoint.world().listed.remove(&NEW.kid);
        sleep(Duration::from_secs(HOUR + max_age)).await;
        assert!(!has(&jwks, &clock, NEW), "{max_age}");
        endpoint.world().listed.insert(OTHER.kid, OTHER.material);
        assert!(request(&jwks, &clock, &OTHER.kid()).await.is_ok(), "{max_age}");
    }
}
