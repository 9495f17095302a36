//! What `layer` and `route_layer` protect: routes, methods and fallbacks. `nesting.rs` has nested
//! and merged routers.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{any, get, get_service, options, post};
use tower::{Layer, service_fn};
use tower_m2m::testing::TestAuthority;

use crate::support::{Server, Verify, credential, header, verify};

/// Its name, the router, and the request lines with the statuses without and with a token.
pub(crate) type Shape = (&'static str, fn(Verify) -> Router, &'static [(&'static str, u16, u16)]);

pub(crate) async fn ok() -> &'static str {
    "ok"
}

/// A status that no layer responds with.
async fn teapot() -> StatusCode {
    StatusCode::IM_A_TEAPOT
}

/// One route, with no layer.
pub(crate) fn charge() -> Router {
    Router::new().route("/charge", post(ok))
}

pub(crate) fn health() -> Router {
    Router::new().route("/health", get(ok))
}

/// Asserts the statuses of each request.
pub(crate) async fn check(shapes: &[Shape]) {
    let authority = TestAuthority::offline();
    let token = credential(&authority, "orders");
    let mut mismatches = Vec::new();
    for (name, router, requests) in shapes {
        let server = Server::start(router(verify(&authority))).await;
        for (line, without, with) in *requests {
            let refused = server.send(line, None).await;
            let seen = (refused.status().as_u16(), server.status(line, Some(&token)).await);
            if seen != (*without, *with) {
                mismatches.push(format!("{name}: {line}: {seen:?}, expected {without}, {with}"));
            }
            let is_challenged = header(&refused, "www-authenticate").is_some();
            assert_eq!(is_challenged, seen.0 == 401, "{name}: {line}");
        }
    }
    assert!(mismatches.is_empty(), "{mismatches:#?}");
}

#[tokio::test]
async fn route_layer_protects_only_earlier_routes() {
    check(&[
        (
            "route_layer, then a public route",
            |verify| charge().route_layer(verify).route("/health", get(ok)),
            &[
                ("POST /charge", 401, 200),
                ("POST /charge?x=1", 401, 200),
                ("GET /charge", 401, 405),
                ("HEAD /charge", 401, 405),
                ("OPTIONS /charge", 401, 405),
                ("POST /charge/", 404, 404),
                ("POST /CHARGE", 404, 404),
                ("POST //charge", 404, 404),
                ("GET /unknown", 404, 404),
                ("GET /health", 200, 200),
                ("HEAD /health", 200, 200),
                ("POST /health", 405, 405),
            ],
        ),
        (
            "the other methods of a route",
            |verify| {
                let rates = Router::new().route("/rates", get(ok)).route("/log", any(ok));
                rates.route("/options", options(ok)).route_layer(verify)
            },
            &[
                ("GET /rates", 401, 200),
                ("HEAD /rates", 401, 200),
                ("OPTIONS /rates", 401, 405),
                ("OPTIONS /options", 401, 200),
                // `any` is a fallback of its route, and is covered all the same.
                ("GET /log", 401, 200),
                ("PURGE /log", 401, 200),
            ],
        ),
        (
            "a method that is added after route_layer is public",
            |verify| charge().route_layer(verify).route("/charge", get(ok)),
            &[("POST /charge", 401, 200), ("GET /charge", 200, 200), ("PUT /charge", 405, 405)],
        ),
        (
            "a service as a route",
            |verify| {
                let service = service_fn(async |_| Ok(StatusCode::OK));
                let routes = Router::new().route_service("/any", service);
                routes.route("/get", get_service(service)).route_layer(verify)
            },
            &[("PUT /any", 401, 200), ("GET /get", 401, 200), ("PUT /get", 401, 405)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn layer_protects_the_fallback_too() {
    check(&[
        (
            "layer, then a public route",
            |verify| charge().layer(verify).route("/health", get(ok)),
            &[
                ("POST /charge", 401, 200),
                ("GET /charge", 401, 405),
                ("HEAD /charge", 401, 405),
                ("OPTIONS /charge", 401, 405),
                ("GET /unknown", 401, 404),
                ("GET /health", 200, 200),
                ("POST /health", 405, 405),
            ],
        ),
        (
            "a router without routes",
            |verify| Router::new().layer(verify),
            &[("GET /", 401, 404), ("GET /unknown", 401, 404)],
        ),
        (
            "around the whole router, whatever is added to it",
            |verify| Router::new().fallback_service(verify.layer(charge().merge(health()))),
            &[
                ("POST /charge", 401, 200),
                ("GET /charge", 401, 405),
                ("GET /health", 401, 200),
                ("GET /unknown", 401, 404),
            ],
        ),
    ])
    .await;
}

#[tokio::test]
async fn fallback_is_protected_only_by_a_later_layer() {
    check(&[
        (
            "fallback, then layer",
            |verify| charge().fallback(ok).layer(verify),
            &[("GET /unknown", 401, 200), ("GET /charge", 401, 405)],
        ),
        (
            "layer, then fallback",
            |verify| charge().layer(verify).fallback(ok),
            &[("POST /charge", 401, 200), ("GET /unknown", 200, 200)],
        ),
        (
            "fallback, then route_layer",
            |verify| charge().fallback(ok).route_layer(verify),
            &[("POST /charge", 401, 200), ("GET /unknown", 200, 200)],
        ),
        (
            "method_not_allowed_fallback, then layer",
            |verify| charge().method_not_allowed_fallback(teapot).layer(verify),
            &[("POST /charge", 401, 200), ("GET /charge", 401, 418)],
        ),
        (
            "layer, then method_not_allowed_fallback",
            |verify| charge().layer(verify).method_not_allowed_fallback(teapot),
            &[("POST /charge", 401, 200), ("GET /charge", 418, 418)],
        ),
        (
            "method_not_allowed_fallback, then route_layer",
            |verify| charge().method_not_allowed_fallback(teapot).route_layer(verify),
            &[("POST /charge", 401, 200), ("GET /charge", 401, 418)],
        ),
        (
            "route_layer, then method_not_allowed_fallback",
            |verify| charge().route_layer(verify).method_not_allowed_fallback(teapot),
            &[("POST /charge", 401, 200), ("GET /charge", 418, 418)],
        ),
        (
            "route_layer, then fallback",
            |verify| charge().route_layer(verify).fallback(ok),
            &[("POST /charge", 401, 200), ("GET /unknown", 200, 200)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn layer_on_a_route_protects_its_earlier_methods() {
    check(&[
        (
            "layer",
            |verify| {
                let route = post(ok).layer(verify).get(ok);
                Router::new().fallback(ok).route("/charge", route)
            },
            &[
                ("POST /charge", 401, 200),
                ("GET /charge", 200, 200),
                ("PUT /charge", 401, 405),
                ("GET /unknown", 200, 200),
            ],
        ),
        (
            "route_layer",
            |verify| Router::new().route("/charge", post(ok).route_layer(verify).get(ok)),
            &[
                ("POST /charge", 401, 200),
                ("GET /charge", 200, 200),
                ("PUT /charge", 405, 405),
                ("GET /unknown", 404, 404),
            ],
        ),
    ])
    .await;
}
