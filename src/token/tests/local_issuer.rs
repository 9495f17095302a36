//! [`LocalIssuer`] in virtual time: which key signs, and which ones are listed.

use std::time::Duration;

use serde_json::{Value, json};

use super::renewal::{HOUR, pass};
use crate::jose::{Algorithm, SigningKey};
use crate::jwks::LocalJwks;
use crate::rejection::RejectionReason;
use crate::testing::{TestAuthority, TestClock};
use crate::token::error::MintError;
use crate::token::local_issuer::{LocalIssuer, LocalIssuerError};
use crate::verify::Verifier;

const ISSUER: &str = "https://orders.internal";

fn key() -> SigningKey {
    SigningKey::generate(Algorithm::EdDSA).unwrap()
}

/// An issuer with these keys, on a clock that runs with tokio's.
fn issuer(keys: &[&SigningKey]) -> (LocalIssuer, TestClock) {
    let clock = TestAuthority::offline().clock().clone();
    (clock.local_issuer(ISSUER, keys.iter().map(|key| (*key).clone())).unwrap(), clock)
}

fn listed(issuer: &LocalIssuer) -> Vec<String> {
    let jwks: Value = serde_json::from_str(&issuer.jwks()).unwrap();
    let kid = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    jwks["keys"].as_array().unwrap().iter().map(kid).collect()
}

/// The `kid` of a token with this validity, in seconds.
fn signer(issuer: &LocalIssuer, validity: u64) -> String {
    let jwt = issuer.service_token().validity(Duration::from_secs(validity)).sign().unwrap();
    decoded(&jwt, 0)["kid"].as_str().unwrap().to_owned()
}

fn decoded(jwt: &str, part: usize) -> Value {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let text = URL_SAFE_NO_PAD.decode(jwt.split('.').nth(part).unwrap()).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[tokio::test(start_paused = true)]
async fn first_key_signs_and_all_are_listed() {
    let [a, b, c] = [key(), key(), key()];
    let (issuer, _) = issuer(&[&b, &a, &c]);
    assert_eq!(listed(&issuer), [b.kid(), a.kid(), c.kid()]);
    assert_eq!(signer(&issuer, 60), b.kid());
}

#[tokio::test(start_paused = true)]
async fn new_key_is_listed_60_s_before_it_signs() {
    let [a, b] = [key(), key()];
    let (issuer, _) = issuer(&[&a]);
    assert_eq!(signer(&issuer, 3600), a.kid());
    issuer.rotate_to([b.clone()]).unwrap();
    for _ in 0..60 {
        assert_eq!(listed(&issuer), [b.kid(), a.kid()]);
        assert_eq!(signer(&issuer, 3600), a.kid());
        pass(1).await;
    }
    assert_eq!(signer(&issuer, 3600), b.kid());
    assert_eq!(listed(&issuer), [b.kid(), a.kid()]);
}

#[tokio::test(start_paused = true)]
async fn old_key_is_listed_until_its_last_token_expired() {
    let [a, b] = [key(), key()];
    let (issuer, _) = issuer(&[&a]);
    signer(&issuer, 600);
    issuer.rotate_to([b.clone()]).unwrap();
    pass(30).await;
    signer(&issuer, 1000); // the last token of `a`, although `b` is listed
    pass(1000).await;
    signer(&issuer, 3600);
    assert_eq!(listed(&issuer), [b.kid(), a.kid()], "the clock of a verifier may be behind");
    pass(59).await;
    assert_eq!(listed(&issuer), [b.kid(), a.kid()]);
    pass(1).await;
    assert_eq!(listed(&issuer), [b.kid()]);
}

#[tokio::test(start_paused = true)]
async fn key_that_never_signed_is_unlisted_by_the_rotation() {
    let [a, b, c] = [key(), key(), key()];
    let (issuer, _) = issuer(&[&a, &b]);
    signer(&issuer, 3600);
    issuer.rotate_to([c.clone(), a.clone()]).unwrap();
    assert_eq!(listed(&issuer), [c.kid(), a.kid()]);
    // `c` is replaced before it signs.
    pass(10).await;
    let d = key();
    issuer.rotate_to([d.clone()]).unwrap();
    assert_eq!(listed(&issuer), [d.kid(), a.kid()]);
    pass(59).await;
    assert_eq!(signer(&issuer, 60), a.kid());
    pass(1).await;
    assert_eq!(signer(&issuer, 60), d.kid());
}

#[tokio::test(start_paused = true)]
async fn listed_key_signs_at_once_when_it_becomes_the_first() {
    let [a, b] = [key(), key()];
    let (issuer, _) = issuer(&[&a]);
    issuer.rotate_to([a.clone(), b.clone()]).unwrap();
    issuer.rotate_to([b.clone(), a.clone()]).unwrap();
    assert_eq!(signer(&issuer, 60), a.kid(), "listed for less than 60 s");
    pass(60).await;
    assert_eq!(signer(&issuer, 60), b.kid());
    issuer.rotate_to([a.clone(), b.clone()]).unwrap();
    assert_eq!(signer(&issuer, 60), a.kid());
}

#[tokio::test(start_paused = true)]
async fn bad_list_is_refused_and_the_current_one_stays() {
    let [a, b] = [key(), key()];
    let (issuer, _) = issuer(&[&a]);
    let named = |x: &SigningKey| {
        let mut jwk: Value = serde_json::from_str(&private_jwk(x)).unwrap();
        jwk["kid"] = json!(a.kid());
        SigningKey::from_jwk(jwk.to_string()).unwrap()
    };
    let kid = a.kid().to_owned();
    let cases: [(Vec<SigningKey>, LocalIssuerError); 4] = [
        (vec![], LocalIssuerError::NoKey),
        (vec![a.clone(), a.clone()], LocalIssuerError::DuplicateKid { kid: kid.clone() }),
        (vec![a.clone(), named(&b)], LocalIssuerError::DuplicateKid { kid: kid.clone() }),
        (vec![named(&b)], LocalIssuerError::ReusedKid { kid }),
    ];
    for (keys, expected) in cases {
        assert_eq!(issuer.rotate_to(keys), Err(expected));
        assert_eq!(
            (listed(&issuer), signer(&issuer, 60)),
            (vec![a.kid().to_owned()], a.kid().to_owned())
        );
    }
    let empty = LocalIssuer::new(" ", [a]).unwrap_err();
    assert_eq!(empty, LocalIssuerError::EmptyIssuer);
}

/// A private JWK, for a key with another kid. The seed does not matter.
fn private_jwk(key: &SigningKey) -> String {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let pkcs8 = key.to_pkcs8().unwrap();
    // The seed is the last OCTET STRING of the PKCS#8 form of version 1 (RFC 8410 §7).
    let seed = &pkcs8[16..48];
    let mut jwk: Value = serde_json::from_str(key.public_jwk()).unwrap();
    jwk["d"] = json!(URL_SAFE_NO_PAD.encode(seed));
    jwk.to_string()
}

#[tokio::test(start_paused = true)]
async fn claims_are_those_of_a_core_and_each_token_differs() {
    let (issuer, clock) = issuer(&[&key()]);
    let request = issuer
        .service_token()
        .service("orders \"1\"")
        .claim("nested", json!({"a": {"b": [1, "}"]}}))
        .audience("billing");
    let [first, second] = [(); 2].map(|()| decoded(&request.sign().unwrap(), 1));
    let now = clock.now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs();
    for claims in [&first, &second] {
        let mut claims = claims.clone();
        let jti = claims.as_object_mut().unwrap().remove("jti").unwrap();
        assert!(jti.as_str().is_some_and(|jti| jti.len() == 36), "{jti}");
        let expected = json!({
            "iat": now,
            "exp": now + 3600,
            "iss": ISSUER,
            "source": "microservice",
            "service": "orders \"1\"",
            "nested": {"a": {"b": [1, "}"]}},
            "aud": "billing",
        });
        assert_eq!(claims, expected);
    }
    assert_ne!(first["jti"], second["jti"]);
    let header = decoded(&request.sign().unwrap(), 0);
    assert_eq!((&header["typ"], &header["alg"]), (&json!("JWT"), &json!("EdDSA")));
}

#[tokio::test(start_paused = true)]
async fn token_renews_itself_with_the_new_key() {
    let [a, b] = [key(), key()];
    let (issuer, clock) = issuer(&[&a]);
    let jwks = LocalJwks::from_json(issuer.jwks()).unwrap();
    let verifier = Verifier::new(jwks.clone()).on_clock(clock.shared()).issuer(ISSUER);
    let token = issuer.service_token().verify_with(&verifier).mint().await.unwrap();
    let first = token.header_value();
    issuer.rotate_to([b.clone()]).unwrap();
    jwks.replace(issuer.jwks()).unwrap();
    pass(2800).await;
    assert_ne!(token.header_value(), first);
    assert_eq!(decoded(&token.header_value().to_str().unwrap()[7..], 0)["kid"], b.kid());
    assert!(token.expires_at().unwrap() > clock.now() + HOUR / 2);
}

#[tokio::test(start_paused = true)]
async fn request_returns_its_first_error() {
    let (issuer, _) = issuer(&[&key()]);
    let request = || issuer.service_token();
    for (request, expected) in [
        (request().claim("iss", "x"), "claim `iss` is reserved"),
        (request().claim("exp", 1).service(""), "claim `exp` is reserved"),
        (request().service(" "), "claim `service` is empty"),
        (request().subject(""), "claim `sub` is empty"),
        (request().audience("billing").audience("\n"), "claim `aud` is empty"),
        (request().validity(Duration::from_millis(999)), "the validity is less than a second"),
        (request().validity(Duration::MAX), "the validity is less than a second or more than"),
    ] {
        let err = request.sign().unwrap_err();
        assert!(err.to_string().starts_with(expected), "{err}");
        assert_eq!(request.mint().await.err(), Some(err));
    }
    let other = Verifier::new(LocalJwks::from_json(issuer.jwks()).unwrap()).audience("billing");
    let err = request().audience("inventory").verify_with(&other).mint().await.unwrap_err();
    let MintError::Misconfigured { source, .. } = err else { panic!("{err:?}") };
    assert_eq!(source.reason(), RejectionReason::WrongAudience);
}

#[tokio::test(start_paused = true)]
async fn longest_validity_gives_a_token_that_verifies() {
    let (issuer, clock) = issuer(&[&key()]);
    let jwks = LocalJwks::from_json(issuer.jwks()).unwrap();
    let verifier = Verifier::new(jwks).on_clock(clock.shared()).issuer(ISSUER);
    let thousand_years = Duration::from_secs(31_557_600_000);
    let jwt = issuer.service_token().validity(thousand_years).sign().unwrap();
    assert!(verifier.verify(&jwt).await.is_ok());
    let request = issuer.service_token().validity(thousand_years + Duration::from_secs(1));
    assert_eq!(request.sign(), Err(MintError::Validity));
}

#[tokio::test(start_paused = true)]
async fn debug_prints_the_issuer_alone() {
    let (issuer, _) = issuer(&[&key()]);
    assert_eq!(format!("{issuer:?}"), r#"LocalIssuer { issuer: "https://orders.internal", .. }"#);
}
