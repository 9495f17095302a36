//! [`ServiceClaims::expired`] in virtual time, with a local key set. Those with fetches are in
//! `jwks/remote/tests/streams.rs`.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, UNIX_EPOCH};

use http::Request;
use serde_json::json;
use tokio::time::{Instant, sleep, timeout};
use tower::{Layer, ServiceExt, service_fn};

use super::super::claims::ServiceClaims;
use super::super::deny_list::{DenyEntry, DenyList, DenyLists};
use super::super::proof::Proof;
use super::super::validity::Validity;
use super::super::verifier::Verifier;
use crate::clock::Clock;
use crate::jose::Algorithm;
use crate::testing::{FakeCallerLayer, TestAuthority};

/// The start of the wall clock.
const START: u64 = 1_800_000_000;

/// A verifier on a wall clock whose jumps wake nothing, as those of a real one.
struct Fixture {
    authority: TestAuthority,
    clock: Clock,
    verifier: Verifier,
}

impl Fixture {
    fn new(leeway: u64) -> Self {
        let (authority, clock) = (TestAuthority::offline(), Clock::driven(START));
        let verifier = Verifier::new(authority.local_jwks()).on_clock(clock.clone());
        Self { authority, clock, verifier: verifier.leeway(seconds(leeway)) }
    }

    /// The claims of a token that expires `exp` seconds after the start.
    async fn claims(&self, exp: u64) -> ServiceClaims {
        let token = self.authority.token().claim("iat", START - 60).claim("exp", START + exp);
        self.verifier.verify(&token.sign()).await.unwrap()
    }

    fn use_key_until(&self, deadline: u64) {
        self.authority.local_jwks().keys()[0].use_until(deadline);
    }
}

fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// The seconds until the future resolves. `None` if that takes more than 10 h.
async fn seconds_until(expired: impl Future<Output = ()>) -> Option<f64> {
    let start = Instant::now();
    timeout(seconds(36_000), expired).await.ok()?;
    Some(start.elapsed().as_secs_f64())
}

/// The seconds until a token of an hour, verified without leeway, ends. `script` runs meanwhile.
async fn ended_after(script: impl AsyncFnOnce(&Fixture)) -> Option<f64> {
    let fixture = Fixture::new(0);
    let expired = tokio::spawn(seconds_until(fixture.claims(3600).await.expired()));
    script(&fixture).await;
    expired.await.unwrap()
}

#[tokio::test(start_paused = true)]
async fn token_ends_at_its_exp_plus_leeway() {
    // (leeway, seconds from the start to `exp`, milliseconds that pass first, seconds left)
    let cases = [
        (30, 3600, 0, Some(3630.0)),
        (0, 3600, 0, Some(3600.0)),
        (0, 3600, 3_599_750, Some(0.25)),
        (0, 1, 0, Some(1.0)),
        (0, 25, 500, Some(24.5)),
        (0, 100, 100_000, Some(0.0)),
        (30, 100, 131_000, Some(0.0)),
        (30, 100, 3_600_000, Some(0.0)),
        // A century, and the latest `exp` of a token.
        (30, 3_153_600_000, 0, None),
        (300, (1 << 53) - 1 - START, 0, None),
    ];
    for (leeway, exp, passed, expected) in cases {
        let claims = Fixture::new(leeway).claims(exp).await;
        sleep(Duration::from_millis(passed)).await;
        assert_eq!(seconds_until(claims.expired()).await, expected, "{leeway} {exp} {passed}");
    }
}

#[tokio::test(start_paused = true)]
async fn ended_token_resolves_even_outside_a_runtime() {
    let fixture = Fixture::new(0);
    let claims = fixture.claims(100).await;
    fixture.clock.shift(100);
    let poll = move || {
        let expired = pin!(claims.expired());
        expired.poll(&mut Context::from_waker(Waker::noop())).is_ready()
    };
    assert!(std::thread::spawn(poll).join().unwrap());
}

#[tokio::test(start_paused = true)]
async fn jump_of_the_wall_clock_is_noticed_within_10_s() {
    // (seconds that pass, shift of the wall clock, second of the end)
    let cases = [
        (105, 3600, 110.0),
        (105, 3494, 110.0),
        (105, 1000, 2600.0),
        (105, -1000, 4600.0),
        (3595, -3600, 7200.0),
    ];
    for (passed, shift, expected) in cases {
        let ended = ended_after(async |fixture| {
            sleep(seconds(passed)).await;
            fixture.clock.shift(shift);
        });
        assert_eq!(ended.await, Some(expected), "{passed} {shift}");
    }
}

#[tokio::test(start_paused = true)]
async fn token_ends_once_its_key_was_unusable_for_10_s() {
    // (seconds without the key, second of the end)
    let cases: [(&[(u64, u64)], f64); 6] = [
        (&[(5, 4000)], 20.0),
        (&[(11, 4000)], 30.0),
        (&[(5, 19)], 3600.0),
        (&[(1, 9)], 3600.0),
        // The grace begins anew.
        (&[(5, 15), (25, 4000)], 40.0),
        (&[(3585, 4000)], 3600.0),
    ];
    for (gaps, expected) in cases {
        let ended = ended_after(async |fixture| {
            for (from, to) in gaps {
                sleep(seconds(START + from - fixture.clock.unix_now())).await;
                fixture.use_key_until(0);
                sleep(seconds(to - from)).await;
                fixture.use_key_until(u64::MAX);
            }
        });
        assert_eq!(ended.await, Some(expected), "{gaps:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn withdrawn_key_ends_its_tokens_and_no_others() {
    let fixture = Fixture::new(0);
    let old = tokio::spawn(seconds_until(fixture.claims(3600).await.expired()));
    fixture.authority.rotate();
    let new = tokio::spawn(seconds_until(fixture.claims(3600).await.expired()));
    sleep(seconds(5)).await;
    fixture.authority.withdraw();
    assert_eq!((old.await.unwrap(), new.await.unwrap()), (Some(20.0), Some(3600.0)));
}

#[tokio::test(start_paused = true)]
async fn key_replaced_under_its_kid_ends_its_tokens() {
    let ended = ended_after(async |fixture| {
        sleep(seconds(5)).await;
        let kid = fixture.authority.kid();
        fixture.authority.rotate_to(kid);
    });
    // Without a grace: the kid names another key, so a fetch would not help.
    assert_eq!(ended.await, Some(10.0));
}

#[tokio::test(start_paused = true)]
async fn cached_claims_end_like_those_of_the_first_request() {
    let fixture = Fixture::new(0);
    let token = fixture.authority.token().claim("exp", START + 3600).claim("iat", START).sign();
    let claims = async || fixture.verifier.verify(&token).await.unwrap();
    // The second ones come from the cache of all threads, the third ones from that of this thread.
    let (first, shared, near) = (claims().await, claims().await, claims().await);
    assert!(shared.is_shared_with(&first) && !near.is_shared_with(&first));
    let ends = [first, shared, near].map(|claims| tokio::spawn(seconds_until(claims.expired())));
    for end in ends {
        assert_eq!(end.await.unwrap(), Some(3600.0));
    }
}

#[tokio::test(start_paused = true)]
async fn advance_of_a_test_clock_ends_a_token_at_once() {
    let authority = TestAuthority::offline();
    let claims = authority.verifier().verify(&authority.token().sign()).await.unwrap();
    let expired = tokio::spawn(seconds_until(claims.expired()));
    sleep(seconds(5)).await;
    for by in [3600, 30] {
        assert!(!expired.is_finished(), "{by}");
        authority.clock().advance(seconds(by));
        tokio::task::yield_now().await;
    }
    assert_eq!(expired.await.unwrap(), Some(5.0));
}

#[tokio::test(start_paused = true)]
async fn fake_claims_end_at_their_exp() {
    for (claims, expected) in [(json!({}), Some(3600.0)), (json!({"exp": 1}), Some(0.0))] {
        let caller =
            FakeCallerLayer::new(claims.clone()).layer(service_fn(async |request: Request<()>| {
                let claims = ServiceClaims::from_extensions(request.extensions()).unwrap();
                Ok::<_, Infallible>(claims.expired())
            }));
        let expired = caller.oneshot(Request::new(())).await.unwrap();
        assert_eq!(seconds_until(expired).await, expected, "{claims}");
    }
}

#[test]
fn future_is_send_and_borrows_nothing() {
    fn check<F: Future<Output = ()> + Send + 'static>(_: fn(&ServiceClaims) -> F) {}
    check(ServiceClaims::expired);
}

#[tokio::test(start_paused = true)]
async fn entry_of_a_deny_list_ends_the_stream_at_once() {
    let authority = TestAuthority::offline();
    let list = DenyList::new();
    let verifier = authority.verifier().deny_list(DenyList::new()).deny_list(list.clone());
    let token = authority.token().claim("service", "orders").claim("jti", "one");
    let claims = verifier.verify(&token.sign()).await.unwrap();
    let another = DenyEntry::claim("jti", "two");
    for entry in [
        DenyEntry::claim("jti", "one"),
        DenyEntry::claim("service", ["orders", "refunds"]),
        DenyEntry::key(authority.kid()),
        DenyEntry::issued_before(UNIX_EPOCH + seconds(1 << 37)),
    ] {
        let case = format!("{entry:?}");
        let expired = tokio::spawn(seconds_until(claims.expired()));
        sleep(seconds(15)).await;
        list.replace([another.clone()]);
        sleep(seconds(2)).await;
        list.replace([another.clone(), entry]);
        assert_eq!(expired.await.unwrap(), Some(17.0), "{case}");
        // A stream that opens now ends now.
        assert_eq!(seconds_until(claims.expired()).await, Some(0.0), "{case}");
        list.replace([]);
    }
    assert_eq!(seconds_until(claims.expired()).await.map(|_| ()), Some(()), "the token expires");
}

/// Every stream of a token asks at least every 10 s.
#[test]
fn streams_of_a_token_share_one_comparison_with_the_entries() {
    let (list, mut lists) = (DenyList::new(), DenyLists::default());
    lists.add(list.clone());
    let keys = TestAuthority::offline().local_jwks();
    let key = Arc::clone(&keys.keys()[0]);
    let proof = Proof::new(key, Algorithm::RS256, keys.into(), lists);
    let is_denied = |jti: &str| {
        proof.is_denied(json!({"jti": jti}).as_object().unwrap(), Validity::until(START))
    };
    list.replace([DenyEntry::claim("jti", "one")]);
    assert!(!is_denied("two"));
    // Other claims show that nothing is compared until the list changes.
    assert!(!is_denied("one"));
    list.replace([DenyEntry::claim("jti", "one")]);
    assert!(is_denied("one"));
}
