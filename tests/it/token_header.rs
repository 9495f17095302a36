//! The names of the header that carries the token, in both layers.

use http::HeaderName;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{AddServiceTokenLayer, ConfigError, ServiceToken, VerifyServiceTokenLayer};

#[test]
fn header_that_cannot_carry_a_token_is_refused() {
    // (name, whether it can carry a token)
    let cases = [
        ("authorization", true),
        ("x-service-token", true),
        ("X-Service-Token", true),
        ("x-goog-iap-jwt-assertion", true),
        ("x-forwarded-access-token", true),
        ("service_token", true),
        ("x-host", true),
        ("hosts", true),
        ("connection-token", true),
        ("x-grpc-token", true),
        ("grpcauth", true),
        // RFC 9110 §7.6.1: hop-by-hop.
        ("connection", false),
        ("Connection", false),
        ("keep-alive", false),
        ("proxy-connection", false),
        ("te", false),
        ("TE", false),
        ("trailer", false),
        ("transfer-encoding", false),
        ("upgrade", false),
        ("http2-settings", false),
        // RFC 9110 §11.7: for the next proxy.
        ("proxy-authenticate", false),
        ("proxy-authorization", false),
        // Routing, length and expectations.
        ("host", false),
        ("Host", false),
        ("content-length", false),
        ("expect", false),
        ("max-forwards", false),
        // How to read the body.
        ("content-type", false),
        ("content-encoding", false),
        ("content-range", false),
        // Conditions and ranges.
        ("if-match", false),
        ("if-none-match", false),
        ("if-modified-since", false),
        ("if-unmodified-since", false),
        ("if-range", false),
        ("range", false),
        ("cookie", false),
        // Reserved by gRPC.
        ("grpc-timeout", false),
        ("grpc-encoding", false),
        ("GRPC-Token", false),
    ];
    let authority = TestAuthority::offline();
    let token = ServiceToken::from_jwt(authority.token().sign()).unwrap();
    let m1 = AddServiceTokenLayer::new(token.clone());
    let m1_by_origin = AddServiceTokenLayer::by_origin([("https://a.example", token)]).unwrap();
    let m2 = VerifyServiceTokenLayer::new(authority.verifier());
    let m2_optional = VerifyServiceTokenLayer::optional(authority.verifier());
    for (text, is_allowed) in cases {
        let name = HeaderName::from_bytes(text.as_bytes()).unwrap();
        let expected =
            (!is_allowed).then(|| ConfigError::Header { name: text.to_ascii_lowercase() });
        let errors = [
            m1.clone().header(name.clone()).err(),
            m1_by_origin.clone().header(name.clone()).err(),
            m2.clone().header(name.clone()).err(),
            m2_optional.clone().header(name).err(),
        ];
        for err in errors {
            assert_eq!(err, expected, "{text}");
        }
    }
    let err = m1.header(HeaderName::from_static("host")).unwrap_err();
    assert_eq!(err.to_string(), "the header host cannot carry a token");
}
