//! The marker and the required claims of a [`Verifier`], and [`ServiceClaims::check`].

use serde_json::{Value, json};

use super::super::claims::ServiceClaims;
use super::super::expected::Expected;
use super::super::verifier::Verifier;
use crate::rejection::{RejectionKind, RejectionReason as R};
use crate::testing::{TestAuthority, TokenBuilder};

async fn outcome(verifier: &Verifier, token: &TokenBuilder) -> Result<ServiceClaims, R> {
    let outcome = verifier.verify(&token.clone().sign()).await;
    outcome.map_err(|rejection| rejection.reason())
}

fn with_claims(authority: &TestAuthority, claims: &Value) -> TokenBuilder {
    let claims = claims.as_object().unwrap().clone().into_iter();
    claims.fold(authority.token(), |token, (name, value)| token.claim(name, value))
}

#[tokio::test]
async fn token_must_meet_every_required_claim() {
    let authority = TestAuthority::offline();
    let verifier = authority
        .verifier()
        .require_claim("service", ["orders", "refunds"])
        .require_claim(["kubernetes.io", "namespace"], "shop")
        .require_claim("scope", Expected::scope("charge"));
    let good = json!({
        "service": "orders", "kubernetes.io": {"namespace": "shop"}, "scope": "read charge",
    });
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        claims
    };
    let cases = [
        (good.clone(), true),
        (changed("service", json!("refunds")), true),
        (changed("service", json!("billing")), false),
        (changed("service", json!(["orders"])), false),
        (changed("service", Value::Null), false),
        (changed("kubernetes.io", json!({"namespace": "bank"})), false),
        (changed("kubernetes.io", json!("shop")), false),
        (changed("kubernetes.io", json!([{"namespace": "shop"}])), false),
        (changed("scope", json!("charges")), false),
        (json!({"service": "orders", "kubernetes.io.namespace": "shop", "scope": "charge"}), false),
        (json!({}), false),
    ];
    for (claims, is_admitted) in cases {
        let token = with_claims(&authority, &claims);
        let expected = if is_admitted { None } else { Some(R::ClaimRefused) };
        // The second time the token may be cached.
        for _ in 0..2 {
            assert_eq!(outcome(&verifier, &token).await.err(), expected, "{claims}");
        }
    }
    assert_eq!(R::ClaimRefused.kind(), RejectionKind::ClaimRefused);
}

#[tokio::test]
async fn required_claim_comes_after_the_marker_and_the_audience() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier().audience("billing").require_claim("service", "orders");
    let token = authority.token();
    let cases = [
        (token.clone().without_marker(), R::WrongAudience),
        (token.clone().without_marker().audience("billing"), R::NotMicroservice),
        (token.clone().audience("billing"), R::ClaimRefused),
        (token.claim("service", "orders"), R::WrongAudience),
    ];
    for (token, reason) in cases {
        assert_eq!(outcome(&verifier, &token).await.err(), Some(reason));
    }
}

#[tokio::test]
async fn flawed_rule_matches_no_token() {
    let authority = TestAuthority::offline();
    let base = authority.verifier();
    let token = authority
        .token()
        .audience("")
        .claim("sub", "")
        .claim("service", "orders")
        .claim("", "orders")
        .claim("list", json!([]));
    let none: [&str; 0] = [];
    let cases = [
        (base.clone().require_claim("service", none), R::ClaimRefused),
        (base.clone().require_claim("service", Expected::prefix("")), R::ClaimRefused),
        (base.clone().require_claim("service", Expected::prefix("ord")), R::ClaimRefused),
        (base.clone().require_claim("service", Expected::scope("")), R::ClaimRefused),
        (base.clone().require_claim("", "orders"), R::ClaimRefused),
        (base.clone().require_claim(Vec::new(), "orders"), R::ClaimRefused),
        (base.clone().require_claim(["service", ""], "orders"), R::ClaimRefused),
        (base.clone().marker("service", none), R::NotMicroservice),
        (base.clone().marker("service", Expected::prefix("")), R::NotMicroservice),
        (base.clone().audience(""), R::WrongAudience),
        (base.clone().subject(""), R::WrongSubject),
        (base.clone().algorithms([]), R::AlgorithmNotAllowed),
    ];
    for (verifier, reason) in cases {
        assert_eq!(outcome(&verifier, &token).await.err(), Some(reason), "{verifier:?}");
    }
    assert!(outcome(&base.require_claim("service", "orders"), &token).await.is_ok());
}

#[tokio::test]
async fn marker_may_be_any_expected_value() {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier().marker(["workload", "kind"], ["job", "service"]);
    let kind = |kind: &str| authority.token().claim("workload", json!({"kind": kind}));
    assert!(outcome(&verifier, &kind("job")).await.is_ok());
    assert!(outcome(&verifier, &kind("service")).await.is_ok());
    assert_eq!(outcome(&verifier, &kind("user")).await.err(), Some(R::NotMicroservice));
    assert_eq!(outcome(&verifier, &authority.token()).await.err(), Some(R::NotMicroservice));
}

#[tokio::test]
async fn check_applies_a_rule_to_verified_claims() {
    let authority = TestAuthority::offline();
    let token = authority.token().claim("service", "orders").claim("groups", json!(["a", "b"]));
    let claims = outcome(&authority.verifier(), &token).await.unwrap();
    assert_eq!(claims.service(), Some("orders"));
    assert!(claims.check("service", ["orders", "refunds"]).is_ok());
    assert!(claims.check("groups", Expected::contains("b")).is_ok());
    for refused in [
        claims.check("service", "refunds"),
        claims.check("groups", "a"),
        claims.check(["groups", "a"], "a"),
        claims.check("service", Expected::prefix("")),
        claims.check("missing", Value::Null.to_string()),
    ] {
        let rejection = refused.unwrap_err();
        assert_eq!((rejection.reason(), rejection.status().as_u16()), (R::ClaimRefused, 403));
    }
}
