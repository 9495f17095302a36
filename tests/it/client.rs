//! The client layer in process, over `http::Request` and `reqwest::Request`.

use std::convert::Infallible;
use std::fmt::Debug;
use std::future::{Ready, ready};
use std::task::{Context, Poll};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderName};
use http::{HeaderMap, HeaderValue, Request, Response};
use tokio::time::timeout;
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{AddServiceTokenLayer, ConfigError, ServiceToken, TokenError};
use tower_test::mock;

use crate::manual_clock::ManualClock;
use crate::scripted::{ScriptedCore, Step, good};
use crate::support::{ISSUER, TIMEOUT};

fn token() -> (ServiceToken, HeaderValue) {
    let token = ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap();
    let value = token.header_value();
    (token, value)
}

/// The headers that the inner service receives for an `http::Request`.
async fn sent(layer: &AddServiceTokenLayer, request: Request<()>) -> HeaderMap {
    let inner = service_fn(|request: Request<()>| async move {
        Ok::<_, Infallible>(Response::new(request.headers().clone()))
    });
    layer.layer(inner).oneshot(request).await.unwrap().into_body()
}

/// The headers that the inner service receives for the same request as a `reqwest::Request`.
async fn sent_by_reqwest(layer: &AddServiceTokenLayer, request: &Request<()>) -> HeaderMap {
    let inner = service_fn(|request: reqwest::Request| async move {
        let mut response = Response::new("");
        response.headers_mut().clone_from(request.headers());
        Ok::<_, Infallible>(reqwest::Response::from(response))
    });
    let url = request.uri().to_string().parse().unwrap();
    let mut other = reqwest::Request::new(reqwest::Method::GET, url);
    other.headers_mut().clone_from(request.headers());
    layer.layer(inner).oneshot(other).await.unwrap().headers().clone()
}

fn get(uri: &str, headers: &[(&HeaderName, &str)]) -> Request<()> {
    let mut request = Request::get(uri);
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

#[tokio::test]
async fn layer_sets_the_configured_header() {
    let (token, good) = token();
    let good = good.to_str().unwrap();
    let custom = HeaderName::from_static("x-service");
    let plain = AddServiceTokenLayer::new(token);
    let if_not_present = plain.clone().if_not_present();
    let custom_header = plain.clone().header(custom.clone()).unwrap();
    let custom_header_if_not_present = custom_header.clone().if_not_present();
    // (layer, headers of the request, values of `Authorization` sent, values of `x-service` sent)
    type Case<'c> =
        (&'c AddServiceTokenLayer, &'c [(&'c HeaderName, &'c str)], &'c [&'c str], &'c [&'c str]);
    let cases: &[Case<'_>] = &[
        (&plain, &[], &[good], &[]),
        (&plain, &[(&AUTHORIZATION, "Bearer old")], &[good], &[]),
        (&plain, &[(&AUTHORIZATION, "Bearer old"), (&AUTHORIZATION, "Basic x")], &[good], &[]),
        (&plain, &[(&custom, "kept")], &[good], &["kept"]),
        (&if_not_present, &[], &[good], &[]),
        (&if_not_present, &[(&AUTHORIZATION, "Bearer old")], &["Bearer old"], &[]),
        (&if_not_present, &[(&AUTHORIZATION, "")], &[""], &[]),
        (&custom_header, &[(&AUTHORIZATION, "Bearer user")], &["Bearer user"], &[good]),
        (&custom_header, &[(&custom, "old")], &[], &[good]),
        (&custom_header_if_not_present, &[(&custom, "old")], &[], &["old"]),
        (
            &custom_header_if_not_present,
            &[(&AUTHORIZATION, "Bearer user")],
            &["Bearer user"],
            &[good],
        ),
    ];
    for (index, (layer, headers, authorization, other)) in cases.iter().enumerate() {
        let request = get("https://a.example/x", headers);
        let by_reqwest = sent_by_reqwest(layer, &request).await;
        for seen in [sent(layer, request).await, by_reqwest] {
            let values = |name| {
                seen.get_all(name).iter().map(|value| value.to_str().unwrap()).collect::<Vec<_>>()
            };
            assert_eq!(values(&AUTHORIZATION), *authorization, "case {index}");
            assert_eq!(values(&custom), *other, "case {index}");
            let tokens = seen.values().filter(|value| *value == good);
            assert!(
                tokens.into_iter().all(HeaderValue::is_sensitive),
                "case {index}: the token is not marked sensitive"
            );
        }
    }
}

#[tokio::test]
async fn request_to_another_origin_keeps_its_credential() {
    let layer = AddServiceTokenLayer::new(token().0);
    let layer = layer.only_to(["https://billing.internal", "http://127.0.0.1:4002"]).unwrap();
    // `origins.rs` has the table of URIs.
    let cases = [
        ("https://billing.internal/charge", true),
        ("http://127.0.0.1:4002/", true),
        ("https://evil.example/", false),
        ("http://127.0.0.1:4003/", false),
    ];
    for (uri, is_replaced) in cases {
        let request = get(uri, &[(&AUTHORIZATION, "Bearer own")]);
        let by_reqwest = sent_by_reqwest(&layer, &request).await;
        for seen in [sent(&layer, request).await, by_reqwest] {
            assert_eq!(seen[AUTHORIZATION] != "Bearer own", is_replaced, "{uri}");
        }
    }
}

#[tokio::test]
async fn only_to_refuses_plain_http_beyond_loopback() {
    // (origin, whether it is on loopback or https)
    let cases = [
        ("https://billing.internal", true),
        ("http://localhost:4002", true),
        ("http://LOCALHOST", true),
        ("http://127.0.0.1:4002", true),
        ("http://127.9.9.9", true),
        ("http://[::1]:4002", true),
        ("http://[::ffff:127.0.0.1]", true),
        ("http://billing.internal", false),
        ("http://billing.internal:8080", false),
        ("http://10.0.0.1", false),
        ("http://0.0.0.0", false),
        ("http://[::ffff:a00:1]", false),
        ("http://billing.localhost", false),
        ("http://localhost.example.com", false),
        ("http://127.0.0.1.example.com", false),
    ];
    let layer = AddServiceTokenLayer::new(token().0);
    for (origin, is_safe) in cases {
        for origins in [vec![origin], vec!["https://a.example", origin]] {
            let restricted = layer.clone().only_to(origins);
            let expected = (!is_safe).then(|| ConfigError::PlainHttp { origin: origin.to_owned() });
            assert_eq!(restricted.err(), expected, "{origin}");
        }
        assert!(layer.clone().allow_plain_http().only_to([origin]).is_ok(), "{origin}");
    }
    let allowed = layer.clone().allow_plain_http().only_to(["http://billing.internal"]).unwrap();
    let seen = sent(&allowed, get("http://billing.internal/charge", &[])).await;
    assert!(seen.contains_key(AUTHORIZATION));
    let err = layer.only_to(["http://billing.internal"]).unwrap_err();
    let expected =
        "plain http to http://billing.internal, beyond loopback; use https or allow plain http";
    assert_eq!(err.to_string(), expected, "the error names the setting");
}

#[tokio::test]
async fn inner_responses_and_errors_pass_through() {
    #[derive(Clone, Debug, PartialEq)]
    struct Broken(u8);

    let layer = AddServiceTokenLayer::new(token().0);
    let failing = service_fn(|_: Request<()>| async { Err::<Response<()>, _>(Broken(7)) });
    assert_eq!(layer.layer(failing).oneshot(get("/", &[])).await.unwrap_err(), Broken(7));
    // The layer puts no bound on the type of the body.
    let custom_body =
        service_fn(|_: Request<()>| async { Ok::<_, Broken>(Response::new(Broken(8))) });
    assert_eq!(
        layer.layer(custom_body).oneshot(get("/", &[])).await.unwrap().into_body(),
        Broken(8)
    );
    let teapot = service_fn(|_: reqwest::Request| async {
        Ok::<_, Broken>(reqwest::Response::from(Response::builder().status(418).body("").unwrap()))
    });
    let request = reqwest::Request::new(reqwest::Method::GET, "http://a.example".parse().unwrap());
    assert_eq!(layer.layer(teapot).oneshot(request).await.unwrap().status(), 418);
}

#[tokio::test]
async fn call_uses_the_readied_service() {
    let inner = service_fn(|_: Request<()>| async { Ok::<_, Infallible>(Response::new(())) });
    let mut service = AddServiceTokenLayer::new(token().0).layer(ConcurrencyLimit::new(inner, 1));
    for _ in 0..3 {
        service.ready().await.unwrap().call(get("/", &[])).await.unwrap();
    }
}

/// A service that cannot be cloned. Responds with the headers of the request.
struct Unclonable;

impl Service<Request<()>> for Unclonable {
    type Response = Response<HeaderMap>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<()>) -> Self::Future {
        ready(Ok(Response::new(request.headers().clone())))
    }
}

#[tokio::test(start_paused = true)]
async fn service_without_clone_is_called_through_a_buffer() {
    const HOUR: Duration = Duration::from_secs(3600);
    let (authority, clock) = (TestAuthority::offline(), ManualClock::new());
    let core = ScriptedCore::start([good(), Step::Silence]).await;
    let request = authority.core_at(&core.url).service_token(ISSUER).validity(HOUR);
    let token = request.mint().await.unwrap();
    let value = token.header_value();
    let layer = AddServiceTokenLayer::new(token).only_to(["https://billing.internal"]).unwrap();
    // One slot for all requests.
    let mut m1 = ServiceBuilder::new().layer(layer).buffer(1).service(Unclonable);
    let mut call = async |uri: &str| {
        let response = m1.ready().await.unwrap().call(get(uri, &[])).await.unwrap();
        response.into_body().remove(AUTHORIZATION)
    };
    assert_eq!(call("https://billing.internal/").await, Some(value.clone()));

    authority.clock().advance(2 * HOUR);
    let waiting = m1.ready().await.unwrap().call(get("https://billing.internal/", &[]));
    let waiting = tokio::spawn(waiting);
    core.received(2).await;
    assert!(!waiting.is_finished(), "the expired token was sent");
    // A waiting request that held the slot would end the test here.
    let other = async {
        m1.ready().await.unwrap().call(get("https://elsewhere.example/", &[])).await.unwrap()
    };
    assert!(timeout(TIMEOUT, other).await.unwrap().into_body().is_empty());
    assert!(!waiting.is_finished(), "the request no longer waits");
    clock.advance(Duration::from_secs(6)).await;
    assert_eq!(waiting.await.unwrap().unwrap().into_body()[AUTHORIZATION], value);
}

#[tokio::test]
async fn poll_ready_forwards_back_pressure_and_errors() {
    let layer = AddServiceTokenLayer::new(token().0);
    let (mut service, mut handle) =
        mock::spawn_layer::<Request<()>, Response<()>, _>(layer.clone());
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(matches!(service.poll_ready(), Poll::Ready(Ok(()))));
    handle.send_error("broken");
    assert!(matches!(service.poll_ready(), Poll::Ready(Err(_))));

    let (mut service, mut handle) =
        mock::spawn_layer::<reqwest::Request, reqwest::Response, _>(layer);
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(matches!(service.poll_ready(), Poll::Ready(Ok(()))));
}

#[test]
fn layer_and_service_are_clone_sync_and_future_is_send() {
    fn check<T: Clone + Debug + Send + Sync + 'static>(value: T) -> T {
        value
    }
    fn send<F: Future + Send>(_: F) {}

    let layer = check(AddServiceTokenLayer::new(token().0));
    let mut service = check(layer.layer(reqwest::Client::new()));
    send(
        service.call(reqwest::Request::new(
            reqwest::Method::GET,
            "http://127.0.0.1:1".parse().unwrap(),
        )),
    );
    check(layer.layer(crate::support::Inner::default()));
}

#[test]
fn from_jwt_rejects_malformed_and_expired_tokens() {
    let authority = TestAuthority::offline();
    assert!(ServiceToken::from_jwt(authority.token().sign()).is_ok());
    // `from_jwt` has no key to verify a signature with.
    assert!(ServiceToken::from_jwt(authority.token().forged().sign()).is_ok());
    let good = authority.token().sign();
    for bad in [authority.token().expired().sign(), "garbage".to_owned(), good + "\nx: y"] {
        assert!(matches!(
            ServiceToken::from_jwt(bad).unwrap_err(),
            TokenError::Malformed { .. } | TokenError::Expired
        ));
    }
}
