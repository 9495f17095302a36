//! The token cache of a verifier: which tokens are cached, and for how long.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;

use super::super::cached_token::{CachedRejection, CachedToken};
use super::super::claims::ServiceClaims;
use super::super::deny_list::DenyLists;
use super::super::policy::MarkerOrder;
use super::super::token_cache::TokenCache;
use super::super::validity::Validity;
use super::super::verified::Verified;
use super::super::verifier::Verifier;
use crate::clock::Clock;
use crate::jose::{Algorithm, SigningKey};
use crate::jwks::LocalJwks;
use crate::rejection::RejectionReason;
use crate::testing::TestAuthority;

const NOW: u64 = 1_800_000_000;

/// An authority, and its verifier without leeway.
fn strict() -> (TestAuthority, Verifier) {
    let authority = TestAuthority::offline();
    let verifier = authority.verifier().leeway(Duration::ZERO);
    (authority, verifier)
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
    let (authority, verifier) = strict();
    for service in ["s0", "s1"] {
        authority.rotate();
        let token = authority.token().claim("service", service).sign();
        assert!(!is_cached(&verifier, &token));
        let first = verifier.verify(&token).await.unwrap();
        for _ in 0..20 {
            let again = verifier.cached(token.as_bytes()).unwrap().unwrap();
            assert_eq!(again.get("service"), Some(&json!(service)));
            assert_eq!(again.expires_at(), first.expires_at());
        }
    }
}

/// A token whose header starts with white space does not start with `e`.
#[tokio::test]
async fn token_is_cached_only_if_its_header_starts_with_a_brace() {
    let key = SigningKey::generate(Algorithm::EdDSA).unwrap();
    let jwks = format!(r#"{{"keys":[{}]}}"#, key.public_jwk());
    let verifier = Verifier::new(LocalJwks::from_json(jwks).unwrap());
    let header = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, key.kid());
    let claims = format!(r#"{{"exp":{},"source":"microservice"}}"#, u32::MAX);
    for (header, expected) in [
        (header.clone(), true),
        (header.replacen('{', "{ ", 1), true),
        (header.replacen('{', "{\n", 1), true),
        (format!(" {header}"), false),
    ] {
        let token = key.sign_parts(&header, &claims).unwrap();
        for _ in 0..2 {
            verifier.verify(&token).await.unwrap();
            assert_eq!(is_cached(&verifier, &token), expected, "{header:?}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn cached_token_is_valid_from_nbf_until_exp() {
    let (authority, verifier) = strict();
    let clock = authority.clock().shared();
    let token = authority.token().validity(Duration::from_secs(100)).without("iat");
    let token = token.claim("nbf", clock.unix_now()).sign();
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
    let (authority, verifier) = strict();
    let gone = authority.token().sign();
    let user = authority.token().without_marker().sign();
    let retired = Arc::clone(&authority.local_jwks().keys()[0]);
    authority.rotate();
    let stays = authority.token().sign();
    verify_often(&verifier, &gone).await;
    verify_often(&verifier, &stays).await;
    verifier.verify(&user).await.unwrap_err();
    assert!(is_cached(&verifier, &user));

    retired.use_until(0);
    assert!(!is_cached(&verifier, &gone) && !is_cached(&verifier, &user));
    assert!(verifier.verify(&gone).await.is_err());
    assert!(is_cached(&verifier, &stays));
}

#[tokio::test(start_paused = true)]
async fn token_cached_by_one_verifier_is_rejected_by_another_with_a_new_key() {
    let ((before, first), (after, verifier)) = (strict(), strict());
    let token = before.token().sign();
    verify_often(&first, &token).await;
    after.rotate_to(before.kid());
    assert!(!is_cached(&verifier, &token));
    assert_eq!(verifier.verify(&token).await.unwrap_err().reason(), RejectionReason::BadSignature);
}

#[tokio::test(start_paused = true)]
async fn verifiers_with_different_policies_share_no_token() {
    let (authority, verifier) = strict();
    let token = authority.token().sign();
    verify_often(&verifier, &token).await;
    assert!(is_cached(&verifier.clone(), &token), "a clone with the same policy shares the cache");
    let stricter = verifier.clone().audience("billing");
    assert!(!is_cached(&stricter, &token));
    assert_eq!(stricter.verify(&token).await.unwrap_err().reason(), RejectionReason::WrongAudience);
    assert!(verifier.verify(&token).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn token_that_differs_in_one_byte_is_not_cached() {
    let (authority, verifier) = strict();
    let token = authority.token().sign();
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
    let (authority, verifier) = strict();
    let token = || authority.token();
    let (forged, expired) = (token().forged().sign(), token().expired().sign());
    for token in [forged.as_str(), &expired, "garbage", "a.b.c"] {
        verifier.verify(token).await.unwrap_err();
        assert!(!is_cached(&verifier, token), "{token}");
    }
    assert_eq!(verifier.cache().count_and_weight(), (0, 0));
    // A rejected token is cached too if its signature and its registered claims are valid.
    let user = token().without_marker().subject("user").sign();
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
    let (authority, verifier) = strict();
    let verifier = verifier.cache_capacity(0);
    let token = authority.token().sign();
    for _ in 0..3 {
        verifier.verify(&token).await.unwrap();
        assert!(!is_cached(&verifier, &token));
    }
}

#[tokio::test(start_paused = true)]
async fn signed_token_with_duplicate_claims_is_cached() {
    let (authority, verifier) = strict();
    let twice = authority.token().raw("a", r#"1,"a":1"#).sign();
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
    let authority = TestAuthority::offline();
    let (token, now) = (authority.token().sign(), authority.clock().shared().unix_now());
    let verifiers: Vec<_> = (0..50).map(|_| authority.verifier()).collect();
    for verifier in &verifiers {
        verify_often(verifier, &token).await;
    }
    for verifier in &verifiers {
        assert!(verifier.cache().is_near(token.as_bytes(), now));
    }
}

#[test]
fn cache_stays_bounded_under_100_000_tokens() {
    let key = Arc::clone(&TestAuthority::offline().local_jwks().keys()[0]);
    for token_len in [200, 800, 8192] {
        let cache = TokenCache::new(1000);
        let mut bytes_offered = 0;
        for number in 0..100_000 {
            let token = format!("{number:0>token_len$}");
            bytes_offered += token.len();
            let validity = Validity::until(NOW + 100);
            // Every other token is rejected and goes into the part for rejected tokens.
            let outcome = match number % 2 {
                0 => {
                    let claims = serde_json::Map::new();
                    let verified = Verified::new(claims, validity, Clock::default());
                    Ok(ServiceClaims::verified(verified))
                }
                _ => Err(CachedRejection::Unmarked(RejectionReason::NotMicroservice)),
            };
            cache.insert(CachedToken::new(&token, outcome, Arc::clone(&key), validity));
            let _ = cache.get(token.as_bytes(), NOW, MarkerOrder::Last, &DenyLists::default());
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
    let (authority, verifier) = strict();
    let (lasting, jwks) = (authority.token().sign(), authority.local_jwks());
    let key = &jwks.keys()[0];
    let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
    for _ in 0..200 {
        let retired = AtomicBool::new(false);
        key.use_until(u64::MAX);
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
                key.use_until(0);
                retired.store(true, Ordering::SeqCst);
            });
        });
        assert!(verifier.cached(lasting.as_bytes()).is_none());
    }
}
