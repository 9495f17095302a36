//! What `layer` and `route_layer` protect, with nested and merged routers and fallbacks.

use axum::Router;
use axum::http::StatusCode;
use axum::routing::{any, get, get_service, options, post};
use tower::{Layer, service_fn};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{RequireClaimLayer, VerifyServiceTokenLayer};

use crate::support::{Server, credential, header, verify};

type Verify = VerifyServiceTokenLayer;

/// Its name, the router, and the request lines with the statuses without and with a token.
type Shape = (&'static str, fn(Verify) -> Router, &'static [(&'static str, u16, u16)]);

async fn ok() -> &'static str {
    "ok"
}

/// A status that no layer responds with.
async fn teapot() -> StatusCode {
    StatusCode::IM_A_TEAPOT
}

/// One route, with no layer.
fn charge() -> Router {
    Router::new().route("/charge", post(ok))
}

fn health() -> Router {
    Router::new().route("/health", get(ok))
}

/// Asserts the statuses of each request.
async fn check(shapes: &[Shape]) {
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
async fn route_layer_protects_earlier_routes_alone() {
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
async fn fallback_is_protected_by_a_later_layer_alone() {
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

#[tokio::test]
async fn nested_router_is_protected_inside_or_outside() {
    check(&[
        (
            "route_layer inside",
            |verify| health().nest("/internal", charge().route_layer(verify)),
            &[
                ("POST /internal/charge", 401, 200),
                ("GET /internal/charge", 401, 405),
                ("GET /internal/unknown", 404, 404),
                ("GET /internal", 404, 404),
                ("GET /health", 200, 200),
            ],
        ),
        (
            "layer inside: the default fallback is not nested",
            |verify| health().nest("/internal", charge().layer(verify)),
            &[
                ("POST /internal/charge", 401, 200),
                ("GET /internal/charge", 401, 405),
                ("GET /internal/unknown", 404, 404),
                ("GET /unknown", 404, 404),
                ("GET /health", 200, 200),
            ],
        ),
        (
            "layer inside, after a fallback",
            |verify| health().nest("/internal", charge().fallback(ok).layer(verify)),
            &[
                ("POST /internal/charge", 401, 200),
                ("GET /internal/unknown", 401, 200),
                ("GET /internal", 401, 200),
                ("GET /unknown", 404, 404),
            ],
        ),
        (
            "route_layer inside, after a fallback",
            |verify| health().nest("/internal", charge().fallback(ok).route_layer(verify)),
            &[("POST /internal/charge", 401, 200), ("GET /internal/unknown", 200, 200)],
        ),
        (
            "route_layer outside",
            |verify| health().nest("/internal", charge().fallback(ok)).route_layer(verify),
            &[
                ("POST /internal/charge", 401, 200),
                ("GET /internal/unknown", 200, 200),
                ("GET /health", 401, 200),
            ],
        ),
        (
            "layer outside",
            |verify| health().nest("/internal", charge().fallback(ok)).layer(verify),
            &[
                ("POST /internal/charge", 401, 200),
                ("GET /internal/unknown", 401, 200),
                ("GET /unknown", 401, 404),
            ],
        ),
        (
            "nested after the layer",
            |verify| health().layer(verify).nest("/internal", charge()),
            &[("GET /health", 401, 200), ("POST /internal/charge", 200, 200)],
        ),
        (
            "two levels, layer on the middle one",
            |verify| {
                let v1 = health().nest("/internal", charge()).route_layer(verify);
                health().nest("/v1", v1)
            },
            &[
                ("POST /v1/internal/charge", 401, 200),
                ("GET /v1/health", 401, 200),
                ("GET /health", 200, 200),
            ],
        ),
    ])
    .await;
}

#[tokio::test]
async fn nested_service_is_protected_with_all_its_paths() {
    check(&[
        (
            "route_layer outside",
            |verify| Router::new().nest_service("/internal", charge()).route_layer(verify),
            &[
                ("POST /internal/charge", 401, 200),
                ("GET /internal/charge", 401, 405),
                ("GET /internal/unknown", 401, 404),
                ("GET /internal", 401, 404),
                ("GET /internal/", 401, 404),
                ("GET /unknown", 404, 404),
            ],
        ),
        (
            "around the service",
            |verify| health().nest_service("/internal", verify.layer(charge())),
            &[
                ("POST /internal/charge", 401, 200),
                ("GET /internal/unknown", 401, 404),
                ("GET /health", 200, 200),
            ],
        ),
        (
            "route_layer inside",
            |verify| health().nest_service("/internal", charge().route_layer(verify)),
            &[("POST /internal/charge", 401, 200), ("GET /internal/unknown", 404, 404)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn merged_router_keeps_its_own_layers() {
    check(&[
        (
            "public, merged with route_layer",
            |verify| health().merge(charge().route_layer(verify)),
            &[
                ("POST /charge", 401, 200),
                ("GET /charge", 401, 405),
                ("GET /health", 200, 200),
                ("GET /unknown", 404, 404),
            ],
        ),
        (
            "route_layer, merged with public",
            |verify| charge().route_layer(verify).merge(health()),
            &[("POST /charge", 401, 200), ("GET /health", 200, 200), ("GET /unknown", 404, 404)],
        ),
        (
            "public, merged with layer: its default fallback replaces the public one",
            |verify| health().merge(charge().layer(verify)),
            &[
                ("POST /charge", 401, 200),
                ("GET /health", 200, 200),
                ("POST /health", 405, 405),
                ("GET /unknown", 401, 404),
            ],
        ),
        (
            "layer, merged with public: the public default fallback replaces the protected one",
            |verify| charge().layer(verify).merge(health()),
            &[("POST /charge", 401, 200), ("GET /health", 200, 200), ("GET /unknown", 404, 404)],
        ),
        (
            "a fallback of the public router wins",
            |verify| health().fallback(ok).merge(charge().layer(verify)),
            &[("POST /charge", 401, 200), ("GET /unknown", 200, 200)],
        ),
        (
            "a fallback of the protected router wins",
            |verify| health().merge(charge().fallback(ok).layer(verify)),
            &[("GET /health", 200, 200), ("GET /unknown", 401, 200)],
        ),
        (
            "route_layer after merge",
            |verify| health().merge(charge()).route_layer(verify),
            &[("POST /charge", 401, 200), ("GET /health", 401, 200), ("GET /unknown", 404, 404)],
        ),
        (
            "merged after route_layer",
            |verify| health().route_layer(verify).merge(charge()),
            &[("GET /health", 401, 200), ("POST /charge", 200, 200)],
        ),
        (
            "one path in both",
            |verify| charge().route_layer(verify).merge(Router::new().route("/charge", get(ok))),
            &[("POST /charge", 401, 200), ("GET /charge", 200, 200)],
        ),
    ])
    .await;
}

#[tokio::test]
async fn claim_layer_applies_inside_the_verify_layer() {
    fn orders() -> RequireClaimLayer {
        RequireClaimLayer::new("service", "orders")
    }
    /// Its name, the router, and the request lines with the statuses without a token, and with
    /// the tokens of another service and of the required one.
    type Shape = (&'static str, fn(Verify) -> Router, &'static [(&'static str, [u16; 3])]);
    let shapes: &[Shape] = &[
        (
            "route_layer on a route",
            |verify| {
                let charge = post(ok).route_layer(orders());
                Router::new().route("/charge", charge.get(ok)).route_layer(verify)
            },
            &[
                ("POST /charge", [401, 403, 200]),
                ("GET /charge", [401, 200, 200]),
                ("PUT /charge", [401, 405, 405]),
            ],
        ),
        (
            "layer on a route, inside route_layer",
            |verify| Router::new().route("/charge", post(ok).layer(orders())).route_layer(verify),
            &[("POST /charge", [401, 403, 200]), ("PUT /charge", [401, 403, 405])],
        ),
        (
            "layer on a route, inside layer",
            |verify| Router::new().route("/charge", post(ok).layer(orders())).layer(verify),
            &[("POST /charge", [401, 403, 200]), ("PUT /charge", [401, 403, 405])],
        ),
        (
            "nested router",
            |verify| health().nest("/internal", charge().route_layer(orders())).route_layer(verify),
            &[
                ("POST /internal/charge", [401, 403, 200]),
                ("GET /health", [401, 200, 200]),
                ("GET /internal/unknown", [404; 3]),
            ],
        ),
        (
            "merged router",
            |verify| health().merge(charge().route_layer(orders())).route_layer(verify),
            &[("POST /charge", [401, 403, 200]), ("GET /health", [401, 200, 200])],
        ),
        (
            "outside the verify layer",
            |verify| charge().route_layer(verify).route_layer(orders()),
            &[("POST /charge", [500; 3])],
        ),
        (
            "without the verify layer",
            |verify| {
                let public = Router::new().nest("/internal", charge().route_layer(orders()));
                public.merge(health().route_layer(verify))
            },
            &[("POST /internal/charge", [500; 3]), ("GET /health", [401, 200, 200])],
        ),
    ];
    let authority = TestAuthority::offline();
    let tokens = ["refunds", "orders"].map(|service| credential(&authority, service));
    for (name, router, requests) in shapes {
        let server = Server::start(router(verify(&authority))).await;
        for (line, expected) in *requests {
            let mut seen = [server.status(line, None).await, 0, 0];
            for (status, token) in seen[1..].iter_mut().zip(&tokens) {
                *status = server.status(line, Some(token)).await;
            }
            assert_eq!(seen, *expected, "{name}: {line}");
        }
    }
}
