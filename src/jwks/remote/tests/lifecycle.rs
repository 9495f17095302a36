//! Start, end and restart of the task, and what the guarantees do not cover.

use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::endpoint::{Behaviour, Endpoint, Etags, TestKey};
use super::guarantees::{NEW, OLD, has, request};
use super::simulation::{remote_jwks, start_from};
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::jose::Algorithm;
use crate::jwks::error::{KeySetError, LookupError};
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::disk_cache::{CachedSet, DiskCache};
use crate::jwks::remote::error::FetchError;
use crate::jwks::remote::fetch::FetchCause;
use crate::jwks::remote::handle::RemoteJwks;
use crate::jwks::remote::limits::Limits;
use crate::jwks::remote::snapshot::Snapshot;
use crate::rejection::RejectionReason;

pub(super) fn remote(endpoint: &Endpoint, limits: Limits) -> (RemoteJwks, Clock) {
    let clock = Clock::driven(1_800_000_000);
    (remote_jwks(endpoint, limits, &clock, 7), clock)
}

pub(super) fn paused() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

#[tokio::test(start_paused = true)]
async fn thousand_requests_on_a_cold_cache_cause_one_fetch() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    let mut requests = JoinSet::new();
    for _ in 0..1000 {
        let (jwks, clock) = (jwks.clone(), clock.clone());
        requests.spawn(async move { request(&jwks, &clock, &OLD.kid()).await.is_ok() });
    }
    assert!(requests.join_all().await.into_iter().all(|found| found));
    assert_eq!(endpoint.fetches(), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn first_request_after_an_outage_waits_for_its_fetch() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    // Before the first set, and once the set is stale.
    for reason in [RejectionReason::KeysNotLoaded, RejectionReason::KeysStale] {
        endpoint.set(Behaviour::Refuses);
        let refused = request(&jwks, &clock, &OLD.kid()).await.unwrap_err();
        assert_eq!(refused.reason(), reason);
        endpoint.set(Behaviour::Responds);
        let start = Instant::now();
        assert!(request(&jwks, &clock, &OLD.kid()).await.is_ok(), "{reason:?}");
        assert_eq!(start.elapsed(), Duration::from_millis(20), "{reason:?}");
        endpoint.set(Behaviour::Refuses);
        sleep(Duration::from_secs(26 * 3600)).await;
    }
}

#[tokio::test(start_paused = true)]
async fn cold_cache_refuses_at_once_when_no_fetch_may_start() {
    let endpoint = Endpoint::listing(&[OLD]);
    endpoint.set(Behaviour::Refuses);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    // The first fetch, and two more for the requests.
    let start = Instant::now();
    for millis in [10, 20, 30, 30] {
        let refused = request(&jwks, &clock, &OLD.kid()).await.unwrap_err();
        assert_eq!(refused.reason(), RejectionReason::KeysNotLoaded);
        assert_eq!(start.elapsed(), Duration::from_millis(millis));
    }
    endpoint.set(Behaviour::Hangs);
    assert_eq!(jwks.ready().await, Err(FetchError::Timeout));
    endpoint.set(Behaviour::Responds);
    jwks.ready().await.unwrap();
    assert!(has(&jwks, &clock, OLD));
}

#[tokio::test(start_paused = true)]
async fn probe_alone_starts_the_first_fetch() {
    let probes: [fn(&RemoteJwks) -> bool; 2] =
        [RemoteJwks::is_ready, |jwks| !jwks.health().usable_for.is_zero()];
    for is_ready in probes {
        let endpoint = Endpoint::listing(&[OLD]);
        let (jwks, _) = remote(&endpoint, Limits::default());
        assert!(!is_ready(&jwks));
        sleep(Duration::from_secs(1)).await;
        assert!(is_ready(&jwks));
        endpoint.set(Behaviour::Refuses);
        sleep(Duration::from_secs(24 * 3600)).await;
        assert!(is_ready(&jwks), "in an outage");
        sleep(Duration::from_secs(3600)).await;
        assert!(!is_ready(&jwks), "stale");
    }
}

#[tokio::test(start_paused = true)]
async fn only_a_fetch_for_refresh_answers_it() {
    let clock = Clock::driven(1_800_000_000);
    let mut snapshot = Snapshot::new(&Limits::default(), &clock);
    let mut fail = |cause| {
        snapshot.start(cause, Deadline::after(Duration::ZERO, &clock), &clock);
        snapshot.fail(FetchError::Timeout, &clock);
        snapshot.refresh_result_after(0).cloned()
    };
    assert_eq!(fail(FetchCause::Scheduled), None);
    assert_eq!(fail(FetchCause::Refresh), Some(Err(FetchError::Timeout)));
}

#[tokio::test(start_paused = true)]
async fn requests_with_one_new_kid_share_one_fetch() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    endpoint.world().listed.insert(NEW.kid, NEW.material);
    let mut requests = JoinSet::new();
    for _ in 0..500 {
        let (jwks, clock) = (jwks.clone(), clock.clone());
        requests.spawn(async move { request(&jwks, &clock, &NEW.kid()).await.is_ok() });
    }
    assert!(requests.join_all().await.into_iter().all(|found| found));
    assert_eq!(endpoint.fetches(), (2, 1));
}

#[tokio::test(start_paused = true)]
async fn missing_kid_causes_one_fetch_in_10_s() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    for second in 0..10 {
        let refused = request(&jwks, &clock, "stale").await.unwrap_err();
        assert_eq!(refused.reason(), RejectionReason::UnknownKey);
        assert_eq!(endpoint.fetches().1, 1, "after {second} s");
        sleep(Duration::from_secs(1)).await;
    }
    request(&jwks, &clock, "stale").await.unwrap_err();
    assert_eq!(endpoint.fetches().1, 2);
}

#[tokio::test(start_paused = true)]
async fn negative_cache_holds_at_most_4096_kids() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, _) = remote(&endpoint, Limits::default());
    for number in 0..20_000 {
        jwks.shared().insert_missing(&format!("random-{number}"));
    }
    assert!(jwks.shared().count_missing() <= 4096);
}

#[tokio::test(start_paused = true)]
async fn queue_refuses_the_1025th_look_up() {
    let endpoint = Endpoint::listing(&[OLD]);
    endpoint.set(Behaviour::Hangs);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    let look_up =
        |number: usize| jwks.look_up(Some(&number.to_string()), Algorithm::EdDSA, clock.unix_now());
    let mut pending = Vec::new();
    for number in 0..1024 {
        let Lookup::Pending(key) = look_up(number) else {
            panic!("look-up {number} does not wait")
        };
        pending.push(key);
    }
    let Lookup::Refused(err) = look_up(1024) else { panic!("the 1025th look-up is not refused") };
    assert_eq!(err, LookupError::QueueFull);
    pending.pop();
    assert!(matches!(look_up(1024), Lookup::Pending(_)));
}

#[tokio::test(start_paused = true)]
async fn fetch_continues_when_its_request_is_dropped() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    let Lookup::Pending(key) = jwks.look_up(Some(&OLD.kid()), Algorithm::EdDSA, clock.unix_now())
    else {
        panic!("the look-up does not wait");
    };
    drop(key);
    sleep(Duration::from_secs(1)).await;
    assert!(has(&jwks, &clock, OLD));
    assert_eq!(endpoint.fetches().0, 1);
}

#[tokio::test(start_paused = true)]
async fn not_modified_renews_freshness_and_keeps_the_lifetime() {
    let endpoint = Endpoint::listing(&[OLD]);
    {
        let mut world = endpoint.world();
        (world.etags, world.max_age) = (Etags::Honest, Some(100));
    }
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    // The 304s have no `max-age`.
    endpoint.world().max_age = None;
    sleep(Duration::from_secs(1000)).await;
    assert!(has(&jwks, &clock, OLD));
    let (fetches, _) = endpoint.fetches();
    assert!((11..=15).contains(&fetches), "{fetches}");
    assert!(jwks.health().age.unwrap() < Duration::from_secs(100));
    assert_eq!(endpoint.world().violation, None);
}

#[tokio::test(start_paused = true)]
async fn bad_signatures_cause_one_fetch_a_minute() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    let reused = TestKey { material: 1, ..OLD };
    endpoint.world().listed.insert(reused.kid, reused.material);
    let caused = || {
        endpoint
            .world()
            .fetches
            .iter()
            .filter(|fetch| fetch.cause == FetchCause::BadSignature)
            .count()
    };
    for _ in 0..590 {
        jwks.bad_signature_seen();
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(caused(), 0, "the set is less than a minute old");
    for _ in 0..600 {
        jwks.bad_signature_seen();
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(caused(), 1);
    assert!(has(&jwks, &clock, reused) && !has(&jwks, &clock, OLD));
}

#[tokio::test(start_paused = true)]
async fn retry_after_blocks_fetches_for_unknown_keys() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    endpoint.set(Behaviour::AsksToRetryAfter(Duration::from_secs(120)));
    let refused = request(&jwks, &clock, "k9").await.unwrap_err();
    assert_eq!(refused.reason(), RejectionReason::FetchFailed);
    assert_eq!(endpoint.fetches(), (2, 1));
    for _ in 0..119 {
        assert_eq!(
            request(&jwks, &clock, "k9").await.unwrap_err().reason(),
            RejectionReason::FetchFailed
        );
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(endpoint.fetches(), (2, 1));
    sleep(Duration::from_secs(2)).await;
    request(&jwks, &clock, "k9").await.unwrap_err();
    assert_eq!(endpoint.fetches(), (3, 2));
}

#[test]
fn debug_shows_endpoint_and_key_count() {
    let jwks = RemoteJwks::new("http://localhost/jwks.json?secret=7f3a#x").unwrap();
    let expected =
        r#"RemoteJwks { endpoint: "http://localhost/jwks.json", keys: 0, running: false }"#;
    assert_eq!(format!("{jwks:?}"), expected);
}

#[tokio::test(start_paused = true)]
async fn preloaded_set_is_in_use_until_it_is_stale() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (first, _) = remote(&endpoint, Limits::default());
    first.ready().await.unwrap();
    let json = first.to_json().unwrap();
    endpoint.set(Behaviour::Refuses);

    let clock = Clock::driven(1_800_000_000);
    let (hour, day) = (Duration::from_secs(3600), Duration::from_secs(24 * 3600));
    let limits = Limits::default();
    let mut snapshot = Snapshot::new(&limits, &clock);
    let mut preload = |json: &[u8], age| snapshot.preload(json, age, hour, &limits, &clock);
    assert_eq!(preload(json.as_bytes(), hour + day), Err(KeySetError::TooOld));
    assert_eq!(preload(b"{}", hour), Err(KeySetError::NotAKeySet));
    preload(json.as_bytes(), hour).unwrap();
    let second = start_from(snapshot, &endpoint, limits, &clock, 7);
    assert!(has(&second, &clock, OLD), "with the endpoint down");
    sleep(day - Duration::from_secs(2)).await;
    assert!(has(&second, &clock, OLD));
    sleep(Duration::from_secs(3)).await;
    assert!(!has(&second, &clock, OLD));
    assert_eq!(second.health().usable_for, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn cached_set_expires_by_its_date() {
    const NOW: u64 = 1_800_000_000;
    const MAX_AGE: u64 = 3600;
    const LONGEST: u64 = MAX_AGE + 24 * 3600;
    let endpoint = Endpoint::listing(&[OLD]);
    let (first, _) = remote(&endpoint, Limits::default());
    first.ready().await.unwrap();
    let json = first.to_json().unwrap();
    endpoint.set(Behaviour::Refuses);
    let folder = tempfile::tempdir().unwrap();
    let file = DiskCache::new(
        folder.path().join("keys.json"),
        &"https://a.example".parse().unwrap(),
        10_000,
    );

    for (fetched, lifetime, usable_for) in [
        (NOW, MAX_AGE, LONGEST),
        (NOW, u64::MAX, LONGEST),
        (NOW, 0, LONGEST - MAX_AGE),
        (NOW - 10, MAX_AGE, LONGEST - 10),
        (NOW + 60, MAX_AGE, LONGEST),
        (NOW - LONGEST, u64::MAX, 0),
        (0, u64::MAX, 0),
        (NOW + 61, MAX_AGE, 0),
        (NOW + 315_360_000, MAX_AGE, 0),
        (u64::MAX, u64::MAX, 0),
    ] {
        let clock = Clock::driven(NOW);
        file.store(&CachedSet { json: json.clone().into(), fetched, lifetime });
        let limits = Limits::default();
        let mut snapshot = Snapshot::new(&limits, &clock);
        file.load_into(&mut snapshot, &limits, &clock);
        let restarted = start_from(snapshot, &endpoint, limits, &clock, 7);
        assert_eq!(restarted.health().usable_for.as_secs(), usable_for, "{fetched} {lifetime}");
        assert_eq!(has(&restarted, &clock, OLD), usable_for > 0, "{fetched} {lifetime}");
    }
}
