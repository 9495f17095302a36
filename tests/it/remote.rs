//! A remote key set over a real socket: how often it is fetched, and what happens to requests while
//! its endpoint is slow or down.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use http::Response;
use tokio::task::{JoinSet, yield_now};
use tokio::time::{Instant, timeout};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    RejectionReason as R, RemoteJwks, Verifier, VerifyServiceToken, VerifyServiceTokenLayer,
};

use crate::manual_clock::ManualClock;
use crate::support::{Inner, ResponseSummary, TIMEOUT, bearer};

const FETCH_TIMEOUT: Duration = Duration::from_secs(60);

pub(crate) fn layer(jwks: &RemoteJwks) -> VerifyServiceTokenLayer {
    VerifyServiceTokenLayer::new(Verifier::new(jwks.clone()))
}

/// A key set whose cooldown is longer than a test, so unknown keys cause at most two fetches. Its
/// timeout only ends a hang.
pub(crate) fn jwks(authority: &TestAuthority) -> RemoteJwks {
    authority
        .jwks_builder()
        .cooldown(Duration::from_secs(3600))
        .timeout(FETCH_TIMEOUT)
        .build()
        .unwrap()
}

/// Sends a request with this token. Returns the status of the response and the reason of a refusal.
pub(crate) async fn outcome(jwks: &RemoteJwks, token: &str) -> (u16, Option<R>) {
    let responding = layer(jwks).layer(Inner::default()).oneshot(bearer(token));
    let summary = ResponseSummary::of(&timeout(TIMEOUT, responding).await.unwrap().unwrap());
    assert_eq!(summary.retry_after.is_some(), summary.status == 503);
    assert!(summary.retry_after.is_none_or(|seconds| seconds.parse::<u64>().unwrap() >= 1));
    (summary.status, summary.reason)
}

type Responses = JoinSet<Response<String>>;

/// Makes the endpoint of an authority fail.
type Outage = fn(&TestAuthority);

/// Spawns a request for each token, and returns when all of them have started. The test has one
/// thread, so a request that has started runs until it has to wait.
async fn send<S>(
    service: &VerifyServiceToken<S>,
    tokens: impl IntoIterator<Item = String>,
) -> Responses
where
    S: Clone + Send + 'static,
    VerifyServiceToken<S>:
        tower::Service<http::Request<()>, Response = Response<String>> + Clone + Send,
    <VerifyServiceToken<S> as tower::Service<http::Request<()>>>::Future: Send,
    <VerifyServiceToken<S> as tower::Service<http::Request<()>>>::Error: std::fmt::Debug,
{
    let sent = Arc::new(AtomicUsize::new(0));
    let mut responses = JoinSet::new();
    for token in tokens {
        let (service, sent) = (service.clone(), Arc::clone(&sent));
        responses.spawn(async move {
            sent.fetch_add(1, Ordering::SeqCst);
            timeout(TIMEOUT, service.oneshot(bearer(&token))).await.unwrap().unwrap()
        });
    }
    while sent.load(Ordering::SeqCst) < responses.len() {
        yield_now().await;
    }
    responses
}

fn statuses(responses: &[Response<String>]) -> Vec<u16> {
    responses.iter().map(|response| response.status().as_u16()).collect()
}

#[tokio::test]
async fn thousand_requests_on_a_cold_cache_cause_one_fetch() {
    let authority = TestAuthority::start().await;
    authority.hang();
    let inner = Inner::default();
    let service = layer(&jwks(&authority)).layer(inner.clone());
    let responses = send(&service, vec![authority.token().sign(); 1000]).await;
    authority.wait_for_fetches(1).await;
    assert_eq!(inner.calls(), 0);
    authority.answer_with_keys();
    assert_eq!(statuses(&responses.join_all().await), [200; 1000]);
    assert_eq!((inner.calls(), authority.fetches()), (1000, 1));
}

#[tokio::test]
async fn unknown_kid_causes_one_fetch() {
    let authority = TestAuthority::start().await;
    let jwks = jwks(&authority);
    let old = authority.token().sign();
    assert_eq!(outcome(&jwks, &old).await, (200, None));
    assert_eq!(authority.fetches(), 1);

    authority.rotate();
    let service = layer(&jwks).layer(Inner::default());
    let responses = send(&service, vec![authority.token().sign(); 100]).await;
    assert_eq!(statuses(&responses.join_all().await), [200; 100], "the new key is not used");
    assert_eq!(authority.fetches(), 2);
    assert_eq!(outcome(&jwks, &old).await, (200, None));
    assert_eq!(authority.fetches(), 2);
}

#[tokio::test]
async fn token_with_invalid_claims_causes_no_fetch() {
    let (authority, unknown) = (TestAuthority::start().await, TestAuthority::offline());
    let jwks = jwks(&authority);
    assert_eq!(outcome(&jwks, &authority.token().sign()).await.0, 200);
    for claims in ["{\"exp\":1}", "{}", "[]", "{\"exp\":1,\"exp\":1}", "x"] {
        let (status, reason) = outcome(&jwks, &unknown.sign_claims(claims)).await;
        assert_eq!(status, 401);
        assert_ne!(reason, Some(R::UnknownKey), "{claims}");
    }
    assert_eq!(authority.fetches(), 1);
}

#[tokio::test]
async fn made_up_kids_cause_at_most_two_fetches() {
    let authority = TestAuthority::start().await;
    let jwks = jwks(&authority);
    assert_eq!(outcome(&jwks, &authority.token().sign()).await, (200, None));
    // (made-up kid, number of fetches after its token was rejected)
    let cases = [("a", 2), ("a", 2), ("b", 3), ("a", 3), ("b", 3), ("c", 3), ("d", 3)];
    for (kid, fetches) in cases {
        let made_up = authority.token().kid(kid).sign();
        assert_eq!(outcome(&jwks, &made_up).await, (401, Some(R::UnknownKey)), "{kid}");
        assert_eq!(authority.fetches(), fetches, "{kid}");
    }
    // A token without a `kid`, or with a known one, is checked against the cached keys.
    let without_kid = authority.sign_parts(r#"{"alg":"ES256"}"#, r#"{"exp":4953600000}"#);
    assert_eq!(outcome(&jwks, &without_kid).await, (401, Some(R::UnknownKey)));
    assert_eq!(outcome(&jwks, &authority.token().sign()).await, (200, None));
    assert_eq!(authority.fetches(), 3);
}

#[tokio::test]
async fn outage_refuses_only_tokens_with_unknown_keys() {
    let authority = TestAuthority::start().await;
    let jwks = jwks(&authority);
    let (known, user) = (authority.token().sign(), authority.token().without_marker().sign());
    assert_eq!(outcome(&jwks, &known).await, (200, None));
    let keys = jwks.health().keys;
    authority.rotate();
    let unknown = authority.token().sign();
    let outages: [(&str, Outage); 4] = [
        ("500", |authority| authority.answer_with(500)),
        ("404", |authority| authority.answer_with(404)),
        ("no key set", |authority| authority.answer_with_text("{}")),
        ("no JSON", |authority| authority.answer_with_text("<html>")),
    ];
    for (outage, begin) in outages {
        begin(&authority);
        assert_eq!(outcome(&jwks, &unknown).await, (503, Some(R::FetchFailed)), "{outage}");
        assert_eq!(outcome(&jwks, &known).await, (200, None), "{outage}");
    }
    // The fetch limit admitted two fetches; the requests beyond it got 503 as well, not 401.
    assert_eq!(authority.fetches(), 3);
    assert!(jwks.health().last_error.is_some());
    assert_eq!(jwks.health().keys, keys);

    // Invalid claims are still the reason of the refusal, rather than the failed fetch.
    assert_eq!(outcome(&jwks, &user).await, (403, Some(R::NotMicroservice)));
    let expired = authority.token().expired().sign();
    assert_eq!(outcome(&jwks, &expired).await, (401, Some(R::Expired)));

    authority.answer_with_keys();
    jwks.refresh().await.unwrap();
    let recovered = outcome(&jwks, &unknown).await;
    assert_eq!(recovered, (200, None), "the unknown key is refused after the outage");
}

#[tokio::test]
async fn service_up_before_its_core_needs_no_retry() {
    let authority = TestAuthority::start().await;
    authority.answer_with(500);
    let (jwks, token) = (jwks(&authority), authority.token().sign());
    // Each request waits for a fetch of its own.
    for _ in 0..2 {
        assert_eq!(outcome(&jwks, &token).await, (503, Some(R::KeysNotLoaded)));
    }
    authority.answer_with_keys();
    assert_eq!(outcome(&jwks, &token).await, (200, None));
}

#[tokio::test]
async fn waiting_request_holds_no_permit() {
    let authority = TestAuthority::start().await;
    let jwks = jwks(&authority);
    jwks.ready().await.unwrap();
    let known = authority.token().claim("service", "orders").sign();
    authority.rotate();
    let rotated = authority.token().sign();
    authority.hang();

    // There is one permit: a waiting request that held it would block all others.
    let inner = Inner::default();
    let service = layer(&jwks).layer(ConcurrencyLimit::new(inner.clone(), 1));
    let unknown = (0..50).map(|_| authority.token().unknown_key().sign());
    let unknown = send(&service, unknown).await;
    let rotated_in = send(&service, vec![rotated.clone(); 50]).await;
    // A service that its caller keeps after the call, as a connection may, holds no permit either.
    let mut kept = service.clone();
    let readied = timeout(TIMEOUT, kept.ready()).await.unwrap().unwrap();
    let waiting = tokio::spawn(readied.call(bearer(&rotated)));
    authority.wait_for_fetches(2).await;
    for _ in 0..3 {
        let responding = service.clone().oneshot(bearer(&known));
        let response = timeout(TIMEOUT, responding).await.unwrap().unwrap();
        assert_eq!(response.into_body(), "orders");
    }
    assert_eq!(
        (inner.calls(), unknown.len(), rotated_in.len()),
        (3, 50, 50),
        "a waiting request was admitted"
    );

    authority.answer_with_keys();
    // Each waiting request readies its inner service again, one after the other.
    assert_eq!(timeout(TIMEOUT, waiting).await.unwrap().unwrap().unwrap().status(), 200);
    assert_eq!(statuses(&rotated_in.join_all().await), [200; 50]);
    assert_eq!(statuses(&unknown.join_all().await), [401; 50]);
    drop(kept);
    assert_eq!(inner.calls(), 54);
    assert_eq!(authority.fetches(), 2, "more than one fetch");
}

#[tokio::test]
async fn fetch_outlives_the_request_that_caused_it() {
    let authority = TestAuthority::start().await;
    let jwks = jwks(&authority);
    jwks.ready().await.unwrap();
    authority.rotate();
    authority.hang();
    let (service, new) = (layer(&jwks).layer(Inner::default()), authority.token().sign());
    let mut first = send(&service, [new.clone()]).await;
    authority.wait_for_fetches(2).await;
    let others = send(&service, vec![new; 3]).await;
    first.shutdown().await;
    authority.answer_with_keys();
    assert_eq!(statuses(&others.join_all().await), [200; 3]);
    assert_eq!(authority.fetches(), 2);
}

#[tokio::test(start_paused = true)]
async fn request_waits_no_longer_than_the_timeout() {
    let clock = ManualClock::new();
    let authority = TestAuthority::start().await;
    let start = Instant::now();
    let jwks = jwks(&authority);
    jwks.ready().await.unwrap();
    authority.hang();
    // Tokens of a later time would be too early for a verifier on the real clock.
    let (known, unknown) = (authority.token().sign(), authority.token().unknown_key().sign());
    let time_out = async {
        authority.wait_for_fetches(2).await;
        assert_eq!(start.elapsed(), Duration::ZERO);
        clock.advance(FETCH_TIMEOUT).await;
    };
    let (refused, ()) = tokio::join!(outcome(&jwks, &unknown), time_out);
    assert_eq!(refused, (503, Some(R::FetchFailed)));
    authority.aborted().await;
    assert_eq!(start.elapsed(), FETCH_TIMEOUT);
    assert_eq!(outcome(&jwks, &known).await, (200, None));
}

#[tokio::test]
async fn queue_rejects_the_1025th_token() {
    let authority = TestAuthority::start().await;
    authority.hang();
    let token = authority.token().sign();
    let service = layer(&jwks(&authority)).layer(Inner::default());
    let waiting = send(&service, vec![token.clone(); 1024]).await;
    authority.wait_for_fetches(1).await;
    let responding = service.clone().oneshot(bearer(&token));
    let response = timeout(TIMEOUT, responding).await.unwrap().unwrap();
    assert_eq!(ResponseSummary::of(&response).reason, Some(R::TooManyWaiting));
    assert_eq!(response.status(), 503);
    authority.answer_with_keys();
    assert_eq!(statuses(&waiting.join_all().await), [200; 1024]);
    // The key is cached now, so its token needs no queue slot.
    assert_eq!(service.oneshot(bearer(&token)).await.unwrap().status(), 200);
}
