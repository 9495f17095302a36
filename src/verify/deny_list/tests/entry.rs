//! Which tokens an entry matches, and why they are rejected.

use std::time::{Duration, UNIX_EPOCH};

use serde_json::{Value, json};

use super::super::entry::DenyEntry;
use super::super::token_facts::TokenFacts;
use crate::rejection::RejectionReason as R;
use crate::verify::expected::Expected;

/// Issued before this time, in milliseconds since the epoch.
fn before(millis: u64) -> DenyEntry {
    DenyEntry::issued_before(UNIX_EPOCH + Duration::from_millis(millis))
}

fn matches(entry: &DenyEntry, claims: &Value, issued_at: Option<u64>, kid: Option<&str>) -> bool {
    entry.matches(TokenFacts { claims: claims.as_object(), issued_at, kid })
}

#[test]
fn every_condition_of_an_entry_must_hold() {
    let claims = json!({
        "jti": "t1", "service": "orders", "aud": ["a", "b"], "scope": "read charge",
        "kubernetes.io": {"namespace": "shop"},
    });
    let claim = |path: &str, value: &str| DenyEntry::claim(path, value);
    let nested = |value: &str| DenyEntry::claim(["kubernetes.io", "namespace"], value);
    // (entry, whether it matches the claims with `iat` 100, verified with key k1)
    let cases = [
        (claim("jti", "t1"), true),
        (claim("jti", "t2"), false),
        (claim("jti", "T1"), false),
        (claim("missing", "t1"), false),
        (nested("shop"), true),
        (nested("bank"), false),
        (claim("kubernetes.io.namespace", "shop"), false),
        (DenyEntry::claim("service", ["refunds", "orders"]), true),
        (DenyEntry::claim("service", ["refunds"]), false),
        (DenyEntry::claim("service", Expected::prefix("order")), false),
        (DenyEntry::claim("scope", Expected::scope("charge")), true),
        (DenyEntry::claim("aud", Expected::contains("b")), true),
        (claim("aud", "b"), false),
        (claim("service", "orders").and(nested("shop")), true),
        (claim("service", "orders").and(nested("bank")), false),
        (claim("service", "orders").and(claim("service", "refunds")), false),
        (before(100_000), false),
        (before(100_001), true),
        (before(101_000), true),
        (before(0), false),
        (before(101_000).and(before(100_000)), false),
        (before(200_000).and(before(101_000)), true),
        (claim("service", "orders").and(before(101_000)), true),
        (claim("service", "orders").and(before(100_000)), false),
        (DenyEntry::key("k1"), true),
        (DenyEntry::key("k2"), false),
        (DenyEntry::key("k1").and(DenyEntry::key("k1")), true),
        (DenyEntry::key("k1").and(before(101_000)), true),
        (DenyEntry::key("k1").and(before(100_000)), false),
        (DenyEntry::key("k1").and(claim("service", "orders")), true),
        (DenyEntry::key("k2").and(claim("service", "orders")), false),
        (DenyEntry::key("k1").and(DenyEntry::key("k2")), false),
    ];
    for (entry, expected) in cases {
        assert_eq!(matches(&entry, &claims, Some(100), Some("k1")), expected, "{entry}");
    }
}

#[test]
fn token_without_iat_counts_as_issued_before_every_time() {
    for entry in [before(0), before(1), before(u64::MAX)] {
        assert!(matches(&entry, &json!({}), None, None), "{entry}");
    }
    let before_epoch = DenyEntry::issued_before(UNIX_EPOCH - Duration::from_secs(1));
    assert!(matches(&before_epoch, &json!({}), None, None));
    assert!(!matches(&before_epoch, &json!({}), Some(0), None));
}

#[test]
fn key_without_kid_is_matched_by_no_key_entry() {
    assert!(!matches(&DenyEntry::key("k1"), &json!({}), None, None));
    assert!(!matches(&DenyEntry::key(""), &json!({}), None, None));
}

#[test]
fn only_key_entries_match_a_token_without_the_marker() {
    let claim = || DenyEntry::claim("jti", "t1");
    let cases = [
        (DenyEntry::key("k1"), true),
        (DenyEntry::key("k1").and(before(101_000)), true),
        (DenyEntry::key("k1").and(before(100_000)), false),
        (DenyEntry::key("k2"), false),
        (before(101_000), false),
        (claim(), false),
        (claim().and(DenyEntry::key("k1")), false),
        (claim().and(before(101_000)), false),
    ];
    for (entry, expected) in cases {
        let token = TokenFacts { claims: None, issued_at: Some(100), kid: Some("k1") };
        assert_eq!(entry.matches(token), expected, "{entry}");
    }
}

#[test]
fn entry_revokes_tokens_or_denies_the_caller() {
    let service = || DenyEntry::claim("service", "orders");
    let cases = [
        (service(), R::CallerDenied),
        (DenyEntry::claim("sub", "a").and(service()), R::CallerDenied),
        (DenyEntry::claim(["jti", "a"], "b"), R::CallerDenied),
        (DenyEntry::claim(["a", "jti"], "b"), R::CallerDenied),
        (DenyEntry::claim("jti", "t1"), R::TokenRevoked),
        (DenyEntry::claim(["jti"], "t1"), R::TokenRevoked),
        (service().and(DenyEntry::claim("jti", ["t1", "t2"])), R::TokenRevoked),
        (before(1000), R::TokenRevoked),
        (service().and(before(1000)), R::TokenRevoked),
        (DenyEntry::key("k1"), R::TokenRevoked),
        (DenyEntry::key("k1").and(service()), R::TokenRevoked),
    ];
    for (entry, reason) in cases {
        assert_eq!(entry.reason(), reason, "{entry}");
    }
}

#[test]
fn mistaken_entry_has_a_flaw() {
    let none: [&str; 0] = [];
    let good = || DenyEntry::claim("service", "orders");
    let cases = [
        (good(), None),
        (DenyEntry::key("k1").and(DenyEntry::key("k1")), None),
        (before(253_402_300_799_000), None),
        (DenyEntry::claim("", "a"), Some("the path is empty or has an empty name")),
        (good().and(DenyEntry::claim("a", none)), Some("the list is empty")),
        (
            DenyEntry::claim("a", Expected::prefix("ord")).and(DenyEntry::key("k1")),
            Some("the prefix ends in a letter or digit"),
        ),
        (DenyEntry::key(""), Some("the key has an empty kid")),
        (good().and(DenyEntry::key("")), Some("the key has an empty kid")),
        (DenyEntry::key("k1").and(DenyEntry::key("k2")), Some("no token has two keys")),
        (before(253_402_300_799_001), Some("the time is after the year 9999; it is in seconds")),
    ];
    for (entry, flaw) in cases {
        assert_eq!(entry.flaw(), flaw, "{entry}");
    }
}
