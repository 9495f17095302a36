//! Parses the keys of a local set: a JWK Set, or PEM.

use super::error::KeySetError;
use super::skipped_keys::SkippedKeys;
use crate::jose::{Jwk, JwkSet, public_keys};

/// The maximum number of keys in a local set. A look-up scans all of them.
const MAX_KEYS: usize = 1000;

/// Parses a JWK Set. Keys that cannot be used are skipped, with a logged reason.
pub(super) fn read_set(json: &[u8], skipped: &SkippedKeys) -> Result<JwkSet, KeySetError> {
    let on_skip = |kid: Option<&str>, reason| skipped.log(kid, reason);
    JwkSet::from_json(json, MAX_KEYS, [], on_skip).map_err(|err| KeySetError::new(err, MAX_KEYS))
}

/// Parses the keys of one text. They have no `kid`.
pub(super) fn read_pem(pem: &[u8]) -> Result<JwkSet, KeySetError> {
    set_of(pem_keys(pem, None, 0)?)
}

/// Parses texts, each with the `kid` of its keys.
pub(super) fn read_pem_by_kid<K, P>(
    pems: impl IntoIterator<Item = (K, P)>,
) -> Result<JwkSet, KeySetError>
where
    K: AsRef<str>,
    P: AsRef<[u8]>,
{
    let mut keys = Vec::new();
    for (kid, pem) in pems {
        keys.extend(pem_keys(pem.as_ref(), Some(kid.as_ref()), keys.len())?);
    }
    if keys.is_empty() {
        return Err(KeySetError::NoUsableKey);
    }
    set_of(keys)
}

fn set_of(keys: Vec<Jwk>) -> Result<JwkSet, KeySetError> {
    let set = JwkSet::from(keys);
    if set.has_ambiguous_key() { Err(KeySetError::AmbiguousKeys) } else { Ok(set) }
}

/// The keys of one text. `blocks_before` is the number of keys in the texts before it.
fn pem_keys(pem: &[u8], kid: Option<&str>, blocks_before: usize) -> Result<Vec<Jwk>, KeySetError> {
    public_keys(pem, kid, MAX_KEYS.saturating_sub(blocks_before))
        .map_err(|err| KeySetError::of_pem(err, blocks_before, MAX_KEYS))
}
