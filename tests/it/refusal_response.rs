//! The response to a refused request, which is made in the request's maps of headers and extensions.

use http::header::{HeaderName, HeaderValue};
use tower::{Layer, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{RejectionReason as R, RequireClaimLayer, VerifyServiceTokenLayer};

use crate::support::{Inner, ResponseSummary, as_grpc, bearer, request};

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
            // Enough for the map to grow and to store further values of a name apart.
            for number in 0..40 {
                let name = HeaderName::try_from(format!("x-{number}")).unwrap();
                request.headers_mut().append(name.clone(), HeaderValue::from_static("a"));
                request.headers_mut().append(name, HeaderValue::from_static("b"));
            }
            request.extensions_mut().insert(RequestExtension);
            let request = if over_grpc { as_grpc(request) } else { request };
            let response = service.clone().oneshot(request).await.unwrap();
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
