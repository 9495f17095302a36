//! `ConcurrencyLimit`, `LoadShed`, `Buffer` and `HandleErrorLayer` around and inside the verify
//! layer.

use std::convert::Infallible;

use axum::error_handling::HandleErrorLayer;
use axum::extract::Request;
use axum::http::{StatusCode, Uri};
use axum::response::sse::{Event, Sse};
use axum::routing::{get, post};
use axum::{BoxError, Router};
use futures_util::stream;
use tower::ServiceBuilder;
use tower::limit::{ConcurrencyLimitLayer, GlobalConcurrencyLimitLayer};
use tower::load_shed::error::Overloaded;
use tower_m2m::testing::TestAuthority;

use crate::manual_clock::ManualClock;
use crate::support::{Barrier, Server, Verify, charge, credential, header, verify};

/// Its name, what it does to the routes, and the statuses of a request without a token and of one
/// with a token.
type Case = (&'static str, fn(Router, Verify) -> Router, u16, u16);

/// Responds with 503 to a request that `LoadShed` sheds.
async fn overloaded(err: BoxError) -> StatusCode {
    match err.is::<Overloaded>() {
        true => StatusCode::SERVICE_UNAVAILABLE,
        false => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// A limit of one request at a time, which refuses further ones.
fn limit(routes: Router) -> Router {
    let limit = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded)).load_shed();
    routes.route_layer(limit.layer(GlobalConcurrencyLimitLayer::new(1)))
}

/// Builds each layer once. `axum::serve` would otherwise build them per connection.
async fn serve(app: Router) -> Server {
    Server::start(app.with_state(())).await
}

#[tokio::test(start_paused = true)]
async fn request_that_waits_for_a_key_holds_no_inner_permit() {
    let _clock = ManualClock::new();
    let cases: &[Case] = &[
        (
            "ConcurrencyLimit inside",
            |routes, verify| {
                routes.route_layer(ServiceBuilder::new().layer(verify).concurrency_limit(1))
            },
            401,
            200,
        ),
        (
            "LoadShed outside, ConcurrencyLimit inside",
            |routes, verify| {
                let stack = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded));
                routes.route_layer(stack.load_shed().layer(verify).concurrency_limit(1))
            },
            401,
            200,
        ),
        (
            "Buffer inside",
            |routes, verify| {
                let stack = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded));
                routes.route_layer(stack.layer(verify).buffer::<Request>(1))
            },
            401,
            200,
        ),
        (
            "Buffer and ConcurrencyLimit inside",
            |routes, verify| {
                let stack = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded));
                let stack = stack.layer(verify).buffer::<Request>(1);
                routes.route_layer(stack.concurrency_limit(1))
            },
            401,
            200,
        ),
        (
            "limit in an earlier route_layer",
            |routes, verify| limit(routes).route_layer(verify),
            401,
            200,
        ),
        (
            "Buffer outside",
            |routes, verify| {
                let stack = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded));
                routes.route_layer(stack.buffer::<Request>(1).layer(verify))
            },
            401,
            200,
        ),
        ("limit outside", |routes, verify| limit(routes.route_layer(verify)), 503, 503),
    ];
    for (name, stack, without, with) in cases {
        let authority = TestAuthority::start().await;
        let barrier = Barrier::open();
        let server = serve(stack(charge(&barrier), verify(&authority))).await;
        let known = credential(&authority, "orders");
        assert_eq!(server.status("POST /charge", Some(&known)).await, 200, "{name}");

        authority.rotate();
        authority.hang();
        let waiting = server.spawn("POST /charge", Some(&credential(&authority, "refunds")));
        authority.wait_for_fetches(2).await;
        for _ in 0..3 {
            assert_eq!(server.status("POST /charge", None).await, *without, "{name}");
            assert_eq!(server.status("POST /charge", Some(&known)).await, *with, "{name}");
        }
        authority.answer_with_keys();
        assert_eq!(waiting.await.unwrap(), 200, "{name}");
        assert_eq!(server.status("POST /charge", Some(&known)).await, 200, "{name}");
    }
}

/// Asserts the statuses of requests that arrive while another one has the only permit.
async fn check_full(cases: &[Case]) {
    for (name, stack, without, with) in cases {
        let (authority, barrier) = (TestAuthority::offline(), Barrier::closed());
        let server = serve(stack(charge(&barrier), verify(&authority))).await;
        let token = credential(&authority, "orders");
        let held = server.spawn("POST /charge", Some(&token));
        barrier.arrived().await;
        for _ in 0..3 {
            let refused = server.send("POST /charge", None).await;
            assert_eq!(refused.status(), *without, "{name}");
            let challenge = header(&refused, "www-authenticate");
            assert_eq!(challenge.is_some(), *without == 401, "{name}: {challenge:?}");
            assert_eq!(server.status("POST /charge", Some(&token)).await, *with, "{name}");
        }
        barrier.set_open(true);
        assert_eq!(held.await.unwrap(), 200, "{name}");
        assert_eq!(server.status("POST /charge", Some(&token)).await, 200, "{name}");
    }
}

#[tokio::test]
async fn full_inner_limit_refuses_after_the_token_check() {
    check_full(&[
        ("earlier route_layer", |routes, verify| limit(routes).route_layer(verify), 401, 503),
        (
            "after HandleErrorLayer",
            |routes, verify| {
                let stack = ServiceBuilder::new().layer(verify);
                let stack = stack.layer(HandleErrorLayer::new(overloaded)).load_shed();
                routes.route_layer(stack.concurrency_limit(1))
            },
            401,
            503,
        ),
    ])
    .await;
}

#[tokio::test]
async fn outer_load_shed_refuses_before_the_token_check() {
    check_full(&[
        (
            "limit inside",
            |routes, verify| {
                let stack = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded));
                routes.route_layer(stack.load_shed().layer(verify).concurrency_limit(1))
            },
            503,
            503,
        ),
        ("limit outside", |routes, verify| limit(routes.route_layer(verify)), 503, 503),
    ])
    .await;
}

#[tokio::test]
async fn limit_is_per_route_and_connection_unless_global() {
    type Limit = fn(Router) -> Router;
    // (limit, whether it refuses, while a request is handled: one of the same route and
    // connection, of another route, of another connection)
    let limits: [(&str, Limit, [bool; 3]); 3] = [
        (
            "ConcurrencyLimitLayer",
            |routes| {
                let limit = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded));
                routes.route_layer(limit.load_shed().layer(ConcurrencyLimitLayer::new(1)))
            },
            [true, false, false],
        ),
        (
            "ConcurrencyLimitLayer, made once",
            |routes| {
                let limit = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded));
                let limit = limit.load_shed().layer(ConcurrencyLimitLayer::new(1));
                routes.route_layer(limit).with_state(())
            },
            [true, false, true],
        ),
        (
            "GlobalConcurrencyLimitLayer",
            |routes| {
                let limit = ServiceBuilder::new().layer(HandleErrorLayer::new(overloaded));
                routes.route_layer(limit.load_shed().layer(GlobalConcurrencyLimitLayer::new(1)))
            },
            [true, true, true],
        ),
    ];
    for (name, limit, refuses) in limits {
        let (authority, barrier) = (TestAuthority::offline(), Barrier::closed());
        let passed = barrier.clone();
        let charge = async move |uri: Uri| {
            if uri.path() == "/charge/held" {
                passed.pass().await;
            }
        };
        let routes = Router::new().route("/charge/{id}", post(charge));
        let routes = routes.route("/refund", post(async || "refunded"));
        let other = Server::start(limit(routes).route_layer(verify(&authority))).await;
        let server = other.over_http2();
        let held = server.spawn("POST /charge/held", Some(&credential(&authority, "orders")));
        barrier.arrived().await;
        let token = credential(&authority, "orders");
        let seen = [
            server.status("POST /charge/1", Some(&token)).await,
            server.status("POST /refund", Some(&token)).await,
            other.status("POST /charge/1", Some(&token)).await,
        ];
        assert_eq!(seen.map(|status| status == 503), refuses, "{name}: {seen:?}");
        barrier.set_open(true);
        assert_eq!(held.await.unwrap(), 200, "{name}");
    }
}

#[tokio::test]
async fn open_event_stream_holds_no_permit() {
    let authority = TestAuthority::offline();
    let events = async || Sse::new(stream::pending::<Result<Event, Infallible>>());
    let app = limit(Router::new().route("/events", get(events))).route_layer(verify(&authority));
    let server = Server::start(app).await;
    let token = credential(&authority, "orders");
    let mut open = Vec::new();
    for _ in 0..3 {
        let response = server.open(server.request("GET /events", Some(&token))).await;
        assert_eq!(response.status(), 200);
        open.push(response);
    }
}
