//! [`Verifier`] with tokens that have to wait, and with the signature limit.

use std::sync::Arc;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::super::claims::ServiceClaims;
use super::super::concurrency::SignatureLimit;
use super::super::verifier::{Authentication, PendingAuthentication, Verifier};
use crate::clock::Clock;
use crate::jwks::LocalJwks;
use crate::rejection::{Rejection, RejectionKind, RejectionReason};

const EXPIRES_AT: u64 = 4_953_600_000;

/// A verifier with a signature limit of one, and its only key.
struct Fixture {
    pair: Ed25519KeyPair,
    jwks: LocalJwks,
    limit: Arc<SignatureLimit>,
    verifier: Verifier,
}

impl Fixture {
    fn new() -> Self {
        let pair = Ed25519KeyPair::generate().unwrap();
        let x = URL_SAFE_NO_PAD.encode(pair.public_key());
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "k", "x": x});
        let jwks = LocalJwks::from_json(json!({ "keys": [jwk] }).to_string()).unwrap();
        let limit = Arc::new(SignatureLimit::new(1, 1));
        let verifier = Verifier::new(jwks.clone()).with_signature_limit(Arc::clone(&limit));
        Self { pair, jwks, limit, verifier }
    }

    /// A valid token.
    fn sign(&self, number: u32) -> String {
        let claims = json!({"exp": EXPIRES_AT, "source": "microservice", "n": number}).to_string();
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"EdDSA","kid":"k"}"#);
        let input = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        format!("{input}.{}", URL_SAFE_NO_PAD.encode(self.pair.sign(input.as_bytes())))
    }

    /// A token with an invalid signature.
    fn forge(&self) -> String {
        let signed = self.sign(0);
        format!("{}.{}", signed.rsplit_once('.').unwrap().0, URL_SAFE_NO_PAD.encode([1; 64]))
    }

    fn retire_key(&self) {
        self.jwks.keys()[0].use_until(0);
    }
}

fn reason(outcome: Result<ServiceClaims, Rejection>) -> Option<RejectionReason> {
    outcome.err().map(|rejection| rejection.reason())
}

/// Verifies a token that does not have to wait.
fn done(verifier: &Verifier, token: &str) -> Result<ServiceClaims, Rejection> {
    match verifier.authenticate(token.as_bytes()) {
        Authentication::Done(outcome) => outcome,
        Authentication::Pending(_) => panic!("the token waits"),
    }
}

/// Starts to verify a token that has to wait.
fn pending(verifier: &Verifier, token: &str) -> PendingAuthentication {
    match verifier.authenticate(token.as_bytes()) {
        Authentication::Pending(pending) => pending,
        Authentication::Done(_) => panic!("the token does not wait"),
    }
}

#[tokio::test]
async fn new_token_waits_for_a_permit_and_a_cached_one_does_not() {
    let fixture = Fixture::new();
    let verifier = &fixture.verifier;
    let known = fixture.sign(1);
    verifier.verify(&known).await.unwrap();

    let permit = fixture.limit.try_acquire().unwrap();
    assert!(verifier.cached(known.as_bytes()).is_some_and(|outcome| outcome.is_ok()));
    // A token that is rejected before its signature check needs no permit.
    assert!(done(verifier, "not.a.token").is_err());
    let [new, again, forged] = [fixture.sign(2), fixture.sign(2), fixture.forge()].map(|token| {
        let verifier = verifier.clone();
        tokio::spawn(async move { verifier.verify(&token).await })
    });
    tokio::task::yield_now().await;
    assert!(!new.is_finished() && !again.is_finished() && !forged.is_finished());
    drop(permit);
    assert_eq!(new.await.unwrap().unwrap().get("n"), Some(&json!(2)));
    assert_eq!(again.await.unwrap().unwrap().get("n"), Some(&json!(2)));
    assert_eq!(reason(forged.await.unwrap()), Some(RejectionReason::BadSignature));
    assert!(fixture.limit.try_acquire().is_some());
}

#[tokio::test]
async fn full_queue_rejects_a_new_token() {
    let fixture = Fixture::new();
    let (verifier, limit) = (&fixture.verifier, &fixture.limit);
    let permit = limit.try_acquire().unwrap();
    let slots: Vec<_> = std::iter::from_fn(|| limit.enqueue().ok()).collect();
    for token in [fixture.sign(1), fixture.forge()] {
        let rejection = verifier.verify(&token).await.unwrap_err();
        assert_eq!(rejection.reason(), RejectionReason::TooManyWaiting);
        assert_eq!(rejection.kind(), RejectionKind::KeysUnavailable);
    }
    drop((permit, slots));
    assert!(verifier.verify(&fixture.sign(1)).await.is_ok());
}

#[tokio::test]
async fn queued_token_that_is_cached_meanwhile_is_read_from_the_cache() {
    let fixture = Fixture::new();
    let (permit, token) = (fixture.limit.try_acquire().unwrap(), fixture.sign(1));
    let pending = pending(&fixture.verifier, &token);
    // Shares the cache, but has its own limit.
    let other = Arc::new(SignatureLimit::new(1, 1));
    let other = fixture.verifier.clone().with_signature_limit(other);
    let first = other.verify(&token).await.unwrap();
    drop(permit);
    assert!(pending.await.unwrap().is_shared_with(&first));
}

#[tokio::test(start_paused = true)]
async fn token_that_expires_while_queued_is_rejected() {
    let (fixture, clock) = (Fixture::new(), Clock::driven(EXPIRES_AT));
    let verifier = fixture.verifier.clone().on_clock(clock.clone());
    let permit = fixture.limit.try_acquire().unwrap();
    let pending = pending(&verifier, &fixture.sign(1));
    clock.shift(30);
    drop(permit);
    assert_eq!(reason(pending.await), Some(RejectionReason::Expired));
}

#[tokio::test]
async fn token_whose_key_is_retired_while_queued_is_rejected() {
    let fixture = Fixture::new();
    let permit = fixture.limit.try_acquire().unwrap();
    let pending = pending(&fixture.verifier, &fixture.sign(1));
    fixture.retire_key();
    drop(permit);
    assert_eq!(reason(pending.await), Some(RejectionReason::UnknownKey));
}

#[tokio::test(start_paused = true)]
async fn expired_queued_token_causes_no_key_look_up() {
    let (fixture, clock) = (Fixture::new(), Clock::driven(EXPIRES_AT));
    let verifier = fixture.verifier.clone().on_clock(clock.clone());
    let permit = fixture.limit.try_acquire().unwrap();
    let pending = pending(&verifier, &fixture.sign(1));
    fixture.retire_key();
    clock.shift(30);
    drop(permit);
    assert_eq!(reason(pending.await), Some(RejectionReason::Expired));
}

#[tokio::test]
async fn token_longer_than_max_token_len_is_rejected() {
    let fixture = Fixture::new();
    let token = fixture.sign(1);
    for (shorter_by, expected) in [(0, None), (1, Some(RejectionReason::TokenTooLong))] {
        let verifier = fixture.verifier.clone().max_token_len(token.len() - shorter_by);
        assert_eq!(reason(verifier.verify(&token).await), expected);
        assert_eq!(reason(done(&verifier, &token)), expected);
    }
    let by_default = |len: usize| reason(done(&fixture.verifier, &"a".repeat(len)));
    assert_eq!(by_default(8192), Some(RejectionReason::NotThreeParts));
    assert_eq!(by_default(8193), Some(RejectionReason::TokenTooLong));
}

#[tokio::test]
async fn cached_token_is_usable_again_once_its_key_is() {
    let fixture = Fixture::new();
    let token = fixture.sign(1);
    fixture.verifier.verify(&token).await.unwrap();
    fixture.retire_key();
    assert!(fixture.verifier.cached(token.as_bytes()).is_none());
    fixture.jwks.keys()[0].use_until(u64::MAX);
    assert!(fixture.verifier.cached(token.as_bytes()).is_some_and(|outcome| outcome.is_ok()));
}

#[test]
fn debug_shows_the_number_of_keys_and_the_policy() {
    let verifier = Fixture::new().verifier.audience("billing");
    let text = format!("{verifier:?}");
    let keys = "Verifier { keys: KeySource(Local(LocalJwks { set: JwkSet { keys: 1 }, ";
    assert!(text.starts_with(keys), "{text}");
    assert!(text.contains(r#"audiences: ["billing"]"#) && text.len() < 400, "{text}");
}

#[test]
fn configured_clone_shares_limit_and_keeps_capacity() {
    let fixture = Fixture::new();
    let _permit = fixture.limit.try_acquire().unwrap();
    let configured = fixture.verifier.clone().cache_capacity(7).audience("billing");
    drop(pending(&configured, &fixture.sign(1)));
    assert_eq!(configured.cache().capacity(), 7);
}
