//! The first level of remembered verdicts: a few hundred for each thread, which no other thread touches.

use std::cell::RefCell;
use std::sync::{Arc, Weak};

use super::verdicts::{Proof, Proved, Verdicts};
use crate::claims::ServiceClaims;

/// Entries that may stand in one place.
const WAYS: usize = 4;
/// Places. A power of two.
const PLACES: usize = 64;
/// So many verifiers have a first level on one thread; the oldest level makes room.
const MAX_VERIFIERS: usize = 8;
/// Longer tokens stay in the second level, and such whose claims take more: the first is bounded in bytes too.
const MAX_TOKEN_LEN: usize = 2048;
const MAX_UNITS: u64 = 4;
/// Where all ways of a place are taken, one in so many of the tokens that this level does not know moves up: with more
/// callers than there is room for, moving each of them would cost more than it saves.
const MOVES_UP: u32 = 256;

thread_local! {
    static LEVELS: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
}

/// One verifier's first level.
struct Level {
    of: Weak<Verdicts>,
    entries: Vec<Option<Entry>>,
    unknown: u32,
}

struct Entry {
    /// The token's last eight bytes, which tell nearly all tokens apart.
    tail: u64,
    token: Box<[u8]>,
    /// With claims of its own: a shared reference count would be passed back and forth between threads.
    proof: Proof,
}

/// What this level knows of a token.
pub(super) enum Recalled {
    /// The caller that it belongs to.
    Caller(ServiceClaims),
    /// Nothing. If the second level knows a caller, there is room for it here.
    Room,
    /// Nothing, nor is there room.
    NoRoom,
}

/// `now` is in Unix seconds.
pub(super) fn recall(verdicts: &Arc<Verdicts>, token: &[u8], now: u64) -> Recalled {
    with_levels(|levels| {
        let tail = tail(token).filter(|_| token.len() <= MAX_TOKEN_LEN)?;
        let Some(level) = levels.iter_mut().find(|level| level.is_of(verdicts)) else { return Some(Recalled::Room) };
        let ways = place(&mut level.entries, tail);
        if let Some(entry) = ways.iter_mut().find(|entry| is(entry, tail, token)) {
            match entry {
                Some(Entry { proof, .. }) if proof.holds(now) => {
                    return proof.verdict.clone().decided().ok().map(Recalled::Caller);
                }
                gone => *gone = None,
            }
        }
        level.unknown = level.unknown.wrapping_add(1);
        let has_room = level.unknown.is_multiple_of(MOVES_UP) || ways.iter().any(Option::is_none);
        has_room.then_some(Recalled::Room)
    })
    .unwrap_or(Recalled::NoRoom)
}

/// Takes a verdict up from the second level, once [`recall`] has said that there is room.
pub(super) fn keep(verdicts: &Arc<Verdicts>, token: &[u8], proof: &Proof) {
    let Proved::Caller(claims) = &proof.verdict else { return };
    if proof.units > MAX_UNITS {
        return;
    }
    with_levels(|levels| {
        let tail = tail(token)?;
        let level = match levels.iter().position(|level| level.is_of(verdicts)) {
            Some(position) => &mut levels[position],
            None => add_level(levels, verdicts),
        };
        let ways = place(&mut level.entries, tail);
        // Each way has its turn.
        let way = ways.iter().position(Option::is_none).unwrap_or((level.unknown / MOVES_UP) as usize % WAYS);
        let verdict = Proved::Caller(claims.detached());
        let proof = Proof { verdict, key: Arc::clone(&proof.key), ..*proof };
        ways[way] = Some(Entry { tail, token: token.into(), proof });
        Some(())
    });
}

/// Runs `f` on this thread's levels. A thread that is ending has none any more.
fn with_levels<T>(f: impl FnOnce(&mut Vec<Level>) -> Option<T>) -> Option<T> {
    LEVELS.try_with(|levels| f(&mut *levels.try_borrow_mut().ok()?)).ok().flatten()
}

/// A new level, in the place of those whose verifier is gone, or else of the oldest.
fn add_level<'l>(levels: &'l mut Vec<Level>, verdicts: &Arc<Verdicts>) -> &'l mut Level {
    levels.retain(|level| level.of.strong_count() > 0);
    if levels.len() == MAX_VERIFIERS {
        levels.remove(0);
    }
    let entries = std::iter::repeat_with(|| None).take(PLACES * WAYS).collect();
    let position = levels.len();
    levels.push(Level { of: Arc::downgrade(verdicts), entries, unknown: 0 });
    &mut levels[position]
}

impl Level {
    fn is_of(&self, verdicts: &Arc<Verdicts>) -> bool {
        // The weak count keeps the allocation, so no other verifier's can have this address.
        std::ptr::eq(self.of.as_ptr(), Arc::as_ptr(verdicts))
    }
}

fn tail(token: &[u8]) -> Option<u64> {
    token.last_chunk().map(|tail| u64::from_le_bytes(*tail))
}

/// The ways in which a token of this tail may stand.
fn place(entries: &mut [Option<Entry>], tail: u64) -> &mut [Option<Entry>] {
    &mut entries[place_number(tail) * WAYS..][..WAYS]
}

/// Fibonacci hashing: base64url leaves the low bits of each byte uneven, the product's upper ones are even.
fn place_number(tail: u64) -> usize {
    (tail.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % PLACES
}

fn is(entry: &Option<Entry>, tail: u64, token: &[u8]) -> bool {
    entry.as_ref().is_some_and(|entry| entry.tail == tail && *entry.token == *token)
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

    use super::*;
    use crate::jwks::{FixedJwks, Key};
    use crate::verify::policy::Validity;

    const NOW: u64 = 1_800_000_000;

    fn key() -> Arc<Key> {
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"});
        let keys = FixedJwks::from_json(json!({ "keys": [jwk] }).to_string()).unwrap();
        Arc::clone(&keys.keys()[0])
    }

    fn verdicts() -> Arc<Verdicts> {
        Arc::new(Verdicts::new(10))
    }

    /// A caller's proof that ends with its key, or at `NOW + 100`.
    fn caller(key: &Arc<Key>) -> Proof {
        let verdict = Proved::Caller(ServiceClaims::proven(Map::new(), NOW + 100));
        Proof { verdict, key: Arc::clone(key), validity: Validity::until(NOW + 100), units: MAX_UNITS }
    }

    /// Tokens that all stand in one place.
    fn neighbours(count: usize) -> Vec<Vec<u8>> {
        let place_of = |token: &[u8]| place_number(tail(token).unwrap());
        let tokens = (0..).map(|number| format!("token{number:012}").into_bytes());
        tokens.filter(|token| place_of(token) == 7).take(count).collect()
    }

    /// What the second level does with a token that it knows.
    fn look_up(verdicts: &Arc<Verdicts>, token: &[u8], proof: &Proof) {
        if let Recalled::Room = recall(verdicts, token, NOW) {
            keep(verdicts, token, proof);
        }
    }

    fn known(verdicts: &Arc<Verdicts>, token: &[u8], now: u64) -> Option<ServiceClaims> {
        match recall(verdicts, token, now) {
            Recalled::Caller(claims) => Some(claims),
            Recalled::Room | Recalled::NoRoom => None,
        }
    }

    #[test]
    fn what_was_kept_is_recalled_for_its_verifier_until_it_ends() {
        let (verdicts, others, key) = (verdicts(), verdicts(), key());
        let token = b"a token of some length";
        let proof = caller(&key);
        look_up(&verdicts, token, &proof);
        let Proved::Caller(claims) = &proof.verdict else { unreachable!() };
        assert!(known(&verdicts, token, NOW + 99).is_some_and(|own| !own.is_shared_with(claims)));
        assert!(known(&others, token, NOW).is_none());
        assert!(known(&verdicts, b"a Token of some length", NOW).is_none());
        std::thread::scope(|scope| scope.spawn(|| assert!(known(&verdicts, token, NOW).is_none())).join().unwrap());

        assert!(known(&verdicts, token, NOW + 100).is_none());
        assert!(known(&verdicts, token, NOW).is_none(), "it is gone for good");
        look_up(&verdicts, token, &proof);
        assert!(known(&verdicts, token, NOW).is_some());
        key.use_until(0);
        assert!(known(&verdicts, token, NOW).is_none());
    }

    #[test]
    fn only_callers_with_tokens_of_some_length_are_kept() {
        let (verdicts, key) = (verdicts(), key());
        let other = Proof { verdict: Proved::NotMicroservice, ..caller(&key) };
        look_up(&verdicts, b"an end user's token", &other);
        assert!(known(&verdicts, b"an end user's token", NOW).is_none());
        look_up(&verdicts, b"a token of many claims", &Proof { units: MAX_UNITS + 1, ..caller(&key) });
        assert!(known(&verdicts, b"a token of many claims", NOW).is_none());
        for (token_len, kept) in [(0, false), (7, false), (8, true), (MAX_TOKEN_LEN, true), (MAX_TOKEN_LEN + 1, false)]
        {
            let token = vec![b'a'; token_len];
            look_up(&verdicts, &token, &caller(&key));
            assert_eq!(known(&verdicts, &token, NOW).is_some(), kept, "{token_len}");
        }
    }

    #[test]
    fn a_full_place_takes_up_a_token_now_and_then() {
        let (verdicts, proof) = (verdicts(), caller(&key()));
        let tokens = neighbours(2 * WAYS);
        let (first, late) = tokens.split_at(WAYS);
        for token in first {
            look_up(&verdicts, token, &proof);
        }
        let stands = |token: &Vec<u8>| {
            with_levels(|levels| {
                let level = levels.iter_mut().find(|level| level.is_of(&verdicts))?;
                let tail = tail(token)?;
                place(&mut level.entries, tail).iter().find(|entry| is(entry, tail, token)).map(drop)
            })
        };
        let standing = |tokens: &[Vec<u8>]| tokens.iter().filter_map(stands).count();
        assert_eq!(standing(first), WAYS);
        // Each way has its turn, and each of the later tokens comes to stand in one.
        for (turn, token) in (1..).zip(late) {
            for _ in 0..MOVES_UP {
                look_up(&verdicts, token, &proof);
            }
            assert_eq!((standing(first), standing(late)), (WAYS - turn, turn));
        }
    }

    #[test]
    fn a_thread_has_a_level_for_each_of_eight_verifiers() {
        let (key, token) = (key(), b"a token of some length");
        let known = |verdicts: &Arc<Verdicts>| known(verdicts, token, NOW).is_some();
        let mut verifiers: Vec<_> = std::iter::repeat_with(verdicts).take(MAX_VERIFIERS).collect();
        for verdicts in &verifiers {
            look_up(verdicts, token, &caller(&key));
        }
        assert!(verifiers.iter().all(known));
        // One that is gone makes room; where none is, the oldest does.
        drop(verifiers.pop());
        let (another, one_more) = (verdicts(), verdicts());
        look_up(&another, token, &caller(&key));
        assert!(verifiers.iter().all(known) && known(&another));
        look_up(&one_more, token, &caller(&key));
        assert!(!known(&verifiers[0]) && verifiers[1..].iter().all(known) && known(&another) && known(&one_more));
    }
}
