//! Use of a token that has expired by the wall clock, as after a suspension of the machine, in
//! virtual time.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use http::{Request, Response};
use tokio::runtime::Builder;
use tokio::time::{Instant, timeout};
use tower::limit::ConcurrencyLimit;
use tower::{Layer, Service, ServiceExt, service_fn};

use super::logs::Logs;
use super::renewal::{Core, HOUR, Slow, pass, reject, value};
use crate::client::{AddServiceTokenLayer, RequestToken};
use crate::testing::TestAuthority;
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;

const BILLING: &str = "https://billing.internal/charge";
const MINUTE: Duration = Duration::from_secs(60);
const EXPIRED: &str = "service token expired";
const ELSEWHERE: &str = "https://elsewhere.example/";

/// A token of one hour whose successor is being minted, which takes this long, when the wall clock
/// passes its expiry.
async fn expired_during_a_mint(seconds: u64) -> (Core, ServiceToken) {
    let core = Core::new(3600);
    let minter = Slow { core: core.clone(), seconds, retry_after: None };
    let token = core.token_from(RenewalPolicy::BeforeExpiry, minter);
    while core.last_attempt().is_none() {
        pass(1).await;
    }
    core.clock().advance(HOUR);
    (core, token)
}

fn expired_without_renewal() -> ServiceToken {
    let authority = TestAuthority::offline();
    let (jwt, clock) = (authority.token().validity(MINUTE).sign(), authority.clock());
    let token = ServiceToken::from_jwt_at(&jwt, clock.shared()).unwrap();
    clock.advance(MINUTE);
    token
}

/// Responds with the `Authorization` of the request.
async fn echo(request: Request<()>) -> Result<Response<Option<HeaderValue>>, Infallible> {
    Ok(Response::new(request.headers().get(AUTHORIZATION).cloned()))
}

fn get(uri: &str) -> Request<()> {
    Request::get(uri).body(()).unwrap()
}

/// Sends a request through the layer. Returns what it carried, and the time that it took.
async fn send(layer: &AddServiceTokenLayer) -> (Option<HeaderValue>, Duration) {
    send_request(layer, get(BILLING)).await
}

async fn send_request(
    layer: &AddServiceTokenLayer,
    request: Request<()>,
) -> (Option<HeaderValue>, Duration) {
    let start = Instant::now();
    let response = layer.layer(service_fn(echo)).oneshot(request).await.unwrap();
    (response.into_body(), start.elapsed())
}

#[tokio::test(start_paused = true)]
async fn request_with_an_expired_token_waits_for_the_mint() {
    let logs = Logs::of_this_thread();
    let (core, token) = expired_during_a_mint(3).await;
    let layer = AddServiceTokenLayer::new(token.clone());
    let (carried, waited) = send(&layer).await;
    assert_eq!(core.count(), 2, "the expired token was sent");
    assert_eq!(carried, Some(token.header_value()));
    assert!(waited > Duration::ZERO && waited <= Duration::from_secs(3), "{waited:?}");
    assert_eq!(logs.count(EXPIRED), 0, "no expired token was handed out");
    assert_eq!(send(&layer).await, (carried, Duration::ZERO));
}

#[tokio::test(start_paused = true)]
async fn request_waits_only_for_the_token_of_its_origin() {
    for is_first in [true, false] {
        let (core, expired) = expired_during_a_mint(3).await;
        let (old, other_core) = (expired.header_value(), Core::new(3600));
        let good = other_core.token(RenewalPolicy::OnRejection);
        let mut tokens = [("https://billing.internal", expired.clone()), (ELSEWHERE, good.clone())];
        if !is_first {
            tokens.reverse();
        }
        let mut service = AddServiceTokenLayer::by_origin(tokens).unwrap().layer(service_fn(echo));
        let start = Instant::now();
        let waiting = service.ready().await.unwrap().call(get(BILLING));
        let other = service.ready().await.unwrap().call(get(ELSEWHERE)).await.unwrap();
        assert_eq!(other.into_body(), Some(good.header_value()));
        assert_eq!(start.elapsed(), Duration::ZERO);
        let carried = waiting.await.unwrap().into_body();
        assert!(start.elapsed() > Duration::ZERO, "the expired token was sent");
        assert_eq!(carried, Some(expired.header_value()));
        assert_ne!(carried, Some(old));
        assert_eq!((core.count(), other_core.count()), (2, 1));
    }
}

#[tokio::test(start_paused = true)]
async fn request_waits_only_for_the_token_of_its_extension() {
    let (_core, expired) = expired_during_a_mint(3).await;
    let good = Core::new(3600).token(RenewalPolicy::OnRejection);
    let with = |extension: RequestToken| {
        let mut request = get(BILLING);
        request.extensions_mut().insert(extension);
        request
    };
    let layer = AddServiceTokenLayer::new(expired.clone());
    for (extension, carried) in
        [(RequestToken::none(), None), (RequestToken::of(good.clone()), Some(good.header_value()))]
    {
        let sent = send_request(&layer, with(extension)).await;
        assert_eq!(sent, (carried, Duration::ZERO));
    }
    let (layer, old) = (AddServiceTokenLayer::new(good), expired.header_value());
    let own = with(RequestToken::of(expired.clone()));
    let (carried, waited) = send_request(&layer, own).await;
    assert!(waited > Duration::ZERO, "the expired token was sent");
    assert_eq!(carried, Some(expired.header_value()));
    assert_ne!(carried, Some(old));
}

#[tokio::test(start_paused = true)]
async fn hanging_mint_delays_each_request_by_five_seconds() {
    let (_core, token) = expired_during_a_mint(100_000).await;
    let logs = Logs::of_this_thread();
    let layer = AddServiceTokenLayer::new(token.clone());
    let five_seconds = Duration::from_secs(5);
    let both = tokio::join!(send(&layer), send(&layer));
    let old = (Some(token.header_value()), five_seconds);
    assert_eq!(both, (old.clone(), old.clone()));
    assert_eq!(send(&layer).await, old);
    assert_eq!(logs.count(EXPIRED), 1);
}

#[tokio::test(start_paused = true)]
async fn request_that_waits_for_a_mint_holds_no_permit() {
    let (_core, token) = expired_during_a_mint(3).await;
    let layer = AddServiceTokenLayer::new(token).only_to(["https://billing.internal"]).unwrap();
    let mut service = layer.layer(ConcurrencyLimit::new(service_fn(echo), 1));
    let waiting = service.ready().await.unwrap().call(get(BILLING));
    // The caller keeps `service`, and there is one permit.
    let start = Instant::now();
    let other = timeout(MINUTE, service.clone().oneshot(get(ELSEWHERE))).await;
    let other = other.expect("the waiting request holds the permit").unwrap();
    assert_eq!((other.into_body(), start.elapsed()), (None, Duration::ZERO));
    drop(service.ready().await.unwrap().call(get(BILLING)));
    // The inner service becomes ready only after the wait, so it has a permit again.
    assert!(waiting.await.unwrap().into_body().is_some());
    let ready = poll_fn(|cx| Poll::Ready(Service::<Request<()>>::poll_ready(&mut service, cx)));
    assert!(matches!(ready.await, Poll::Ready(Ok(()))));
}

#[tokio::test(start_paused = true)]
async fn request_beyond_1024_waiting_ones_is_sent_at_once() {
    let (_core, token) = expired_during_a_mint(100_000).await;
    let old = Some(token.header_value());
    let layer = AddServiceTokenLayer::new(token);
    // The inner service has one permit, so a request may have to wait for it after the renewal.
    let mut service = layer.layer(ConcurrencyLimit::new(service_fn(echo), 1));
    let mut waiting = Vec::new();
    for _ in 0..1024 {
        waiting.push(service.ready().await.unwrap().call(get(BILLING)));
    }
    assert_eq!(send(&layer).await, (old.clone(), Duration::ZERO));
    waiting.pop();
    assert_eq!(send(&layer).await, (old.clone(), Duration::from_secs(5)), "one was dropped");
    let start = Instant::now();
    for request in waiting {
        assert_eq!(request.await.unwrap().into_body(), old);
    }
    assert_eq!(start.elapsed(), Duration::ZERO);
    assert_eq!(send(&layer).await.1, Duration::from_secs(5), "all slots are free");
}

/// An expired token whose core is down, after the first attempt to renew it.
async fn expired_after_a_failed_mint() -> (Core, ServiceToken) {
    let core = Core::new(3600);
    let token = core.token(RenewalPolicy::BeforeExpiry);
    core.set_down(true);
    while core.last_attempt().is_none() {
        pass(1).await;
    }
    core.clock().advance(HOUR);
    (core, token)
}

#[tokio::test(start_paused = true)]
async fn request_waits_only_while_a_mint_is_in_progress() {
    let never_due = {
        let core = Core::new(3600);
        let token = core.token(RenewalPolicy::OnRejection);
        core.clock().advance(HOUR);
        token
    };
    let (_, core_is_down) = expired_after_a_failed_mint().await;
    let cases = [
        ("from_jwt", expired_without_renewal()),
        ("never due", never_due),
        ("pause after a failed mint", core_is_down),
    ];
    for (case, token) in cases {
        let old = token.header_value();
        let sent = send(&AddServiceTokenLayer::new(token)).await;
        assert_eq!(sent, (Some(old), Duration::ZERO), "{case}");
    }

    let (_core, token) = expired_during_a_mint(3).await;
    let layer = AddServiceTokenLayer::new(token);
    let elsewhere = layer.clone().only_to(["https://elsewhere.example"]).unwrap();
    assert_eq!(send(&elsewhere).await, (None, Duration::ZERO), "another origin");
    let start = Instant::now();
    let mut own = get(BILLING);
    own.headers_mut().insert(AUTHORIZATION, HeaderValue::from_static("Basic b3du"));
    let kept = layer.if_not_present().layer(service_fn(echo)).oneshot(own).await.unwrap();
    assert_eq!(kept.into_body().unwrap(), "Basic b3du");
    assert_eq!(start.elapsed(), Duration::ZERO, "a header of its own");
}

#[test]
fn request_outside_a_runtime_does_not_wait() {
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (_core, token) = runtime.block_on(expired_during_a_mint(3));
    let old = Some(token.header_value());
    let mut service = AddServiceTokenLayer::new(token).layer(service_fn(echo));
    let mut cx = Context::from_waker(Waker::noop());
    assert!(Service::<Request<()>>::poll_ready(&mut service, &mut cx).is_ready());
    let response = pin!(service.call(get(BILLING))).poll(&mut cx);
    assert!(matches!(response, Poll::Ready(Ok(response)) if *response.body() == old));
}

#[tokio::test(start_paused = true)]
async fn use_of_an_expired_token_is_logged_once() {
    let logs = Logs::of_this_thread();
    let use_often = async |token: &ServiceToken| {
        for _ in 0..3 {
            let _ = token.header_value();
            token.apply(&mut HeaderMap::new());
            send(&AddServiceTokenLayer::new(token.clone())).await;
        }
    };
    use_often(&expired_without_renewal()).await;
    assert_eq!(logs.count(EXPIRED), 1);

    let core = Core::new(3600);
    let token = core.token(RenewalPolicy::OnRejection);
    use_often(&token).await;
    assert_eq!(logs.count(EXPIRED), 1, "it is valid");
    for expiries in [2, 3] {
        core.clock().advance(HOUR);
        use_often(&token).await;
        assert_eq!(logs.count(EXPIRED), expiries, "once for each value of the token");
        reject(&token, value(&token).1);
        pass(60).await;
    }
    use_often(&token).await;
    assert_eq!((core.count(), logs.count(EXPIRED)), (3, 3), "the new token is valid");
}

#[tokio::test(start_paused = true)]
async fn expiry_is_logged_once_by_the_task_or_a_use() {
    for is_used in [false, true] {
        let logs = Logs::of_this_thread();
        let (_, token) = expired_after_a_failed_mint().await;
        if is_used {
            let _ = token.header_value();
        }
        pass(3600).await;
        let _ = token.header_value();
        assert_eq!(logs.count(EXPIRED), 1, "used before the task wakes: {is_used}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_mint_ends_the_wait_of_requests() {
    let core = Core::new(3600);
    let retry_after = Some(Duration::ZERO);
    let minter = Slow { core: core.clone(), seconds: 3, retry_after };
    let token = core.token_from(RenewalPolicy::BeforeExpiry, minter);
    while core.last_attempt().is_none() {
        pass(1).await;
    }
    core.clock().advance(HOUR);
    let layer = AddServiceTokenLayer::new(token.clone());
    let (carried, waited) = send(&layer).await;
    assert_eq!(carried, Some(token.header_value()));
    assert!(waited <= Duration::from_secs(3), "{waited:?}");
    assert_eq!(send(&layer).await, (carried, Duration::ZERO), "the next mint is not due");
}

#[test]
fn use_outside_a_runtime_logs_the_expiry_and_hands_it_out() {
    let logs = Logs::of_this_thread();
    let runtime = Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    let (core, token) = runtime.block_on(async {
        let core = Core::new(3600);
        let token = core.token(RenewalPolicy::BeforeExpiry);
        (core, token)
    });
    drop(runtime);
    let first = token.header_value();
    assert_eq!(logs.count(EXPIRED), 0);
    core.clock().advance(HOUR);
    for _ in 0..3 {
        assert_eq!(token.header_value(), first);
    }
    assert_eq!((logs.count(EXPIRED), core.count()), (1, 1));
}
