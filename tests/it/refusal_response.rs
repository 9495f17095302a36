//! The response to a refused request, which is made in the request's maps of headers and extensions.

use http::HeaderMap;
use http::header::{HeaderName, HeaderValue};
use tower::{Layer, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{RejectionReason as R, RequireClaimLayer, VerifyServiceTokenLayer};

use crate::support::{Inner, ResponseSummary, as_grpc, bearer, request};

/// Where the first value of a map is in memory.
fn first_value(headers: &HeaderMap) -> *const HeaderValue {
    std::ptr::from_ref(headers.values().next().unwrap())
}

#[tokio::test]
async fn refusal_drops_headers_and_extensions_of_the_request() {
    #[derive(Clone)]
    struct RequestExtension;

    let authority = TestAuthority::offline();
    let requires_orders = RequireClaimLayer::new("service", "orders").layer(Inner::default());
    let service = VerifyServiceTokenLayer::new(authority.verifier()).layer(requires_orders);
    let cases = [
        ("no token", None, R::MissingCredentials),
        ("expired", Some(authority.token().expired().sign()), R::Expired),
        ("claim", Some(authority.token().claim("service", "refunds").sign()), R::ClaimRefused),
    ];
    for (case, token, reason) in cases {
        for over_grpc in [false, true] {
            let mut request = token.as_deref().map_or_else(|| request::<&str>(&[]), bearer);
            // The map stores further values of a name apart.
            for value in ["a", "b"] {
                request.headers_mut().append("x-name", HeaderValue::from_static(value));
            }
            request.extensions_mut().insert(RequestExtension);
            let request = if over_grpc { as_grpc(request) } else { request };
            let of_request = first_value(request.headers());
            let response = service.clone().oneshot(request).await.unwrap();
            assert_eq!(first_value(response.headers()), of_request, "{case}: a map of its own");
            let mut names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            let expected: &[&str] = if over_grpc {
                &["content-type", "grpc-message", "grpc-status"]
            } else {
                &["www-authenticate"]
            };
            assert_eq!(
                (&*names, response.headers().len()),
                (expected, expected.len()),
                "{case}, gRPC: {over_grpc}"
            );
            assert_eq!(
                ResponseSummary::of(&response).reason,
                Some(reason),
                "{case}, gRPC: {over_grpc}"
            );
            assert!(
                response.extensions().get::<RequestExtension>().is_none(),
                "{case}, gRPC: {over_grpc}"
            );
            assert_eq!(response.extensions().len(), 1, "{case}, gRPC: {over_grpc}");
        }
    }
}

/// A server keeps the map until the response is written, and some until the connection ends.
#[tokio::test]
async fn refusal_keeps_no_large_map_of_the_request() {
    let layer = VerifyServiceTokenLayer::new(TestAuthority::offline().verifier());
    for (names, values) in [(470, 1), (1, 400), (40, 10)] {
        let mut request = request::<&str>(&[]);
        for number in 0..names * values {
            let name = HeaderName::try_from(format!("x-{}", number % names)).unwrap();
            request.headers_mut().append(name, HeaderValue::from_static("a"));
        }
        let of_request = first_value(request.headers());
        let response = layer.layer(Inner::default()).oneshot(request).await.unwrap();
        assert_eq!(ResponseSummary::of(&response).reason, Some(R::MissingCredentials));
        assert_ne!(first_value(response.headers()), of_request, "{names} names");
        assert!(response.headers().capacity() <= 48, "{names} names");
    }
}
