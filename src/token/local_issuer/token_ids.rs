//! [`TokenIds`]: the `jti` of each token.

use std::sync::{Mutex, PoisonError};

use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use uuid::{Builder, Uuid};

/// Number of ids that one call of the random generator makes.
const BATCH: usize = 32;

/// Random UUIDs for `jti` (RFC 7519 §4.1.7).
///
/// Not `Uuid::new_v4`: a call of the system's random generator for each token takes 0.47 µs, a
/// twentieth of an EdDSA signature (`cargo bench --bench local_issuer`).
#[derive(Default)]
pub(super) struct TokenIds(Mutex<Vec<Uuid>>);

impl TokenIds {
    pub(super) fn next(&self) -> Result<Uuid, Unspecified> {
        // No code panics while it holds the lock.
        let mut ids = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if ids.is_empty() {
            let mut random = [[0; 16]; BATCH];
            rand::fill(random.as_flattened_mut())?;
            ids.extend(random.map(|bytes| Builder::from_random_bytes(bytes).into_uuid()));
        }
        ids.pop().ok_or(Unspecified)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_random_uuids_and_differ() {
        let ids = TokenIds::default();
        let made: HashSet<_> = (0..10 * BATCH).map(|_| ids.next().unwrap()).collect();
        assert_eq!(made.len(), 10 * BATCH);
        assert!(made.iter().all(|id| id.get_version_num() == 4));
        // Each of the 122 random bits is set in some ids and not in others.
        let fold = |seed, op: fn(u128, u128) -> u128| made.iter().map(Uuid::as_u128).fold(seed, op);
        assert_eq!((fold(0, |a, b| a | b) ^ fold(u128::MAX, |a, b| a & b)).count_ones(), 122);
    }
}
