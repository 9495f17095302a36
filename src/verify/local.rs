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
/// Longer tokens stay in the second level: the first is bounded in bytes too.
const MAX_TOKEN_LEN: usize = 2048;
/// Where all ways of a place are taken, one in so many hits of the second level moves up: with more callers than there is
/// room for, moving each of them would cost more than it saves.
const MOVES_UP: u32 = 256;

thread_local! {
    static LEVELS: RefCell<Vec<Level>> = const { RefCell::new(Vec::new()) };
}

/// One verifier's first level.
struct Level {
    of: Weak<Verdicts>,
    entries: Vec<Option<Entry>>,
    hits_below: u32,
}

struct Entry {
    /// The token's last eight bytes, which tell nearly all tokens apart.
    tail: u64,
    token: Box<[u8]>,
    /// With claims of its own: a shared reference count would be passed back and forth between threads.
    proof: Proof,
}

/// The caller that this token is known to belong to on this thread. `now` is in Unix seconds.
pub(super) fn recall(verdicts: &Arc<Verdicts>, token: &[u8], now: u64) -> Option<ServiceClaims> {
    with_levels(|levels| {
        let level = levels.iter_mut().find(|level| level.is_of(verdicts))?;
        let tail = tail(token)?;
        let entry = place(&mut level.entries, tail).iter_mut().find(|entry| is(entry, tail, token))?;
        match entry {
            Some(Entry { proof, .. }) if proof.holds(now) => proof.verdict.clone().decided().ok(),
            gone => {
                *gone = None;
                None
            }
        }
    })
}

/// Takes a verdict up from the second level, if there is room for it.
pub(super) fn keep(verdicts: &Arc<Verdicts>, token: &[u8], proof: &Proof) {
    let Proved::Caller(claims) = &proof.verdict else { return };
    if token.len() > MAX_TOKEN_LEN {
        return;
    }
    with_levels(|levels| {
        let tail = tail(token)?;
        let level = match levels.iter().position(|level| level.is_of(verdicts)) {
            Some(position) => &mut levels[position],
            None => add_level(levels, verdicts),
        };
        level.hits_below = level.hits_below.wrapping_add(1);
        let turn = level.hits_below;
        let ways = place(&mut level.entries, tail);
        let free = ways.iter().position(Option::is_none);
        let way = free.or_else(|| turn.is_multiple_of(MOVES_UP).then_some((turn / MOVES_UP) as usize % WAYS))?;
        let proof = Proof { verdict: Proved::Caller(claims.detached()), ..proof.clone() };
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
    levels.push(Level { of: Arc::downgrade(verdicts), entries, hits_below: 0 });
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
    // Fibonacci hashing: base64url leaves the low bits of each byte uneven, the product's upper ones are even.
    let place = (tail.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32) as usize % PLACES;
    &mut entries[place * WAYS..(place + 1) * WAYS]
}

fn is(entry: &Option<Entry>, tail: u64, token: &[u8]) -> bool {
    entry.as_ref().is_some_and(|entry| entry.tail == tail && *entry.token == *token)
}
