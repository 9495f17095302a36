//! `CorsLayer` outside and inside the verify layer.

use axum::Router;
use axum::routing::post;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request};
use tower::ServiceBuilder;
use tower_http::cors::CorsLayer;
use tower_m2m::testing::TestAuthority;

use crate::support::{Server, Verify, credential, header, verify};

const ORIGIN: &str = "https://console.example.com";

fn cors() -> CorsLayer {
    CorsLayer::new()
        .allow_origin(HeaderValue::from_static(ORIGIN))
        .allow_methods([Method::POST])
        .allow_headers([AUTHORIZATION])
        .expose_headers([WWW_AUTHENTICATE])
}

/// The request of a page of [`ORIGIN`].
fn from_page(mut request: Request<()>) -> Request<()> {
    request.headers_mut().insert("origin", HeaderValue::from_static(ORIGIN));
    request
}

fn preflight(server: &Server, path: &str) -> Request<()> {
    let mut request = from_page(server.request(&format!("OPTIONS {path}"), None));
    let headers = request.headers_mut();
    headers.insert("access-control-request-method", HeaderValue::from_static("POST"));
    headers.insert("access-control-request-headers", HeaderValue::from_static("authorization"));
    request
}

/// The status of a response, and whether a page of [`ORIGIN`] can read it.
type Readable = (u16, bool);

#[tokio::test]
async fn preflight_passes_only_outside_authentication() {
    /// Its name, the router, and the responses to: a preflight request, a request without a token,
    /// one with a token, and one for an unknown path.
    type Order = (&'static str, fn(Router, Verify) -> Router, [Readable; 4]);
    let orders: &[Order] = &[
        (
            "outside route_layer",
            |routes, verify| routes.route_layer(verify).layer(cors()),
            [(200, true), (401, true), (200, true), (404, true)],
        ),
        (
            "outside layer",
            |routes, verify| routes.layer(verify).layer(cors()),
            [(200, true), (401, true), (200, true), (401, true)],
        ),
        (
            "outside, in one ServiceBuilder",
            |routes, verify| routes.layer(ServiceBuilder::new().layer(cors()).layer(verify)),
            [(200, true), (401, true), (200, true), (401, true)],
        ),
        (
            "inside layer",
            |routes, verify| routes.layer(cors()).layer(verify),
            [(401, false), (401, false), (200, true), (401, false)],
        ),
        (
            "inside route_layer",
            |routes, verify| routes.layer(cors()).route_layer(verify),
            [(401, false), (401, false), (200, true), (404, true)],
        ),
        (
            "outside, as route_layer",
            |routes, verify| routes.route_layer(verify).route_layer(cors()),
            [(200, true), (401, true), (200, true), (404, false)],
        ),
    ];
    let authority = TestAuthority::offline();
    let token = credential(&authority, "orders");
    for (name, order, expected) in orders {
        let routes = Router::new().route("/charge", post(async || "charged"));
        let server = Server::start(order(routes, verify(&authority))).await;
        let requests = [
            preflight(&server, "/charge"),
            from_page(server.request("POST /charge", None)),
            from_page(server.request("POST /charge", Some(&token))),
            from_page(server.request("POST /unknown", None)),
        ];
        for (request, (status, is_readable)) in requests.into_iter().zip(expected) {
            let line = format!("{name}: {} {}", request.method(), request.uri().path());
            let is_preflight = request.method() == Method::OPTIONS;
            let response = server.call(request).await;
            assert_eq!(response.status(), *status, "{line}");
            let allowed = header(&response, "access-control-allow-origin");
            assert_eq!(allowed, is_readable.then_some(ORIGIN), "{line}");
            let exposed = header(&response, "access-control-expose-headers");
            let is_exposed = *is_readable && !is_preflight;
            assert_eq!(exposed, is_exposed.then_some("www-authenticate"), "{line}");
            let headers = header(&response, "access-control-allow-headers");
            let names_header = *is_readable && is_preflight;
            assert_eq!(headers, names_header.then_some("authorization"), "{line}");
            let challenge = header(&response, "www-authenticate");
            assert_eq!(challenge.is_some(), *status == 401, "{line}");
        }
    }
}
