//! Observing layers: they refuse nothing, and record exactly what enforcing ones refuse.

use std::pin::pin;
use std::task::{Context, Poll, Waker};

use axum::Router;
use axum::body::{Body, to_bytes};
use axum::routing::get;
use http::header::AUTHORIZATION;
use http::{Request, Response};
use serde_json::Value;
use tokio::runtime::Builder;
use tower::{Layer, Service, ServiceBuilder, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    RejectionReason as R, RequireClaimLayer, ServiceClaims, TypedClaims, VerifyServiceTokenLayer,
};

use crate::records::{Counters, Record, record};
use crate::server::refusals;
use crate::support::{Inner, Logs, ResponseSummary, as_grpc, bearer, caller, request};

/// Sends a request through the layer, then through the same layer with `observe`. Returns the
/// response of the first.
///
/// Asserts that the first calls the inner service or refuses the request, that the second always
/// calls it, without claims if the first refuses, and that both record the same.
pub(crate) async fn send_to_both(
    layer: &VerifyServiceTokenLayer,
    request: impl Fn() -> Request<()>,
) -> Response<String> {
    let send = async |layer: VerifyServiceTokenLayer| {
        let inner = Inner::default();
        let (response, record) = record(async |counters| {
            let response = layer.layer(inner.clone()).oneshot(request()).await.unwrap();
            // An observing layer records a token that has to wait after the response.
            counters.wait_for(1).await;
            response
        })
        .await;
        (response, inner.calls(), record)
    };
    let (enforced, calls, expected) = send(layer.clone()).await;
    let reason = ResponseSummary::of(&enforced).reason;
    assert_eq!(calls, usize::from(reason.is_none()));
    match reason {
        None => assert!(expected.refusals.is_empty()),
        Some(reason) => {
            let [event] = &*expected.refusals else { panic!("{expected:?}") };
            assert!(event.starts_with(&format!("reason={reason:?} enforced=true")), "{event}");
        }
    }
    let (observed, calls, record) = send(layer.clone().observe()).await;
    assert_eq!((observed.status().as_u16(), calls), (200, 1), "{reason:?}");
    assert_eq!(ResponseSummary::of(&observed).reason, None);
    let caller = if reason.is_none() { enforced.body().as_str() } else { "anonymous" };
    assert_eq!(observed.body(), caller, "{reason:?}");
    assert_eq!(record, expected.observed());
    enforced
}

fn observing(authority: &TestAuthority) -> VerifyServiceTokenLayer {
    VerifyServiceTokenLayer::new(authority.verifier()).observe()
}

fn counts(counts: &[(&str, u64)]) -> Vec<(String, u64)> {
    counts.iter().map(|(labels, count)| ((*labels).to_owned(), *count)).collect()
}

#[tokio::test]
async fn each_refusal_is_recorded_alike_over_http_and_grpc() {
    let authority = TestAuthority::offline();
    let layers = [
        VerifyServiceTokenLayer::new(authority.verifier()),
        VerifyServiceTokenLayer::optional(authority.verifier()),
        VerifyServiceTokenLayer::new(authority.verifier()).http_answers(),
    ];
    for (case, credentials, ..) in refusals(&authority) {
        for layer in &layers {
            let http = || request(&credentials);
            let reason = ResponseSummary::of(&send_to_both(layer, http).await).reason;
            let over_grpc = send_to_both(layer, || as_grpc(http())).await;
            assert_eq!(ResponseSummary::of(&over_grpc).reason, reason, "{case}");
        }
    }
}

#[tokio::test]
async fn requests_are_counted_by_outcome_and_labels() {
    let authority = TestAuthority::offline();
    let send = async |layer: VerifyServiceTokenLayer| {
        let service = layer.layer(Inner::default());
        let token = || authority.token();
        let requests = [
            bearer(&token().sign()),
            as_grpc(bearer(&token().sign())),
            as_grpc(bearer(&token().expired().sign())),
            bearer(&token().without_marker().sign()),
            request(&["Basic dTpw"]),
        ];
        let (_, record) = record(async |_| {
            for request in requests {
                service.clone().oneshot(request).await.unwrap();
            }
        })
        .await;
        record.counts
    };
    let admitted_and_expired = [
        ("outcome=admitted reason=none protocol=grpc enforced=true", 1),
        ("outcome=admitted reason=none protocol=http enforced=true", 1),
    ];
    let required = VerifyServiceTokenLayer::new(authority.verifier());
    let expected = [
        ("outcome=refused reason=expired protocol=grpc enforced=true", 1),
        ("outcome=refused reason=not_microservice protocol=http enforced=true", 1),
        ("outcome=refused reason=unsupported_scheme protocol=http enforced=true", 1),
    ];
    assert_eq!(send(required).await, counts(&[&admitted_and_expired[..], &expected].concat()));
    let optional = VerifyServiceTokenLayer::optional(authority.verifier());
    let expected = [
        ("outcome=anonymous reason=not_microservice protocol=http enforced=true", 1),
        ("outcome=anonymous reason=unsupported_scheme protocol=http enforced=true", 1),
        ("outcome=refused reason=expired protocol=grpc enforced=true", 1),
    ];
    let all = [&admitted_and_expired[..], &expected].concat();
    assert_eq!(send(optional.clone()).await, counts(&all));
    let observed: Vec<_> = counts(&all)
        .into_iter()
        .map(|(labels, count)| (labels.replace("enforced=true", "enforced=false"), count))
        .collect();
    assert_eq!(send(optional.clone().observe()).await, observed);
    let without_grpc: Vec<_> =
        send(optional.http_answers()).await.into_iter().map(|(labels, _)| labels).collect();
    assert!(without_grpc.iter().all(|labels| labels.contains("protocol=http")), "{without_grpc:?}");
}

#[tokio::test]
async fn counter_is_registered_once_for_a_layer_and_its_labels() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::new(authority.verifier());
    let counters = Counters::of_this_thread();
    let ((), record) = record(async |_| {
        for _ in 0..10 {
            // Each service has clones of its own, as those of an axum router do.
            let service = layer.clone().layer(Inner::default());
            for request in [bearer(&authority.token().sign()), request::<&str>(&[])] {
                service.clone().oneshot(request).await.unwrap();
            }
        }
    })
    .await;
    let expected = [
        ("outcome=admitted reason=none protocol=http enforced=true", 10),
        ("outcome=refused reason=missing_credentials protocol=http enforced=true", 10),
    ];
    assert_eq!((record.counts, counters.registrations()), (counts(&expected), 2));
}

#[tokio::test]
async fn rule_inside_is_recorded_once_and_passed() {
    let authority = TestAuthority::offline();
    let required = VerifyServiceTokenLayer::new(authority.verifier());
    let optional = VerifyServiceTokenLayer::optional(authority.verifier());
    let orders = || bearer(&authority.token().claim("service", "orders").sign());
    let mail = || bearer(&authority.token().claim("service", "mail").sign());
    let none = || request::<&str>(&[]);
    let unmet = r#"reason=ClaimRefused enforced=false expected="service: [\"orders\"]""#;
    let missing = "reason=MissingCredentials enforced=false";
    let admitted = "outcome=admitted reason=none protocol=http enforced=false";
    let anonymous = "outcome=anonymous reason=missing_credentials protocol=http enforced=false";
    let refused =
        |reason: &str| format!("outcome=refused reason={reason} protocol=http enforced=false");
    let (claim_refused, no_credential) = (refused("claim_refused"), refused("missing_credentials"));
    let cases: [(_, _, _, _, Vec<&str>); 6] = [
        (&required, orders(), "orders", None, vec![admitted]),
        (&required, mail(), "mail", Some(unmet), vec![admitted, &claim_refused]),
        // Recorded by the layer in front.
        (&required, none(), "anonymous", Some(missing), vec![&no_credential]),
        (&optional, orders(), "orders", None, vec![admitted]),
        (&optional, mail(), "mail", Some(unmet), vec![admitted, &claim_refused]),
        // Recorded by the first rule.
        (&optional, none(), "anonymous", Some(missing), vec![anonymous, &no_credential]),
    ];
    for (layer, request, caller, refusal, labels) in cases {
        let inner = Inner::default();
        let service = ServiceBuilder::new()
            .layer(layer.clone().observe())
            .layer(RequireClaimLayer::new("service", ["orders"]))
            .layer(RequireClaimLayer::new("service", ["orders", "refunds"]))
            .service(inner.clone());
        let (response, seen) = record(async |_| service.oneshot(request).await.unwrap()).await;
        assert_eq!((response.body().as_str(), inner.calls()), (caller, 1));
        let refusals = refusal.map(str::to_owned).into_iter().collect();
        let counts = labels.into_iter().map(|labels| (labels.to_owned(), 1)).collect();
        assert_eq!(seen, Record { refusals, counts });
    }
}

#[tokio::test]
async fn summaries_of_both_modes_are_kept_apart() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier();
    let logs = Logs::of_this_thread();
    for _ in 0..2 {
        for layer in [
            VerifyServiceTokenLayer::new(verifier.clone()),
            VerifyServiceTokenLayer::new(verifier.clone()).observe(),
        ] {
            layer.layer(Inner::default()).oneshot(bearer("garbage")).await.unwrap();
        }
    }
    let text = logs.text();
    let summaries: Vec<_> =
        text.lines().filter_map(|line| Some(line.split_once("requests refused ")?.1)).collect();
    let expected = ["true", "false"]
        .map(|enforced| format!("reason=NotThreeParts count=1 enforced={enforced}"));
    assert_eq!(summaries, expected);
}

/// An authority whose keys are fetched, the layer that observes with them, and a token whose key
/// the next fetch lists.
async fn before_a_fetch() -> (TestAuthority, VerifyServiceTokenLayer, String) {
    let authority = TestAuthority::start().await;
    let jwks = authority.remote_jwks();
    jwks.ready().await.unwrap();
    let layer = VerifyServiceTokenLayer::new(authority.verifier_with(jwks)).observe();
    authority.rotate();
    authority.hang();
    let token = authority.token().claim("service", "orders").sign();
    (authority, layer, token)
}

#[tokio::test]
async fn token_that_has_to_wait_does_not_delay_its_request() {
    let count = |outcome, reason| {
        let labels = format!("outcome={outcome} reason={reason} protocol=http enforced=false");
        [(labels, 1)]
    };
    let keys: fn(&TestAuthority) = TestAuthority::answer_with_keys;
    // (case, whether the token's key is listed, the response to the fetch, what is counted)
    let cases = [
        ("a new key", true, keys, count("admitted", "none")),
        ("a key that no fetch finds", false, keys, count("refused", "unknown_key")),
        ("an outage", true, |it| it.answer_with(503), count("refused", "fetch_failed")),
    ];
    for (case, is_listed, answer, expected) in cases {
        let (authority, layer, listed) = before_a_fetch().await;
        let token = if is_listed { listed } else { authority.token().unknown_key().sign() };
        let inner = Inner::default();
        // The rule is not checked: whether the claims meet it is not known yet.
        let rule = RequireClaimLayer::new("service", "mail");
        let service = layer.layer(rule.layer(inner.clone()));
        let (_, seen) = record(async |counters| {
            let response = service.oneshot(bearer(&token)).await.unwrap();
            assert_eq!((response.body().as_str(), inner.calls()), ("anonymous", 1), "{case}");
            authority.wait_for_fetches(2).await;
            assert!(counters.take().is_empty(), "{case}");
            answer(&authority);
            counters.wait_for(1).await;
        })
        .await;
        assert_eq!(seen.counts, expected, "{case}");
    }
}

#[tokio::test]
async fn number_of_unknown_outcomes_is_limited() {
    let (authority, layer, token) = before_a_fetch().await;
    let service = layer.layer(Inner::default());
    let tasks = tokio::runtime::Handle::current().metrics();
    let (spawned, seen) = record(async |counters| {
        let before = tasks.num_alive_tasks();
        for _ in 0..1100 {
            let response = service.clone().oneshot(bearer(&token)).await.unwrap();
            assert_eq!(response.body(), "anonymous");
        }
        let spawned = tasks.num_alive_tasks() - before;
        counters.wait_for(76).await;
        let full = "outcome=refused reason=too_many_waiting protocol=http enforced=false";
        assert_eq!(counters.take(), counts(&[(full, 76)]));
        authority.answer_with_keys();
        counters.wait_for(1024).await;
        spawned
    })
    .await;
    // The fetch has tasks too.
    assert!((1024..1050).contains(&spawned), "{spawned} tasks");
    let admitted = "outcome=admitted reason=none protocol=http enforced=false";
    assert_eq!(seen.counts, counts(&[(admitted, 1024)]));
}

#[test]
fn request_without_a_runtime_is_passed_on() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (_authority, layer, token) = runtime.block_on(before_a_fetch());
    let response = pin!(layer.layer(Inner::default()).call(bearer(&token)))
        .poll(&mut Context::from_waker(Waker::noop()));
    match response {
        Poll::Ready(Ok(response)) => assert_eq!(response.body(), "anonymous"),
        other => panic!("{other:?}"),
    }
}

async fn by_value(claims: ServiceClaims) -> String {
    caller(Some(&claims))
}

async fn as_option(claims: Option<ServiceClaims>) -> String {
    caller(claims.as_ref())
}

/// Routes whose handlers take the claims in each way.
fn app(layer: VerifyServiceTokenLayer) -> Router {
    Router::new()
        .route("/value", get(by_value))
        .route("/option", get(as_option))
        .route("/typed", get(|TypedClaims(_): TypedClaims<Value>| async {}))
        .route_layer(layer)
}

async fn send(app: &Router, path: &str, token: Option<String>) -> (u16, String, Option<R>) {
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header(AUTHORIZATION, format!("Bearer {token}"));
    }
    let response = app.clone().oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
    let ResponseSummary { status, reason, .. } = ResponseSummary::of(&response);
    let body = to_bytes(response.into_body(), 64).await.unwrap();
    (status, String::from_utf8(body.to_vec()).unwrap(), reason)
}

#[tokio::test]
async fn handler_requiring_claims_refuses_and_is_logged_once() {
    let authority = TestAuthority::offline();
    let orders = || Some(authority.token().claim("service", "orders").sign());
    let message = "ServiceClaims extracted behind an observing VerifyServiceTokenLayer";
    for path in ["/value", "/typed"] {
        let logs = Logs::of_this_thread();
        let app = app(observing(&authority));
        for token in [None, orders()] {
            assert_eq!(send(&app, "/option", token).await.0, 200);
        }
        assert_eq!(logs.text().matches("ERROR").count(), 0, "{}", logs.text());
        for _ in 0..3 {
            assert_eq!(send(&app, path, orders()).await.0, 200);
            assert_eq!(send(&app, path, None).await.0, 401);
        }
        assert_eq!(logs.text().matches("ERROR").count(), 1, "{}", logs.text());
        assert_eq!(logs.text().matches(message).count(), 1, "{}", logs.text());
    }
}

#[tokio::test]
async fn handler_requiring_claims_refuses_as_enforcing_would() {
    let authority = TestAuthority::offline();
    let cases = [
        (None, 401, R::MissingCredentials, "missing_credentials"),
        (Some("garbage".to_owned()), 401, R::NotThreeParts, "not_three_parts"),
        (Some(authority.token().expired().sign()), 401, R::Expired, "expired"),
        (
            Some(authority.token().without_marker().sign()),
            403,
            R::NotMicroservice,
            "not_microservice",
        ),
    ];
    let app = app(observing(&authority));
    for (token, status, reason, label) in cases {
        let (response, seen) = record(async |_| send(&app, "/value", token).await).await;
        assert_eq!(response, (status, String::new(), Some(reason)));
        // Once as observed by the layer, once as refused by the handler.
        let expected = ["false", "true"].map(|enforced| {
            (format!("outcome=refused reason={label} protocol=http enforced={enforced}"), 1)
        });
        assert_eq!(seen.counts, expected);
        assert_eq!(seen.refusals.len(), 2, "{seen:?}");
    }
}

#[tokio::test]
async fn handler_that_requires_claims_waits_for_the_token() {
    for is_listed in [true, false] {
        let (authority, layer, listed) = before_a_fetch().await;
        let token = if is_listed { listed } else { authority.token().unknown_key().sign() };
        let app = app(layer);
        let waiting = send(&app, "/value", Some(token));
        let meanwhile = async {
            authority.wait_for_fetches(2).await;
            authority.answer_with_keys();
        };
        let (response, ()) = tokio::join!(waiting, meanwhile);
        let expected = match is_listed {
            true => (200, "orders".to_owned(), None),
            false => (401, String::new(), Some(R::UnknownKey)),
        };
        assert_eq!(response, expected);
    }
}
