//! Timeouts around and inside the verify layer.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::sse::{Event, Sse};
use axum::routing::get;
use axum::{BoxError, Router};
use futures_util::{StreamExt, stream};
use http_body_util::BodyExt;
use tokio::sync::{Notify, Semaphore};
use tokio::time::timeout;
use tower::ServiceBuilder;
use tower::limit::GlobalConcurrencyLimitLayer;
use tower::timeout::error::Elapsed;
use tower::util::MapRequestLayer;
use tower_http::timeout::TimeoutLayer;
use tower_m2m::testing::TestAuthority;

use crate::manual_clock::ManualClock;
use crate::support::{Barrier, Server, TIMEOUT, Verify, charge, credential, verify};

/// Below the 5 s after which a fetch of keys fails.
const LIMIT: Duration = Duration::from_secs(1);

/// Responds with 504 to a request that a `Timeout` of tower ends.
async fn elapsed(err: BoxError) -> StatusCode {
    match err.is::<Elapsed>() {
        true => StatusCode::GATEWAY_TIMEOUT,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

fn of_tower_http() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, LIMIT)
}

#[tokio::test(start_paused = true)]
async fn outer_timeout_limits_the_wait_for_a_key() {
    let clock = ManualClock::new();
    type AddTimeout = fn(Router, Verify) -> Router;
    // (timeout, whether it limits the wait for a key)
    let stacks: [(&str, AddTimeout, bool); 4] = [
        (
            "Timeout of tower, outside",
            |routes, verify| {
                let stack = ServiceBuilder::new().layer(HandleErrorLayer::new(elapsed));
                routes.route_layer(stack.timeout(LIMIT).layer(verify))
            },
            true,
        ),
        (
            "TimeoutLayer of tower-http, outside",
            |routes, verify| routes.route_layer(verify).layer(of_tower_http()),
            true,
        ),
        (
            "Timeout of tower, inside",
            |routes, verify| {
                let stack = ServiceBuilder::new().layer(HandleErrorLayer::new(elapsed));
                routes.route_layer(stack.layer(verify).timeout(LIMIT))
            },
            false,
        ),
        (
            "TimeoutLayer of tower-http, inside",
            |routes, verify| routes.route_layer(of_tower_http()).route_layer(verify),
            false,
        ),
    ];
    for (name, stack, is_limited) in stacks {
        let (authority, barrier) = (TestAuthority::start().await, Barrier::open());
        let server = Server::start(stack(charge(&barrier), verify(&authority))).await;
        authority.hang();
        let token = credential(&authority, "orders");
        let send = || server.spawn("POST /charge", Some(&token));
        let waiting = send();
        authority.wait_for_fetches(1).await;
        clock.advance(LIMIT).await;
        if is_limited {
            assert_eq!(waiting.await.unwrap(), 504, "{name}");
            authority.answer_with_keys();
        } else {
            authority.answer_with_keys();
            assert_eq!(waiting.await.unwrap(), 200, "{name}");
        }
        assert_eq!(send().await.unwrap(), 200, "{name}");
        assert_eq!(authority.fetches(), 1, "{name}: the fetch goes on after the timeout");

        // Both limit the handler.
        barrier.set_open(false);
        let handled = send();
        barrier.arrived().await;
        clock.advance(LIMIT).await;
        assert_eq!(handled.await.unwrap(), 504, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_in_one_builder_does_not_limit_permit_waits() {
    let clock = ManualClock::new();
    type AddLimits = fn(Router, Verify, GlobalConcurrencyLimitLayer) -> Router;
    // (timeout and limit, whether the timeout limits the wait)
    let stacks: [(&str, AddLimits, bool); 2] = [
        (
            "a call for each",
            |routes, verify, limit| {
                routes.route_layer(limit).route_layer(verify).layer(of_tower_http())
            },
            true,
        ),
        // The wait is in `poll_ready`, before the timeout begins and before the token is read.
        (
            "one ServiceBuilder",
            |routes, verify, limit| {
                let stack = ServiceBuilder::new().layer(of_tower_http());
                routes.route_layer(stack.layer(verify).layer(limit))
            },
            false,
        ),
    ];
    for (name, stack, is_limited) in stacks {
        let (authority, arrived) = (TestAuthority::offline(), Arc::new(Notify::new()));
        let permits = Arc::new(Semaphore::new(1));
        let limit = GlobalConcurrencyLimitLayer::with_semaphore(Arc::clone(&permits));
        let announced = Arc::clone(&arrived);
        let announce = MapRequestLayer::new(move |request: Request| {
            announced.notify_one();
            request
        });
        let app = stack(charge(&Barrier::open()), verify(&authority), limit).layer(announce);
        let server = Server::start(app).await;
        let permit = permits.acquire().await.unwrap();
        let token = credential(&authority, "orders");
        // (credential, status after the wait)
        for (token, status) in [(Some(&token), 200), (None, 401)] {
            let sent = server.spawn("POST /charge", token);
            timeout(TIMEOUT, arrived.notified()).await.unwrap();
            clock.advance(LIMIT).await;
            if is_limited {
                let expected = if status == 200 { 504 } else { status };
                assert_eq!(sent.await.unwrap(), expected, "{name}");
            } else {
                permits.add_permits(1);
                assert_eq!(sent.await.unwrap(), status, "{name}");
                assert_eq!(permits.forget_permits(1), 1, "{name}");
            }
        }
        drop(permit);
        assert_eq!(server.status("POST /charge", Some(&token)).await, 200, "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn timeout_ends_no_stream() {
    let clock = ManualClock::new();
    let authority = TestAuthority::offline();
    let barrier = Barrier::closed();
    let passed = barrier.clone();
    let events = async move || {
        let barrier = passed.clone();
        let second = stream::once(async move {
            barrier.pass().await;
            "two"
        });
        let events = stream::iter(["one"]).chain(second);
        Sse::new(events.map(|event| Ok::<_, Infallible>(Event::default().data(event))))
    };
    let routes = Router::new().route("/events", get(events));
    let app = routes.route_layer(verify(&authority)).layer(of_tower_http());
    let server = Server::start(app).await;
    let token = credential(&authority, "orders");
    let mut response = server.open(server.request("GET /events", Some(&token))).await;
    for event in ["one", "two"] {
        let frame = timeout(TIMEOUT, response.frame()).await.unwrap().unwrap().unwrap();
        assert_eq!(frame.into_data().unwrap(), format!("data: {event}\n\n"));
        if event == "one" {
            barrier.arrived().await;
            clock.advance(10 * LIMIT).await;
            barrier.set_open(true);
        }
    }
}
