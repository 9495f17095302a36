//! One test for each guarantee, in the simplest scenario that could break it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::endpoint::{Behaviour, Endpoint, TestKey};
use super::lifecycle::remote;
use super::simulation::FAILURES;
use crate::clock::Clock;
use crate::jose::Algorithm;
use crate::jose::Jwk;
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::fetch::FetchCause;
use crate::jwks::remote::handle::RemoteJwks;
use crate::jwks::remote::limits::Limits;
use crate::rejection::{Rejection, RejectionKind, RejectionReason};

pub(super) const OLD: TestKey = TestKey { kid: 0, material: 0 };
pub(super) const NEW: TestKey = TestKey { kid: 1, material: 0 };

/// Looks a key up for a request, which waits if it has to.
pub(super) async fn request(
    jwks: &RemoteJwks,
    clock: &Clock,
    kid: &str,
) -> Result<Arc<Jwk>, Rejection> {
    match jwks.look_up(Some(kid), Algorithm::EdDSA, clock.unix_now()) {
        Lookup::Found(key) => Ok(key),
        Lookup::Refused(err) => Err(err.into()),
        Lookup::Pending(key) => key.await.map_err(Rejection::from),
    }
}

/// Whether a request with this key finds it without waiting.
pub(super) fn has(jwks: &RemoteJwks, clock: &Clock, test_key: TestKey) -> bool {
    let found = jwks.look_up(Some(&test_key.kid()), Algorithm::EdDSA, clock.unix_now());
    matches!(found, Lookup::Found(key) if key.is_same(test_key.jwk()))
}

#[tokio::test(start_paused = true)]
async fn a_fetches_are_limited_under_any_load() {
    for behaviour in [Behaviour::Responds, Behaviour::Refuses, Behaviour::Hangs] {
        for warm in [true, false] {
            let endpoint = Endpoint::listing(&[OLD]);
            let (jwks, clock) = remote(&endpoint, Limits::default());
            if warm {
                jwks.ready().await.unwrap();
            }
            endpoint.set(behaviour);
            let before = endpoint.world().fetches.len();

            let start = Instant::now();
            let mut attack = JoinSet::new();
            for number in 0..10_000 {
                let (attacked, now) = (jwks.clone(), clock.clone());
                attack.spawn(async move {
                    request(&attacked, &now, &format!("random-{number}")).await.is_ok()
                });
                sleep(Duration::from_millis(3)).await;
                assert!(!warm || has(&jwks, &clock, OLD), "a known key waits at request {number}");
            }
            assert!(start.elapsed() >= Duration::from_secs(30));
            assert!(attack.join_all().await.into_iter().all(|found| !found));

            let (_, requested) = endpoint.fetches();
            assert!(requested <= 2 * 4, "{requested} fetches in 35 s, {behaviour:?}, warm: {warm}");
            let scheduled = endpoint.world().fetches[before..]
                .iter()
                .filter(|fetch| fetch.cause == FetchCause::Scheduled)
                .count();
            let back_offs = if behaviour == Behaviour::Responds { 1 } else { 8 };
            assert!(scheduled <= back_offs, "{scheduled} scheduled, {behaviour:?}, warm: {warm}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b_new_key_is_accepted_within_10_s_under_attack() {
    for continues in [true, false] {
        let endpoint = Endpoint::listing(&[OLD]);
        let (jwks, clock) = remote(&endpoint, Limits::default());
        jwks.ready().await.unwrap();
        // The attacker has exhausted the fetch limit, also with the kid of the new key. If it
        // continues, its kids cause the next fetch too.
        for kid in ["random", &NEW.kid()] {
            request(&jwks, &clock, kid).await.unwrap_err();
        }
        endpoint.world().listed.insert(NEW.kid, NEW.material);
        let first_use = Instant::now();
        let mut attempts = 0;
        while let Err(rejection) = request(&jwks, &clock, &NEW.kid()).await {
            assert_eq!(rejection.kind(), RejectionKind::InvalidToken);
            if continues {
                request(&jwks, &clock, &format!("random-{attempts}-again")).await.unwrap_err();
            }
            attempts += 1;
            sleep(Duration::from_millis(50)).await;
            let elapsed = first_use.elapsed();
            assert!(elapsed < Duration::from_millis(10_100), "refused, continues: {continues}");
        }
        assert!(attempts > 0, "the fetch limit was never exhausted");
    }
}

#[tokio::test(start_paused = true)]
async fn c_removed_key_expires_within_the_lifetime() {
    for behaviour in [Behaviour::Responds, Behaviour::Refuses] {
        let endpoint = Endpoint::listing(&[OLD, NEW]);
        endpoint.world().max_age = Some(100);
        let limits = Limits { stale_if_error: Duration::from_secs(1000), ..Limits::default() };
        let (jwks, clock) = remote(&endpoint, limits);
        jwks.ready().await.unwrap();
        let Lookup::Found(held) =
            jwks.look_up(Some(&NEW.kid()), Algorithm::EdDSA, clock.unix_now())
        else {
            panic!("a listed key is not found");
        };

        endpoint.world().listed.remove(&NEW.kid);
        endpoint.set(behaviour);
        let bound = Duration::from_secs(if behaviour == Behaviour::Responds { 100 } else { 1100 });
        if behaviour == Behaviour::Refuses {
            sleep(bound - Duration::from_secs(2)).await;
            assert!(has(&jwks, &clock, NEW), "the key expired before the limit");
            sleep(Duration::from_secs(2)).await;
        } else {
            sleep(bound).await;
        }
        assert!(!has(&jwks, &clock, NEW), "{behaviour:?}");
        assert!(!held.is_usable(clock.unix_now()), "a held key is still usable, {behaviour:?}");
        assert_eq!(has(&jwks, &clock, OLD), behaviour == Behaviour::Responds);
    }
}

#[tokio::test(start_paused = true)]
async fn d_failed_fetch_never_shrinks_the_set() {
    for behaviour in FAILURES {
        let endpoint = Endpoint::listing(&[OLD]);
        let (jwks, clock) = remote(&endpoint, Limits::default());
        jwks.ready().await.unwrap();
        endpoint.set(behaviour);
        jwks.refresh().await.unwrap_err();
        assert!(has(&jwks, &clock, OLD), "{behaviour:?}");
        assert!(jwks.health().last_error.is_some(), "{behaviour:?}");
        // Until 1 h before the set is stale.
        sleep(Duration::from_secs(24 * 3600)).await;
        assert!(has(&jwks, &clock, OLD), "{behaviour:?}");
        assert_eq!(jwks.health().keys, 1, "{behaviour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn e_known_key_never_waits() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    endpoint.set(Behaviour::Hangs);
    let mut waiting = JoinSet::new();
    for number in 0..100 {
        let (jwks, clock) = (jwks.clone(), clock.clone());
        waiting.spawn(async move { request(&jwks, &clock, &format!("random-{number}")).await });
    }
    sleep(Duration::from_secs(1)).await;
    let before = Instant::now();
    assert!(request(&jwks, &clock, &OLD.kid()).await.is_ok());
    assert_eq!(before.elapsed(), Duration::ZERO);
    let reasons = waiting.join_all().await.into_iter().map(|result| result.unwrap_err().reason());
    assert!(reasons.into_iter().all(|reason| reason == RejectionReason::FetchFailed));
}
