//! The token cache of a verifier: which tokens are cached, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::super::cached_token::{CachedRejection, CachedToken};
use super::super::claims::ServiceClaims;
use super::super::policy::Validity;
use super::super::token_cache::TokenCache;
use super::super::verifier::Verifier;
use crate::clock::Clock;
use crate::jose::Jwk;
use crate::jwks::LocalJwks;
use crate::rejection::RejectionReason;

const NOW: u64 = 1_800_000_000;

/// Signs tokens with the keys `k0`, `k1`...
struct Authority {
    keys: Vec<Ed25519KeyPair>,
    jwks: LocalJwks,
}

impl Authority {
    fn new(count: usize) -> Self {
        let keys: Vec<_> = (0..count).map(|_| Ed25519KeyPair::generate().unwrap()).collect();
        let jwk = |(number, key): (usize, &Ed25519KeyPair)| {
            let x = URL_SAFE_NO_PAD.encode(key.public_key().as_ref());
            json!({"kty": "OKP", "crv": "Ed25519", "kid": format!("k{number}"), "x": x})
        };
        let set = json!({"keys": keys.iter().enumerate().map(jwk).collect::<Vec<_>>()});
        Self { jwks: LocalJwks::from_json(set.to_string()).unwrap(), keys }
    }

    fn sign(&self, key: usize, claims: &str) -> String {
        let header = URL_SAFE_NO_PAD.encode(format!(r#"{{"alg":"EdDSA","kid":"k{key}"}}"#));
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims));
        let signature = URL_SAFE_NO_PAD.encode(self.keys[key].sign(signed.as_bytes()).as_ref());
        format!("{signed}.{signature}")
    }

    fn good(&self, key: usize) -> String {
        self.sign(
            key,
            &format!(r#"{{"exp":{},"source":"microservice","service":"s{key}"}}"#, NOW + 100),
        )
    }

    fn verifier(&self, clock: &Clock) -> Verifier {
        Verifier::new(self.jwks.clone()).leeway(Duration::ZERO).on_clock(clock.clone())
    }

    fn key(&self, number: usize) -> Arc<Jwk> {
        Arc::clone(&self.jwks.keys()[number])
    }
}

fn is_cached(verifier: &Verifier, token: &str) -> bool {
    verifier.cached(token.as_bytes()).is_some()
}

/// Verifies often enough for both levels to hold the token.
async fn verify_often(verifier: &Verifier, token: &str) {
    for _ in 0..20 {
        verifier.verify(token).await.unwrap();
    }
    assert!(is_cached(verifier, token));
}

#[tokio::test(start_paused = true)]
async fn cached_outcome_equals_the_first_one() {
    let (authority, clock) = (Authority::new(2), Clock::driven(NOW));
    let verifier = authority.verifier(&clock);
    for key in [0, 1] {
        let token = authority.good(key);
        assert!(!is_cached(&verifier, &token));
        let first = verifier.verify(&token).await.unwrap();
        for _ in 0..20 {
            let again = verifier.cached(token.as_bytes()).unwrap().unwrap();
            assert_eq!(again.get("service"), Some(&json!(format!("s{key}"))));
            assert_eq!(again.expires_at(), first.expires_at());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cached_token_is_valid_from_nbf_until_exp() {
    let (authority, clock) = (Authority::new(1), Clock::driven(NOW));
    let verifier = authority.verifier(&clock);
    let token = authority
        .sign(0, &format!(r#"{{"exp":{},"nbf":{NOW},"source":"microservice"}}"#, NOW + 100));
    verify_often(&verifier, &token).await;
    clock.shift(99);
    assert!(is_cached(&verifier, &token));
    clock.shift(1);
    assert!(!is_cached(&verifier, &token));
    assert_eq!(verifier.verify(&token).await.unwrap_err().reason(), RejectionReason::Expired);

    clock.shift(-100);
    verify_often(&verifier, &token).await;
    clock.shift(-1);
    assert!(!is_cached(&verifier, &token));
    assert_eq!(verifier.verify(&token).await.unwrap_err().reason(), RejectionReason::NotYetValid);
}

#[tokio::test(start_paused = true)]
async fn retired_key_invalidates_only_its_cached_tokens() {
    let (authority, clock) = (Authority::new(2), Clock::driven(NOW));
    let verifier = authority.verifier(&clock);
    let (gone, stays) = (authority.good(0), authority.good(1));
    verify_often(&verifier, &gone).await;
    verify_often(&verifier, &stays).await;
    let user = authority.sign(0, &format!(r#"{{"exp":{}}}"#, NOW + 100));
    verifier.verify(&user).await.unwrap_err();
    assert!(is_cached(&verifier, &user));

    authority.key(0).use_until(0);
    assert!(!is_cached(&verifier, &gone) && !is_cached(&verifier, &user));
    assert!(verifier.verify(&gone).await.is_err());
    assert!(is_cached(&verifier, &stays));
}

#[tokio::test(start_paused = true)]
async fn token_cached_by_one_verifier_is_rejected_by_another_with_a_new_key() {
    let clock = Clock::driven(NOW);
    let (before, after) = (Authority::new(1), Authority::new(1));
    let token = before.good(0);
    verify_often(&before.verifier(&clock), &token).await;
    let verifier = after.verifier(&clock);
    assert!(!is_cached(&verifier, &token));
    assert_eq!(verifier.verify(&token).await.unwrap_err().reason(), RejectionReason::BadSignature);
}

#[tokio::test(start_paused = true)]
async fn verifiers_with_different_policies_share_no_token() {
    let (authority, clock) = (Authority::new(1), Clock::driven(NOW));
    let verifier = authority.verifier(&clock);
    let token = authority.good(0);
    verify_often(&verifier, &token).await;
    assert!(is_cached(&verifier.clone(), &token), "a clone with the same policy shares the cache");
    let stricter = verifier.clone().audience("billing");
    assert!(!is_cached(&stricter, &token));
    assert_eq!(stricter.verify(&token).await.unwrap_err().reason(), RejectionReason::WrongAudience);
    assert!(verifier.verify(&token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn token_that_differs_in_one_byte_is_not_cached() {
    let (authority, clock) = (Authority::new(1), Clock::driven(NOW));
    let verifier = authority.verifier(&clock);
    let token = authority.good(0);
    verify_often(&verifier, &token).await;
    for position in 0..token.len() {
        let mut other = token.clone().into_bytes();
        other[position] ^= 1;
        assert!(verifier.cached(&other).is_none(), "at {position}");
    }
    for other in
        [&token[1..], &token[..token.len() - 1], &format!("{token}A"), &format!("A{token}"), ""]
    {
        assert!(!is_cached(&verifier, other), "{other}");
    }
}

#[tokio::test(start_paused = true)]
async fn only_tokens_with_a_valid_signature_are_cached() {
    let (authority, clock) = (Authority::new(2), Clock::driven(NOW));
    let verifier = authority.verifier(&clock);
    let (good, other) = (authority.good(0), authority.good(1));
    let forged =
        format!("{}.{}", good.rsplit_once('.').unwrap().0, other.rsplit_once('.').unwrap().1);
    let expired = authority.sign(0, r#"{"exp":1,"source":"microservice"}"#);
    for token in [forged.as_str(), &expired, "garbage", "a.b.c"] {
        verifier.verify(token).await.unwrap_err();
        assert!(!is_cached(&verifier, token), "{token}");
    }
    assert_eq!(verifier.cache().count_and_weight(), (0, 0));
    // A rejected token is cached too if its signature and its registered claims are valid.
    let user = authority.sign(0, &format!(r#"{{"exp":{},"sub":"user"}}"#, NOW + 100));
    for _ in 0..3 {
        assert_eq!(
            verifier.verify(&user).await.unwrap_err().reason(),
            RejectionReason::NotMicroservice
        );
    }
    assert!(is_cached(&verifier, &user));
}

#[tokio::test(start_paused = true)]
async fn cache_with_capacity_zero_caches_nothing() {
    let (authority, clock) = (Authority::new(1), Clock::driven(NOW));
    let verifier = authority.verifier(&clock).cache_capacity(0);
    let token = authority.good(0);
    for _ in 0..3 {
        verifier.verify(&token).await.unwrap();
        assert!(!is_cached(&verifier, &token));
    }
}

#[tokio::test(start_paused = true)]
async fn signed_token_with_duplicate_claims_is_cached() {
    let (authority, clock) = (Authority::new(1), Clock::driven(NOW));
    let verifier = authority.verifier(&clock);
    let twice = authority
        .sign(0, &format!(r#"{{"exp":{},"source":"microservice","a":1,"a":1}}"#, NOW + 100));
    for _ in 0..3 {
        assert_eq!(
            verifier.verify(&twice).await.unwrap_err().reason(),
            RejectionReason::MalformedClaims
        );
        assert!(is_cached(&verifier, &twice));
    }
}

#[tokio::test(start_paused = true)]
async fn fifty_verifiers_on_one_thread_keep_their_near_caches() {
    let (authority, clock) = (Authority::new(1), Clock::driven(NOW));
    let token = authority.good(0);
    let verifiers: Vec<_> = (0..50).map(|_| authority.verifier(&clock)).collect();
    for verifier in &verifiers {
        verify_often(verifier, &token).await;
    }
    for verifier in &verifiers {
        assert!(verifier.cache().is_near(token.as_bytes(), NOW));
    }
}

#[test]
fn cache_stays_bounded_under_100_000_tokens() {
    let authority = Authority::new(1);
    for token_len in [200, 800, 8192] {
        let cache = TokenCache::new(1000);
        let mut bytes_offered = 0;
        for number in 0..100_000 {
            let token = format!("{number:0>token_len$}");
            bytes_offered += token.len();
            // Every other token is rejected and goes into the part for rejected tokens.
            let outcome = match number % 2 {
                0 => Ok(ServiceClaims::verified(serde_json::Map::new(), NOW)),
                _ => Err(CachedRejection::Unmarked(RejectionReason::NotMicroservice)),
            };
            let validity = Validity::until(NOW + 100);
            cache.insert(CachedToken::new(&token, outcome, authority.key(0), validity));
            cache.get(token.as_bytes(), NOW);
        }
        let (count, weight) = cache.count_and_weight();
        let tokens = 1000 + 1000 / 16;
        assert!(
            count <= tokens && weight <= 4 * tokens as u64,
            "{count} entries of weight {weight}"
        );
        assert!(
            count * token_len <= tokens * 4096,
            "{count} entries of {token_len} bytes, {bytes_offered} offered"
        );
        assert!(count > 50, "{count} entries");
    }
}

#[test]
fn cached_token_never_outlives_its_retired_key() {
    let authority = Authority::new(1);
    let clock = Clock::default();
    let verifier = authority.verifier(&clock);
    let expires = clock.unix_now() + 3600;
    let lasting = authority.sign(0, &format!(r#"{{"exp":{expires},"source":"microservice"}}"#));
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..200 {
        let retired = AtomicBool::new(false);
        authority.key(0).use_until(u64::MAX);
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let runtime = runtime();
                    for _ in 0..50 {
                        let was_retired = retired.load(Ordering::SeqCst);
                        let admitted = runtime.block_on(verifier.verify(&lasting)).is_ok();
                        assert!(!(was_retired && admitted), "a cached token outlived its key");
                    }
                });
            }
            scope.spawn(|| {
                authority.key(0).use_until(0);
                retired.store(true, Ordering::SeqCst);
            });
        });
        assert!(verifier.cached(lasting.as_bytes()).is_none());
    }
}
