//! What the response to a refused request holds.

use http::header::{HeaderName, HeaderValue};
use tower::{Layer, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{RejectionReason as R, RequireClaimLayer, VerifyServiceTokenLayer};

use crate::support::{Inner, ResponseSummary, as_grpc, bearer, request};

/// The response is made in the request's maps of headers and extensions.
#[tokio::test]
async fn refusal_keeps_nothing_of_the_request() {
    #[derive(Clone)]
    struct OfTheRequest;

    let authority = TestAuthority::offline();
    let refuses_claim = RequireClaimLayer::new("service", "orders").layer(Inner::default());
    let service = VerifyServiceTokenLayer::new(authority.verifier()).layer(refuses_claim);
    let cases = [
        ("no token", None, R::MissingCredentials),
        ("expired", Some(authority.token().expired().sign()), R::Expired),
        ("claim", Some(authority.token().claim("service", "refunds").sign()), R::ClaimRefused),
    ];
    for (case, token, reason) in cases {
        for over_grpc in [false, true] {
            let mut request = token.as_deref().map_or_else(|| request::<&str>(&[]), bearer);
            for number in 0..40 {
                let name = HeaderName::try_from(format!("x-{number}")).unwrap();
                request.headers_mut().append(name.clone(), HeaderValue::from_static("a"));
                request.headers_mut().append(name, HeaderValue::from_static("b"));
            }
            request.extensions_mut().insert(OfTheRequest);
            let request = if over_grpc { as_grpc(request) } else { request };
            let response = service.clone().oneshot(request).await.unwrap();
            let mut names: Vec<_> = response.headers().keys().map(HeaderName::as_str).collect();
            names.sort_unstable();
            let expected: &[&str] = if over_grpc {
                &["content-type", "grpc-message", "grpc-status"]
            } else {
                &["www-authenticate"]
            };
            assert_eq!((&*names, response.headers().len()), (expected, expected.len()), "{case}");
            assert_eq!(ResponseSummary::of(&response).reason, Some(reason), "{case}");
            assert!(response.extensions().get::<OfTheRequest>().is_none(), "{case}");
            assert_eq!(response.extensions().len(), 1, "{case}");
        }
    }
}
