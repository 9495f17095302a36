//! `RequireClaimLayer` on routes and routers, inside and outside the verify layer.

use axum::Router;
use axum::routing::post;
use tower_m2m::RequireClaimLayer;
use tower_m2m::testing::TestAuthority;

use crate::routing::{charge, health, ok};
use crate::support::{Server, Verify, credential, verify};

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
