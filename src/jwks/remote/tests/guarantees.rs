//! Each guarantee by itself, in the plainest scenario that could break it.

use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::endpoint::{Behaviour, Endpoint, Identity};
use super::lifecycle::remote;
use super::simulation::TROUBLE;
use crate::clock::Clock;
use crate::jose::Algorithm;
use crate::jose::Jwk;
use crate::jwks::lookup::Lookup;
use crate::jwks::remote::fetch::FetchCause;
use crate::jwks::remote::handle::RemoteJwks;
use crate::jwks::remote::limits::Limits;
use crate::rejection::{Rejection, RejectionKind, RejectionReason};

pub(super) const OLD: Identity = Identity { kid: 0, material: 0 };
pub(super) const NEW: Identity = Identity { kid: 1, material: 0 };

/// What a request that names this key id gets, and it waits if it may.
pub(super) async fn request(
    jwks: &RemoteJwks,
    clock: &Clock,
    id: &str,
) -> Result<Arc<Jwk>, Rejection> {
    match jwks.look_up(Some(id), Algorithm::EdDSA, clock.unix_now()) {
        Lookup::Found(key) => Ok(key),
        Lookup::Refused(err) => Err(err.into()),
        Lookup::Pending(key) => key.await.map_err(Rejection::from),
    }
}

/// Whether a request that names this key gets it without waiting.
pub(super) fn has(jwks: &RemoteJwks, clock: &Clock, identity: Identity) -> bool {
    let found = jwks.look_up(Some(&identity.id()), Algorithm::EdDSA, clock.unix_now());
    matches!(found, Lookup::Found(key) if key.is_same(identity.key()))
}

#[tokio::test(start_paused = true)]
async fn a_fetches_are_bounded_whatever_requests_arrive() {
    for behaviour in [Behaviour::Answers, Behaviour::Refuses, Behaviour::Hangs] {
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

            let (_, asked) = endpoint.fetches();
            assert!(asked <= 2 * 4, "{asked} fetches in 35 s, {behaviour:?}, warm: {warm}");
            let scheduled = endpoint.world().fetches[before..]
                .iter()
                .filter(|fetch| fetch.cause == FetchCause::Scheduled)
                .count();
            let back_offs = if behaviour == Behaviour::Answers { 1 } else { 8 };
            assert!(scheduled <= back_offs, "{scheduled} scheduled, {behaviour:?}, warm: {warm}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn b_a_listed_key_is_accepted_in_time_whatever_an_attacker_sends() {
    let endpoint = Endpoint::listing(&[OLD]);
    let (jwks, clock) = remote(&endpoint, Limits::default());
    jwks.ready().await.unwrap();
    // The attacker has just closed the gate, and goes on.
    for number in 0..2 {
        request(&jwks, &clock, &format!("random-{number}")).await.unwrap_err();
    }
    endpoint.world().listed.insert(NEW.kid, NEW.material);
    let first_use = Instant::now();
    let mut attempts = 0;
    while let Err(rejection) = request(&jwks, &clock, &NEW.id()).await {
        assert_eq!(rejection.kind(), RejectionKind::InvalidToken);
        request(&jwks, &clock, &format!("random-{attempts}-again")).await.unwrap_err();
        attempts += 1;
        sleep(Duration::from_millis(50)).await;
        assert!(first_use.elapsed() < Duration::from_millis(10_100), "refused for too long");
    }
    assert!(attempts > 0, "the gate was never closed");
}

#[tokio::test(start_paused = true)]
async fn c_a_removed_key_ends_within_the_lifetime_and_at_last_with_the_stale_limit() {
    for behaviour in [Behaviour::Answers, Behaviour::Refuses] {
        let endpoint = Endpoint::listing(&[OLD, NEW]);
        endpoint.world().max_age = Some(100);
        let limits = Limits { stale_if_error: Duration::from_secs(1000), ..Limits::default() };
        let (jwks, clock) = remote(&endpoint, limits);
        jwks.ready().await.unwrap();
        let Lookup::Found(held) = jwks.look_up(Some(&NEW.id()), Algorithm::EdDSA, clock.unix_now())
        else {
            panic!("it is listed");
        };

        endpoint.world().listed.remove(&NEW.kid);
        endpoint.set(behaviour);
        let bound = Duration::from_secs(if behaviour == Behaviour::Answers { 100 } else { 1100 });
        if behaviour == Behaviour::Refuses {
            sleep(bound - Duration::from_secs(2)).await;
            assert!(has(&jwks, &clock, NEW), "an outage ended it early");
            sleep(Duration::from_secs(2)).await;
        } else {
            sleep(bound).await;
        }
        assert!(!has(&jwks, &clock, NEW), "{behaviour:?}");
        assert!(!held.is_usable(clock.unix_now()), "a held key is still usable, {behaviour:?}");
        assert_eq!(has(&jwks, &clock, OLD), behaviour == Behaviour::Answers);
    }
}

#[tokio::test(start_paused = true)]
async fn d_no_failure_shrinks_the_set() {
    for behaviour in TROUBLE {
        let endpoint = Endpoint::listing(&[OLD]);
        let (jwks, clock) = remote(&endpoint, Limits::default());
        jwks.ready().await.unwrap();
        endpoint.set(behaviour);
        jwks.refresh().await.unwrap_err();
        assert!(has(&jwks, &clock, OLD), "{behaviour:?}");
        assert!(jwks.health().last_error.is_some(), "{behaviour:?}");
        // Through the rest of the lifetime and most of the stale limit.
        sleep(Duration::from_secs(24 * 3600)).await;
        assert!(has(&jwks, &clock, OLD), "{behaviour:?}");
        assert_eq!(jwks.health().keys, 1, "{behaviour:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn e_a_known_key_never_waits() {
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
    assert!(request(&jwks, &clock, &OLD.id()).await.is_ok());
    assert_eq!(before.elapsed(), Duration::ZERO);
    let reasons = waiting.join_all().await.into_iter().map(|result| result.unwrap_err().reason());
    assert!(reasons.into_iter().all(|reason| reason == RejectionReason::FetchFailed));
}
