//! `RetryOnce`: a rejected request is repeated once with the new token, over loopback sockets.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use axum::body::Bytes;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use tokio::time::{Instant, timeout};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceBuilder, ServiceExt, service_fn};
use tower_m2m::testing::{RecordingServer, TestAuthority};
use tower_m2m::{AddServiceTokenLayer, RetryOnceLayer, ServiceToken, SuperTokensCore};
use tower_test::mock;

use crate::manual_clock::ManualClock;
use crate::scripted::{ScriptedCore, Step, good, status};
use crate::support::{ISSUER, reqwest_client};

const INVALID: &str = r#"Bearer error="invalid_token""#;

/// A token of a core with this script, one second after its mint: mints are a second apart.
async fn token(script: impl Into<Vec<Step>>) -> (ScriptedCore, ServiceToken, ManualClock) {
    let clock = ManualClock::new();
    let core = ScriptedCore::start(script).await;
    let request = SuperTokensCore::new(&core.url).unwrap().service_token(ISSUER);
    let token = request.mint().await.unwrap();
    clock.advance(Duration::from_secs(1)).await;
    (core, token, clock)
}

fn post(m2: &RecordingServer) -> reqwest::Request {
    let mut request = reqwest::Request::new(Method::POST, m2.url().parse().unwrap());
    *request.body_mut() = Some("one charge".into());
    request
}

async fn status_of(layer: AddServiceTokenLayer, request: reqwest::Request) -> StatusCode {
    let client =
        ServiceBuilder::new().layer(RetryOnceLayer::new()).layer(layer).service(reqwest_client());
    client.oneshot(request).await.unwrap().status()
}

/// The values of `Authorization` and the bodies that the server has received.
fn received(m2: &RecordingServer) -> Vec<(String, Vec<u8>)> {
    let requests = m2.requests();
    let requests = requests.iter();
    requests.map(|it| (it.token().unwrap().to_owned(), it.body().to_vec())).collect()
}

fn challenge(status: u16, challenge: &str) -> Response<String> {
    let response = Response::builder().status(status).header(WWW_AUTHENTICATE, challenge);
    response.body(String::new()).unwrap()
}

#[tokio::test(start_paused = true)]
async fn rejected_request_is_repeated_with_the_new_token() {
    type Reject = fn(&RecordingServer);
    let rejections: [Reject; 2] =
        [|m2| m2.reject_next("invalid_token"), |m2| m2.reject_next_grpc()];
    for reject in rejections {
        for by_reqwest in [false, true] {
            let (core, token, _clock) = token([good()]).await;
            let m2 = RecordingServer::start().await;
            reject(&m2);
            let layer = AddServiceTokenLayer::new(token).only_to([m2.url()]).unwrap();
            let status = if by_reqwest {
                status_of(layer, post(&m2)).await
            } else {
                let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
                let client = layer.layer(client);
                let request = Request::post(m2.url()).body(Full::from("one charge")).unwrap();
                let response = RetryOnceLayer::new().layer(client).oneshot(request).await.unwrap();
                assert!(!response.headers().contains_key("grpc-status"));
                response.status()
            };
            assert_eq!(status, 200);
            let requests = received(&m2);
            assert_eq!(requests.len(), 2);
            assert_ne!(requests[0].0, requests[1].0, "the new token");
            assert!(requests.iter().all(|(_, body)| body == b"one charge"));
            assert_eq!(core.count(), 2);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn request_is_repeated_only_once() {
    let (core, token, _clock) = token([good()]).await;
    let count = Arc::new(Mutex::new(0));
    let calls = Arc::clone(&count);
    let m2 = service_fn(move |_: Request<()>| {
        let calls = Arc::clone(&calls);
        async move {
            *calls.lock().unwrap() += 1;
            // The pause between renewals passes, so each rejection causes a mint.
            tokio::time::advance(Duration::from_secs(3600)).await;
            let response = Response::builder().status(401).header(WWW_AUTHENTICATE, INVALID);
            Ok::<_, Infallible>(response.body(()).unwrap())
        }
    });
    let m1 = RetryOnceLayer::new().layer(AddServiceTokenLayer::new(token.clone()).layer(m2));
    let call = m1.oneshot(Request::new(()));
    assert_eq!(timeout(Duration::from_secs(4 * 3600), call).await.unwrap().unwrap().status(), 401);
    assert_eq!(*count.lock().unwrap(), 2);
    core.received(3).await;
}

#[tokio::test(start_paused = true)]
async fn refusal_that_a_new_token_cannot_mend_is_returned() {
    let cases = [
        (403, r#"Bearer error="insufficient_scope""#),
        (403, INVALID),
        (401, "Bearer"),
        (401, r#"Bearer error="invalid_request""#),
        (401, r#"Bearer error="invalid_token", error_description="the audience is wrong""#),
        (401, r#"Bearer error="invalid_token", error_description="the issuer is wrong""#),
        (503, INVALID),
        (200, INVALID),
    ];
    let (core, token, _clock) = token([good()]).await;
    let m2 = RecordingServer::start().await;
    for (count, (status, value)) in (1..).zip(cases) {
        m2.answer_next_with(challenge(status, value));
        let layer = AddServiceTokenLayer::new(token.clone());
        assert_eq!(status_of(layer, post(&m2)).await.as_u16(), status, "{value}");
        assert_eq!(m2.requests().len(), count, "{status} {value}");
    }
    assert_eq!(core.count(), 1);
}

#[tokio::test(start_paused = true)]
async fn request_without_the_rejected_token_is_not_repeated() {
    let (core, token, _clock) = token([good()]).await;
    let m2 = RecordingServer::start().await;
    let jwt = TestAuthority::offline().token().sign();
    let fixed = AddServiceTokenLayer::new(ServiceToken::from_jwt(jwt).unwrap());
    let elsewhere =
        AddServiceTokenLayer::new(token.clone()).only_to(["https://elsewhere.example"]).unwrap();
    let mut present = post(&m2);
    present.headers_mut().insert(AUTHORIZATION, "Bearer another".parse().unwrap());
    let stream = || {
        let mut request = post(&m2);
        *request.body_mut() = Some(reqwest::Body::wrap(Full::<Bytes>::from("a stream")));
        request
    };
    let cases = [
        ("a token without renewal", fixed, post(&m2)),
        ("another origin", elsewhere, post(&m2)),
        ("another token", AddServiceTokenLayer::new(token.clone()).if_not_present(), present),
        ("a stream", AddServiceTokenLayer::new(token.clone()), stream()),
    ];
    for (count, (what, layer, request)) in (1..).zip(cases) {
        m2.reject_next("invalid_token");
        assert_eq!(status_of(layer, request).await, 401, "{what}");
        assert_eq!(m2.requests().len(), count, "{what}");
    }
    // The layer reported the rejection of the stream's token.
    core.received(2).await;
}

#[tokio::test(start_paused = true)]
async fn first_response_is_returned_if_the_mint_fails() {
    let (core, token, _clock) = token([good(), status(500, "", "boom")]).await;
    let m2 = RecordingServer::start().await;
    for count in 1..3 {
        m2.answer_next_with(
            Response::builder()
                .status(401)
                .header("n", count)
                .header(WWW_AUTHENTICATE, INVALID)
                .body(count.to_string())
                .unwrap(),
        );
        let client = AddServiceTokenLayer::new(token.clone()).layer(reqwest_client());
        let response = RetryOnceLayer::new().layer(client).oneshot(post(&m2)).await.unwrap();
        assert_eq!(response.status(), 401);
        assert_eq!(response.text().await.unwrap(), count.to_string(), "with its body");
        assert_eq!(m2.requests().len(), count);
    }
    // The second rejection comes within the pause between renewals.
    assert_eq!(core.count(), 2);
    assert!(token.health().last_error.is_some());
}

#[tokio::test(start_paused = true)]
async fn first_response_is_returned_5s_after_a_silent_mint() {
    let (core, token, clock) = token([good(), Step::Silence]).await;
    let m2 = RecordingServer::start().await;
    m2.reject_next("invalid_token");
    let started = Instant::now();
    let call = tokio::spawn(status_of(AddServiceTokenLayer::new(token), post(&m2)));
    core.received(2).await;
    clock.advance(Duration::from_millis(4999)).await;
    tokio::task::yield_now().await;
    assert!(!call.is_finished());
    clock.advance(Duration::from_millis(2)).await;
    assert_eq!(call.await.unwrap(), 401);
    assert_eq!(started.elapsed(), Duration::from_millis(5001));
    assert_eq!(m2.requests().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn only_the_rejected_origins_token_is_renewed() {
    let (billing_core, billing, _clock) = token([good()]).await;
    let (inventory_core, inventory, _other) = token([good()]).await;
    let (m2, other) = (RecordingServer::start().await, RecordingServer::start().await);
    let layer = AddServiceTokenLayer::by_origin([
        (m2.url(), billing.clone()),
        (other.url(), inventory.clone()),
    ]);
    m2.reject_next("invalid_token");
    assert_eq!(status_of(layer.unwrap(), post(&m2)).await, 200);
    assert_eq!(m2.requests().len(), 2);
    assert_eq!((billing_core.count(), inventory_core.count()), (2, 1));
}

/// Rejects a request with the header value `rejected`. Records the values.
#[derive(Clone, Default)]
struct Values(Arc<Mutex<Vec<String>>>);

impl Values {
    fn respond(&self, request: &Request<()>, rejected: &str) -> Response<()> {
        let value = request.headers()[AUTHORIZATION].to_str().unwrap().to_owned();
        let response = match value == rejected {
            true => Response::builder().status(401).header(WWW_AUTHENTICATE, INVALID),
            false => Response::builder(),
        };
        self.0.lock().unwrap().push(value);
        response.body(()).unwrap()
    }

    fn count(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[tokio::test(start_paused = true)]
async fn requests_rejected_together_share_one_mint() {
    let (core, token, _clock) = token([good()]).await;
    let (values, rejected) = (Values::default(), token.header_value());
    let rejected = rejected.to_str().unwrap().to_owned();
    let seen = values.clone();
    let m2 = service_fn(move |request: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(seen.respond(&request, &rejected)))
    });
    let m1 = RetryOnceLayer::new().layer(AddServiceTokenLayer::new(token).layer(m2));
    let calls = (0..8).map(|_| tokio::spawn(m1.clone().oneshot(Request::new(()))));
    for call in calls.collect::<Vec<_>>() {
        assert_eq!(call.await.unwrap().unwrap().status(), 200);
    }
    assert_eq!((values.count(), core.count()), (16, 2));
}

#[tokio::test(start_paused = true)]
async fn waiting_request_holds_no_permit() {
    let (core, token, clock) = token([good(), Step::Silence]).await;
    let (values, rejected) = (Values::default(), token.header_value());
    let rejected = rejected.to_str().unwrap().to_owned();
    let m2 = service_fn(move |request: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(values.respond(&request, &rejected)))
    });
    // One permit for both.
    let limited = ConcurrencyLimit::new(m2, 1);
    let mut m1 = RetryOnceLayer::new().layer(AddServiceTokenLayer::new(token).layer(limited));
    let first = tokio::spawn(m1.ready().await.unwrap().call(Request::new(())));
    core.received(2).await;
    assert!(m1.ready().await.is_ok(), "the first request waits, without the permit");
    clock.advance(Duration::from_secs(6)).await;
    assert_eq!(first.await.unwrap().unwrap().status(), 401);
}

#[tokio::test(start_paused = true)]
async fn call_and_repetition_use_a_readied_service() {
    let (_core, token, _clock) = token([good()]).await;
    let rejected = token.header_value();
    let rejected = rejected.to_str().unwrap().to_owned();
    let values = Values::default();
    let m2 = service_fn(move |request: Request<()>| {
        std::future::ready(Ok::<_, Infallible>(values.respond(&request, &rejected)))
    });
    // Panics if it is called without a permit.
    let limited = ConcurrencyLimit::new(m2, 1);
    let mut m1 = RetryOnceLayer::new().layer(AddServiceTokenLayer::new(token).layer(limited));
    for _ in 0..3 {
        let response = m1.ready().await.unwrap().call(Request::new(())).await.unwrap();
        assert_eq!(response.status(), 200);
    }
}

#[tokio::test]
async fn back_pressure_and_errors_are_forwarded() {
    let layer = RetryOnceLayer::new();
    let (mut service, mut handle) = mock::spawn_layer::<Request<()>, Response<()>, _>(layer);
    handle.allow(0);
    assert!(service.poll_ready().is_pending());
    handle.allow(1);
    assert!(matches!(service.poll_ready(), Poll::Ready(Ok(()))));
    let response = service.call(Request::new(()));
    handle.next_request().await.unwrap().1.send_error("broken");
    assert_eq!(response.await.unwrap_err().to_string(), "broken");
    handle.send_error("closed");
    assert!(matches!(service.poll_ready(), Poll::Ready(Err(_))));
}

#[test]
fn layer_and_service_are_clone_sync_and_future_is_send() {
    fn check<T: Clone + std::fmt::Debug + Send + Sync + 'static>(value: T) -> T {
        value
    }
    fn send<F: Future + Send>(_: F) {}

    let token = ServiceToken::from_jwt(TestAuthority::offline().token().sign()).unwrap();
    let layer = check(RetryOnceLayer::new());
    let inner = AddServiceTokenLayer::new(token).layer(reqwest::Client::new());
    let mut service = check(layer.layer(inner));
    let url = "http://127.0.0.1:1".parse().unwrap();
    send(service.call(reqwest::Request::new(Method::GET, url)));
}
