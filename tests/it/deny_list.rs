//! Deny lists behind the layers: the response to a denied token.

use tower::{Layer, ServiceExt};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{DenyEntry, DenyList, RejectionReason as R, VerifyServiceTokenLayer};

use crate::support::{Inner, ResponseSummary, bearer};

/// Sends the token. Returns the response, and whether the inner service was called.
async fn send(layer: &VerifyServiceTokenLayer, token: &str) -> (ResponseSummary, bool) {
    let inner = Inner::default();
    let response = layer.layer(inner.clone()).oneshot(bearer(token)).await.unwrap();
    (ResponseSummary::of(&response), inner.calls() == 1)
}

fn summary(reason: Option<R>) -> ResponseSummary {
    let challenge = |error: &str, text: &str| {
        Some(format!(r#"Bearer realm="m2m", error="{error}", error_description="{text}""#))
    };
    let (status, challenge) = match reason {
        None => (200, None),
        Some(R::TokenRevoked) => (401, challenge("invalid_token", "token revoked")),
        Some(R::CallerDenied) => (403, challenge("insufficient_scope", "caller denied")),
        Some(other) => panic!("{other:?}"),
    };
    ResponseSummary { status, challenge, retry_after: None, reason }
}

#[tokio::test]
async fn denied_token_gets_401_or_403_until_it_is_lifted() {
    let authority = TestAuthority::offline();
    let denied = DenyList::new();
    let verifier = authority.verifier().deny_list(denied.clone());
    let token = authority.token().claim("service", "orders").claim("jti", "t1").sign();
    let layers = [
        VerifyServiceTokenLayer::new(verifier.clone()),
        VerifyServiceTokenLayer::optional(verifier),
    ];
    let cases = [
        (DenyEntry::claim("jti", "t1"), Some(R::TokenRevoked)),
        (DenyEntry::key(authority.kid()), Some(R::TokenRevoked)),
        (DenyEntry::claim("service", ["orders", "refunds"]), Some(R::CallerDenied)),
        (DenyEntry::claim("service", "refunds"), None),
    ];
    for (entry, reason) in cases {
        for layer in &layers {
            for (entries, reason) in [(Some(entry.clone()), reason), (None, None)] {
                denied.replace(entries);
                // The second outcome comes from the cache.
                for _ in 0..2 {
                    let expected = (summary(reason), reason.is_none());
                    assert_eq!(send(layer, &token).await, expected, "{entry}");
                }
            }
        }
    }
}

#[tokio::test]
async fn session_passes_an_optional_layer_without_denied_key() {
    let authority = TestAuthority::offline();
    let denied = DenyList::new();
    let verifier = authority.verifier().deny_list(denied.clone());
    let layer = VerifyServiceTokenLayer::optional(verifier);
    let session = authority.token().without_marker().subject("user-1").sign();
    let cases = [
        (DenyEntry::claim("sub", "user-1"), 200),
        (DenyEntry::key(authority.kid()), 401),
        (DenyEntry::key(authority.kid()).and(DenyEntry::claim("sub", "user-1")), 200),
    ];
    for (entry, status) in cases {
        denied.replace([entry.clone()]);
        for _ in 0..2 {
            assert_eq!(send(&layer, &session).await.0.status, status, "{entry}");
        }
    }
}
