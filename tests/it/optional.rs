//! The optional layer and the tokens of end users.

use std::time::Duration;

use serde_json::{Value, json};
use tower::{Layer, ServiceExt};
use tower_m2m::{LocalJwks, RejectionReason as R, RemoteJwks, Verifier, VerifyServiceTokenLayer};

use crate::support::{
    Endpoint, Inner, ResponseSummary, Script, Signer, bearer, forged, key_set, now,
};

/// The token of an end user's session: another `iss`, no `aud`, no marker.
fn session(signer: &Signer, more: &Value) -> String {
    let mut claims =
        json!({"exp": now() + 3600, "iat": now(), "sub": "user-1", "iss": "https://a/auth"});
    claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    signer.claims(claims)
}

/// A policy that no session meets.
fn strict(keys: impl Into<tower_m2m::KeySource>) -> Verifier {
    Verifier::new(keys)
        .issuer("https://a")
        .audience("billing")
        .subject("orders")
        .max_lifetime(Duration::from_secs(60))
}

fn local(signer: &Signer) -> LocalJwks {
    LocalJwks::from_json(key_set(&[signer])).unwrap()
}

async fn send(service: &VerifyServiceTokenLayer, token: &str) -> (u16, String, Option<R>) {
    let response = service.layer(Inner::default()).oneshot(bearer(token)).await.unwrap();
    let reason = ResponseSummary::of(&response).reason;
    (response.status().as_u16(), response.into_body(), reason)
}

#[tokio::test]
async fn session_passes_an_optional_layer_under_any_policy() {
    let signer = Signer::new("k");
    let layer = VerifyServiceTokenLayer::optional(strict(local(&signer)));
    let service = |more: &Value| {
        let mut claims = json!({"source": "microservice", "service": "orders", "iss": "https://a",
            "aud": "billing", "sub": "orders", "iat": now(), "exp": now() + 60});
        claims.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        signer.claims(claims)
    };
    let long = now() + 3600;
    let cases = [
        ("a session", session(&signer, &json!({})), 200, "anonymous", None),
        ("for another audience", session(&signer, &json!({"aud": "app"})), 200, "anonymous", None),
        ("bound to a key", session(&signer, &json!({"cnf": {"jkt": "x"}})), 200, "anonymous", None),
        ("aud of a wrong type", session(&signer, &json!({"aud": 7})), 200, "anonymous", None),
        ("of a long lifetime", session(&signer, &json!({"iat": 0})), 200, "anonymous", None),
        ("another marker", session(&signer, &json!({"source": "user"})), 200, "anonymous", None),
        ("expired", session(&signer, &json!({"exp": now() - 60})), 401, "", Some(R::Expired)),
        ("nbf ahead", session(&signer, &json!({"nbf": long})), 401, "", Some(R::NotYetValid)),
        ("iat ahead", session(&signer, &json!({"iat": long})), 401, "", Some(R::IssuedInFuture)),
        ("forged", forged(&session(&signer, &json!({}))), 401, "", Some(R::BadSignature)),
        ("unknown key", session(&Signer::new("n"), &json!({})), 401, "", Some(R::UnknownKey)),
        ("a service", service(&json!({})), 200, "orders", None),
        ("of another issuer", service(&json!({"iss": "b"})), 401, "", Some(R::WrongIssuer)),
        ("for another service", service(&json!({"aud": "x"})), 401, "", Some(R::WrongAudience)),
        ("of another subject", service(&json!({"sub": "x"})), 401, "", Some(R::WrongSubject)),
        ("bound", service(&json!({"cnf": {}})), 401, "", Some(R::SenderConstrained)),
        ("for too long", service(&json!({"exp": long})), 401, "", Some(R::LifetimeTooLong)),
    ];
    for (case, token, status, body, reason) in cases {
        // The second outcome may come from the cache.
        for _ in 0..2 {
            assert_eq!(send(&layer, &token).await, (status, body.to_owned(), reason), "{case}");
        }
    }
}

#[tokio::test]
async fn layers_of_one_verifier_judge_a_session_apart() {
    let signer = Signer::new("k");
    let verifier = strict(local(&signer));
    let required = VerifyServiceTokenLayer::new(verifier.clone());
    let optional = VerifyServiceTokenLayer::optional(verifier);
    let token = session(&signer, &json!({}));
    for _ in 0..3 {
        assert_eq!(send(&optional, &token).await, (200, "anonymous".to_owned(), None));
        assert_eq!(send(&required, &token).await.2, Some(R::LifetimeTooLong));
    }
}

#[tokio::test]
async fn session_under_an_unknown_key_causes_a_fetch() {
    let signer = Signer::new("k");
    let endpoint = Endpoint::start(Script::Keys(key_set(&[&signer]))).await;
    let layer = VerifyServiceTokenLayer::optional(strict(RemoteJwks::new(&endpoint.url).unwrap()));
    let token = session(&signer, &json!({}));
    assert_eq!(send(&layer, &token).await, (200, "anonymous".to_owned(), None));
    assert_eq!(endpoint.fetches(), 1);
    let new = Signer::new("new");
    endpoint.set(Script::Keys(key_set(&[&signer, &new])));
    assert_eq!(send(&layer, &session(&new, &json!({}))).await, (200, "anonymous".to_owned(), None));
    assert_eq!(endpoint.fetches(), 2);
}
