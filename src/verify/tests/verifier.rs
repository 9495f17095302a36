//! [`Verifier`] with tokens that have to wait, and with the signature limit.

use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::super::claims::ServiceClaims;
use super::super::concurrency::SignatureLimit;
use super::super::verifier::{Authentication, PendingAuthentication, Verifier};
use crate::rejection::{Rejection, RejectionKind, RejectionReason};
use crate::testing::TestAuthority;

/// After this time a token of the authority has expired for a verifier with the default leeway.
const UNTIL_EXPIRED: Duration = Duration::from_secs(3600 + 30);

/// A verifier with a signature limit of one, and the authority of its only key.
struct Fixture {
    authority: TestAuthority,
    limit: Arc<SignatureLimit>,
    verifier: Verifier,
}

impl Fixture {
    fn new() -> Self {
        let authority = TestAuthority::offline();
        let limit = Arc::new(SignatureLimit::new(1, 1));
        let verifier = authority.verifier().with_signature_limit(Arc::clone(&limit));
        Self { authority, limit, verifier }
    }

    /// The key is usable until this time, in Unix seconds.
    fn use_key_until(&self, seconds: u64) {
        self.authority.local_jwks().keys()[0].use_until(seconds);
    }
}

fn reason(outcome: Result<ServiceClaims, Rejection>) -> Option<RejectionReason> {
    outcome.err().map(|rejection| rejection.reason())
}

/// Verifies a token that does not have to wait.
fn done(verifier: &Verifier, token: &str) -> Result<ServiceClaims, Rejection> {
    match verifier.authenticate_token(token.as_bytes()) {
        Authentication::Done(outcome) => outcome,
        Authentication::Pending(_) => panic!("the token waits"),
    }
}

/// Starts to verify a token that has to wait.
fn pending(verifier: &Verifier, token: &str) -> PendingAuthentication {
    match verifier.authenticate_token(token.as_bytes()) {
        Authentication::Pending(pending) => pending,
        Authentication::Done(_) => panic!("the token does not wait"),
    }
}

#[tokio::test]
async fn new_token_waits_for_a_permit_and_a_cached_one_does_not() {
    let fixture = Fixture::new();
    let verifier = &fixture.verifier;
    let known = fixture.authority.token().sign();
    verifier.verify(&known).await.unwrap();

    let permit = fixture.limit.try_acquire().unwrap();
    assert!(verifier.cached(known.as_bytes()).is_some_and(|outcome| outcome.is_ok()));
    // A token that is rejected before its signature check needs no permit.
    assert!(done(verifier, "not.a.token").is_err());
    let token = fixture.authority.token().claim("n", 2).sign();
    let forged = fixture.authority.token().forged().sign();
    let [new, again, forged] = [token.clone(), token, forged].map(|token| {
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
    let token = fixture.authority.token();
    for token in [token.clone(), token.forged()] {
        let rejection = verifier.verify(&token.sign()).await.unwrap_err();
        assert_eq!(rejection.reason(), RejectionReason::TooManyWaiting);
        assert_eq!(rejection.kind(), RejectionKind::KeysUnavailable);
    }
    drop((permit, slots));
    assert!(verifier.verify(&fixture.authority.token().sign()).await.is_ok());
}

#[tokio::test]
async fn queued_token_that_is_cached_meanwhile_is_read_from_the_cache() {
    let fixture = Fixture::new();
    let (permit, token) = (fixture.limit.try_acquire().unwrap(), fixture.authority.token().sign());
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
    let fixture = Fixture::new();
    let permit = fixture.limit.try_acquire().unwrap();
    let pending = pending(&fixture.verifier, &fixture.authority.token().sign());
    fixture.authority.clock().advance(UNTIL_EXPIRED);
    drop(permit);
    assert_eq!(reason(pending.await), Some(RejectionReason::Expired));
}

#[tokio::test]
async fn token_whose_key_is_retired_while_queued_is_rejected() {
    let fixture = Fixture::new();
    let permit = fixture.limit.try_acquire().unwrap();
    let pending = pending(&fixture.verifier, &fixture.authority.token().sign());
    fixture.use_key_until(0);
    drop(permit);
    assert_eq!(reason(pending.await), Some(RejectionReason::UnknownKey));
}

#[tokio::test]
async fn token_longer_than_max_token_len_is_rejected() {
    let fixture = Fixture::new();
    let token = fixture.authority.token().sign();
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
    let token = fixture.authority.token().sign();
    fixture.verifier.verify(&token).await.unwrap();
    fixture.use_key_until(0);
    assert!(fixture.verifier.cached(token.as_bytes()).is_none());
    fixture.use_key_until(u64::MAX);
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
    drop(pending(&configured, &fixture.authority.token().sign()));
    assert_eq!(configured.cache().capacity(), 7);
}
