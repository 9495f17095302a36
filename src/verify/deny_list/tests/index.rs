//! The index finds what a comparison with each entry finds.

use std::time::{Duration, UNIX_EPOCH};

use fastrand::Rng;
use serde_json::{Map, Value, json};

use super::super::entry::DenyEntry;
use super::super::index::{DenyIndex, strongest};
use super::super::token_facts::TokenFacts;
use crate::rejection::RejectionReason as R;
use crate::verify::expected::Expected;

const VALUES: [&str; 4] = ["a", "b", "c/", "d"];
const NAMES: [&str; 3] = ["jti", "service", "x"];

fn any<'v>(rng: &mut Rng, values: &[&'v str]) -> &'v str {
    values[rng.usize(..values.len())]
}

fn any_expected(rng: &mut Rng) -> Expected {
    let one = any(rng, &VALUES);
    match rng.u8(..6) {
        0 => [one, any(rng, &VALUES)].into(),
        1 => [Expected::from(one), [any(rng, &VALUES), any(rng, &VALUES)].into()].into(),
        2 => Expected::prefix("c/"),
        3 => [Expected::from(one), Expected::equal(7)].into(),
        _ => one.into(),
    }
}

fn any_entry(rng: &mut Rng) -> DenyEntry {
    let condition = |rng: &mut Rng| match rng.u8(..5) {
        0 => DenyEntry::key(any(rng, &VALUES)),
        1 => DenyEntry::issued_before(UNIX_EPOCH + Duration::from_secs(rng.u64(..4))),
        2 => DenyEntry::claim([any(rng, &NAMES), "y"], any_expected(rng)),
        _ => DenyEntry::claim(any(rng, &NAMES), any_expected(rng)),
    };
    let more = rng.u8(..3);
    (0..more).fold(condition(rng), |entry, _| entry.and(condition(rng)))
}

fn any_claims(rng: &mut Rng) -> Map<String, Value> {
    let mut claims = Map::new();
    for name in NAMES {
        let value = match rng.u8(..6) {
            0 => continue,
            1 => json!(7),
            2 => json!({"y": any(rng, &VALUES)}),
            3 => json!([any(rng, &VALUES)]),
            _ => json!(any(rng, &VALUES)),
        };
        claims.insert(name.to_owned(), value);
    }
    claims
}

#[test]
fn index_finds_what_comparing_each_entry_finds() {
    let mut rng = Rng::with_seed(16);
    let mut found = [0; 3];
    for _ in 0..20_000 {
        let mut entries: Vec<_> = (0..rng.usize(..6)).map(|_| any_entry(&mut rng)).collect();
        entries.retain(|entry| entry.flaw().is_none());
        let claims = any_claims(&mut rng);
        let token = TokenFacts {
            claims: rng.u8(..8).ne(&0).then_some(&claims),
            issued_at: rng.bool().then(|| rng.u64(..4)),
            kid: rng.bool().then(|| any(&mut rng, &VALUES)),
        };
        let matching = entries.iter().filter(|entry| entry.matches(token));
        let expected = strongest(matching.map(DenyEntry::reason));
        let denial = DenyIndex::new(entries.clone()).denial(token);
        assert_eq!(denial, expected, "{entries:?} {token:?}");
        found[match denial {
            None => 0,
            Some(R::TokenRevoked) => 1,
            _ => 2,
        }] += 1;
    }
    assert!(found.iter().all(|count| *count > 500), "{found:?}");
}

#[test]
fn caller_denied_wins_over_token_revoked() {
    let (revoked, denied) = (DenyEntry::claim("jti", "t"), DenyEntry::claim("service", "orders"));
    let claims = json!({"jti": "t", "service": "orders"});
    let token = TokenFacts { claims: claims.as_object(), issued_at: None, kid: None };
    for entries in [[revoked.clone(), denied.clone()], [denied, revoked]] {
        assert_eq!(DenyIndex::new(entries.into()).denial(token), Some(R::CallerDenied));
    }
}
