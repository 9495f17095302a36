//! What `layer` and `route_layer` protect in nested and merged routers.

use axum::Router;
use axum::routing::get;
use tower::Layer;

use crate::routing::{charge, check, health, ok};

#[tokio::test]
async fn nested_routes_are_protected_fallbacks_only_by_layer() {
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
