//! The optional layer and the tokens of end users.

use std::time::Duration;

use serde_json::json;
use tower_m2m::testing::{TestAuthority, TokenBuilder};
use tower_m2m::{RejectionReason as R, Verifier, VerifyServiceTokenLayer};

use crate::observe::send_to_both;
use crate::support::{ResponseSummary, bearer, now};

/// The token of an end user's session: another `iss`, no `aud`, no marker.
fn session(authority: &TestAuthority) -> TokenBuilder {
    authority.token().without_marker().subject("user-1").claim("iss", "https://a/auth")
}

/// A policy that no session meets.
fn strict(keys: impl Into<tower_m2m::KeySource>) -> Verifier {
    Verifier::new(keys)
        .issuer("https://a")
        .audience("billing")
        .subject("orders")
        .max_lifetime(Duration::from_secs(60))
}

/// Sends a token through the layer and through the same layer with `observe`.
async fn send(layer: &VerifyServiceTokenLayer, token: &str) -> (u16, String, Option<R>) {
    let response = send_to_both(layer, || bearer(token)).await;
    let reason = ResponseSummary::of(&response).reason;
    (response.status().as_u16(), response.into_body(), reason)
}

#[tokio::test]
async fn session_passes_an_optional_layer_under_any_policy() {
    let authority = TestAuthority::offline();
    let layer = VerifyServiceTokenLayer::optional(strict(authority.local_jwks()));
    let session = || session(&authority);
    let service = || {
        let token = authority.token().claim("service", "orders").claim("iss", "https://a");
        token.audience("billing").subject("orders").validity(Duration::from_secs(60))
    };
    let ahead = now() + 3600;
    let cases = [
        ("a session", session(), 200, "anonymous", None),
        ("for another audience", session().audience("app"), 200, "anonymous", None),
        ("bound to a key", session().claim("cnf", json!({"jkt": "x"})), 200, "anonymous", None),
        ("aud of a wrong type", session().claim("aud", 7), 200, "anonymous", None),
        ("of a long lifetime", session().claim("iat", 0), 200, "anonymous", None),
        ("another marker", session().claim("source", "user"), 200, "anonymous", None),
        ("expired", session().expired(), 401, "", Some(R::Expired)),
        ("nbf ahead", session().not_yet_valid(), 401, "", Some(R::NotYetValid)),
        ("iat ahead", session().claim("iat", ahead), 401, "", Some(R::IssuedInFuture)),
        ("forged", session().forged(), 401, "", Some(R::BadSignature)),
        ("unknown key", session().unknown_key(), 401, "", Some(R::UnknownKey)),
        ("a service", service(), 200, "orders", None),
        ("of another issuer", service().claim("iss", "b"), 401, "", Some(R::WrongIssuer)),
        ("for another service", service().claim("aud", "x"), 401, "", Some(R::WrongAudience)),
        ("of another subject", service().subject("x"), 401, "", Some(R::WrongSubject)),
        ("bound", service().claim("cnf", json!({})), 401, "", Some(R::SenderConstrained)),
        ("for too long", service().claim("exp", ahead), 401, "", Some(R::LifetimeTooLong)),
    ];
    for (case, token, status, body, reason) in cases {
        let token = token.sign();
        // The second outcome may come from the cache.
        for _ in 0..2 {
            assert_eq!(send(&layer, &token).await, (status, body.to_owned(), reason), "{case}");
        }
    }
}

#[tokio::test]
async fn layers_of_one_verifier_judge_a_session_apart() {
    let authority = TestAuthority::offline();
    let verifier = strict(authority.local_jwks());
    let required = VerifyServiceTokenLayer::new(verifier.clone());
    let optional = VerifyServiceTokenLayer::optional(verifier);
    let token = session(&authority).sign();
    for _ in 0..3 {
        assert_eq!(send(&optional, &token).await, (200, "anonymous".to_owned(), None));
        assert_eq!(send(&required, &token).await.2, Some(R::LifetimeTooLong));
    }
}

#[tokio::test]
async fn session_under_an_unknown_key_causes_a_fetch() {
    let authority = TestAuthority::start().await;
    let layer = VerifyServiceTokenLayer::optional(strict(authority.remote_jwks()));
    for fetches in [1, 2] {
        let token = session(&authority).sign();
        assert_eq!(send(&layer, &token).await, (200, "anonymous".to_owned(), None));
        assert_eq!(authority.fetches(), fetches);
        authority.rotate();
    }
}
