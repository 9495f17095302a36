//! Deny lists of a [`Verifier`]: which tokens it rejects, for which reason, and in which order.

use std::time::{Duration, SystemTime};

use super::super::entry::DenyEntry;
use super::super::list::DenyList;
use crate::jwks::LocalJwks;
use crate::rejection::{RejectionKind, RejectionReason as R};
use crate::testing::{TestAuthority, TokenBuilder};
use crate::verify::Verifier;

async fn verify(verifier: &Verifier, token: &str) -> Result<(), R> {
    verifier.verify(token).await.map(drop).map_err(|err| err.reason())
}

/// An authority, whose clock stands at a whole second in paused time, its token of service `orders`, its verifier with a list, and the list.
fn fixture() -> (TestAuthority, TokenBuilder, Verifier, DenyList) {
    let (authority, list) = (TestAuthority::offline(), DenyList::new());
    let token = authority.token().claim("service", "orders").claim("jti", "t1");
    let verifier = authority.verifier().deny_list(list.clone());
    (authority, token, verifier, list)
}

#[tokio::test(start_paused = true)]
async fn entry_applies_to_new_and_cached_tokens_and_is_lifted() {
    let (authority, token, verifier, list) = fixture();
    let (now, second) = (authority.clock().now(), Duration::from_secs(1));
    let service = || DenyEntry::claim("service", "orders");
    let cases = [
        (DenyEntry::claim("jti", "t1"), Err(R::TokenRevoked)),
        (DenyEntry::claim("jti", "t2"), Ok(())),
        (service(), Err(R::CallerDenied)),
        (DenyEntry::issued_before(now), Ok(())),
        (DenyEntry::issued_before(now + second), Err(R::TokenRevoked)),
        (service().and(DenyEntry::issued_before(now + second)), Err(R::TokenRevoked)),
        (DenyEntry::key(authority.kid()), Err(R::TokenRevoked)),
        (DenyEntry::key("other"), Ok(())),
        // A flawed entry.
        (DenyEntry::claim("service", ["orders"; 0]), Ok(())),
    ];
    for (number, (entry, expected)) in cases.into_iter().enumerate() {
        let token = token.clone().claim("n", number).sign();
        // New and denied, cached and denied, cached and lifted, cached and denied again.
        for (entries, expected) in [
            (Some(entry.clone()), expected),
            (None, Ok(())),
            (Some(entry.clone()), expected),
            (None, Ok(())),
        ] {
            list.replace(entries);
            for again in 0..3 {
                assert_eq!(verify(&verifier, &token).await, expected, "{entry} {again}");
                assert!(verifier.cached(token.as_bytes()).is_some(), "{entry}");
            }
        }
    }
    assert_eq!(R::TokenRevoked.kind(), RejectionKind::InvalidToken);
    assert_eq!(R::CallerDenied.kind(), RejectionKind::ClaimRefused);
}

#[tokio::test]
async fn deny_list_works_without_a_cache() {
    let (_authority, token, verifier, list) = fixture();
    let (verifier, token) = (verifier.cache_capacity(0), token.sign());
    assert_eq!(verify(&verifier, &token).await, Ok(()));
    list.replace([DenyEntry::claim("jti", "t1")]);
    assert_eq!(verify(&verifier, &token).await, Err(R::TokenRevoked));
}

#[tokio::test]
async fn deny_list_comes_after_marker_and_required_claims() {
    let (_authority, token, verifier, list) = fixture();
    let verifier = verifier.audience("billing").require_claim("role", "payer");
    let good = token.clone().claim("role", "payer");
    list.replace([DenyEntry::claim("service", "orders")]);
    let cases = [
        (good.clone().audience("other"), R::WrongAudience),
        (good.clone().audience("billing").without_marker(), R::NotMicroservice),
        (token.audience("billing"), R::ClaimRefused),
        (good.clone().audience("billing"), R::CallerDenied),
        (good.audience("billing").forged(), R::BadSignature),
    ];
    for (token, reason) in cases {
        let token = token.sign();
        for _ in 0..2 {
            assert_eq!(verify(&verifier, &token).await, Err(reason));
        }
    }
}

#[tokio::test]
async fn any_of_several_lists_denies() {
    let (_authority, token, verifier, first) = fixture();
    let (second, token) = (DenyList::new(), token.sign());
    let one_list = verifier.clone();
    let verifier = verifier.deny_list(second.clone());
    let (revoke, deny) = (DenyEntry::claim("jti", "t1"), DenyEntry::claim("service", "orders"));
    assert_eq!(verify(&verifier, &token).await, Ok(()));
    second.replace([revoke.clone()]);
    assert_eq!(verify(&verifier, &token).await, Err(R::TokenRevoked));
    assert_eq!(verify(&one_list, &token).await, Ok(()));
    for (in_first, in_second) in [(&revoke, &deny), (&deny, &revoke)] {
        first.replace([in_first.clone()]);
        second.replace([in_second.clone()]);
        assert_eq!(verify(&verifier, &token).await, Err(R::CallerDenied));
    }
    second.replace([]);
    first.replace([revoke]);
    assert_eq!(verify(&verifier, &token).await, Err(R::TokenRevoked));
    first.replace([]);
    assert_eq!(verify(&verifier, &token).await, Ok(()));
}

#[tokio::test]
async fn verifiers_with_other_lists_share_no_results() {
    let (authority, token, verifier, first) = fixture();
    let (second, token) = (DenyList::new(), token.sign());
    // Both lists have the same generation.
    first.replace([]);
    second.replace([DenyEntry::claim("jti", "t1")]);
    assert_eq!(verify(&verifier, &token).await, Ok(()));
    let other = authority.verifier().deny_list(second);
    assert_eq!(verify(&other, &token).await, Err(R::TokenRevoked));
    assert_eq!(verify(&verifier, &token).await, Ok(()));
}

#[tokio::test(start_paused = true)]
async fn optional_layer_rejects_users_for_key_entries_alone() {
    let (authority, token, verifier, list) = fixture();
    let optional = verifier.clone().with_marker_first();
    let user = token.clone().without_marker().sign();
    let (service, later) = (token.sign(), authority.clock().now() + Duration::from_secs(1));
    let key = || DenyEntry::key(authority.kid());
    let claim = || DenyEntry::claim("service", "orders");
    // (entry, rejection of the service, of the user)
    let cases = [
        (key(), R::TokenRevoked, R::TokenRevoked),
        (key().and(DenyEntry::issued_before(later)), R::TokenRevoked, R::TokenRevoked),
        (key().and(claim()), R::TokenRevoked, R::NotMicroservice),
        (DenyEntry::issued_before(later), R::TokenRevoked, R::NotMicroservice),
        (DenyEntry::claim("jti", "t1"), R::TokenRevoked, R::NotMicroservice),
        (claim(), R::CallerDenied, R::NotMicroservice),
    ];
    for (entry, of_service, of_user) in cases {
        list.replace([entry.clone()]);
        for _ in 0..2 {
            assert_eq!(verify(&optional, &service).await, Err(of_service), "{entry}");
            assert_eq!(verify(&optional, &user).await, Err(of_user), "{entry}");
            // Shares the cache, and reads the marker last.
            assert_eq!(verify(&verifier, &user).await, Err(R::NotMicroservice), "{entry}");
        }
        list.replace([]);
        assert_eq!(verify(&optional, &service).await, Ok(()), "{entry}");
        assert_eq!(verify(&optional, &user).await, Err(R::NotMicroservice), "{entry}");
    }
}

#[tokio::test]
async fn new_token_of_an_end_user_is_rejected_for_its_key() {
    let (authority, token, verifier, list) = fixture();
    list.replace([DenyEntry::key(authority.kid())]);
    let (optional, user) = (verifier.with_marker_first(), token.without_marker().sign());
    assert_eq!(verify(&optional, &user).await, Err(R::TokenRevoked));
    assert_eq!(verify(&optional, &user).await, Err(R::TokenRevoked));
}

#[tokio::test]
async fn denied_key_is_that_which_verified_the_token() {
    let authority = TestAuthority::offline();
    let list = DenyList::new();
    let verifier = authority.verifier().deny_list(list.clone());
    let without_kid = authority.sign_parts(r#"{"alg":"EdDSA"}"#, &claims(&authority));
    assert_eq!(verify(&verifier, &without_kid).await, Ok(()));
    list.replace([DenyEntry::key(authority.kid())]);
    assert_eq!(verify(&verifier, &without_kid).await, Err(R::TokenRevoked));

    // The key has another kid in this set than in the header.
    let jwk = authority.jwk().replace(&authority.kid(), "renamed");
    let keys = LocalJwks::from_json(format!(r#"{{"keys":[{jwk}]}}"#)).unwrap();
    let renamed = authority.verifier_with(keys).deny_list(list.clone());
    assert_eq!(verify(&renamed, &without_kid).await, Ok(()));
    list.replace([DenyEntry::key("renamed")]);
    assert_eq!(verify(&renamed, &without_kid).await, Err(R::TokenRevoked));
}

/// The claims of a service, as JSON.
fn claims(authority: &TestAuthority) -> String {
    let (issuer, now) = (authority.issuer(), authority.clock().now());
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    format!(r#"{{"iss":"{issuer}","exp":{},"source":"microservice"}}"#, now + 100)
}

#[tokio::test(start_paused = true)]
async fn fraction_of_iat_is_dropped() {
    let (authority, token, verifier, list) = fixture();
    let now = authority.clock().now();
    let seconds = now.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    let token = token.raw("iat", format!("{}.9", seconds - 10)).sign();
    for (time, expected) in [(10, Ok(())), (9, Err(R::TokenRevoked))] {
        list.replace([DenyEntry::issued_before(now - Duration::from_secs(time))]);
        assert_eq!(verify(&verifier, &token).await, expected, "{time}");
    }
}

#[test]
fn debug_of_a_verifier_prints_the_number_of_entries() {
    let (.., verifier, list) = fixture();
    list.replace([DenyEntry::claim("jti", "t1")]);
    let printed = format!("{verifier:?}");
    assert!(printed.contains("DenyList { entries: 1, file: None"), "{printed}");
    assert!(!printed.contains("t1"), "{printed}");
}
