//! The keys of an issuer: which one signs, and which ones are listed. Reads no clock.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::error::LocalIssuerError;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::jose::SigningKey;

/// How long a new key is listed before it signs, so that verifiers know it by then.
const LISTED_FIRST: Duration = Duration::from_secs(60);

/// How long a key stays listed after its last token has expired, in seconds: the clock of a
/// verifier may be behind.
const MAX_CLOCK_SKEW: u64 = 60;

/// A listed key.
struct ListedKey {
    key: SigningKey,
    /// From when on the key may sign.
    signs_from: Deadline,
    /// The latest `exp` of its tokens, in Unix seconds. 0 if it has signed none.
    last_expiry: AtomicU64,
    /// Whether the key was in the list of the last rotation.
    is_current: bool,
}

/// The current keys in the order of the user, then the earlier ones that are still listed.
pub(super) struct KeyRing(Vec<Arc<ListedKey>>);

impl KeyRing {
    /// Keys that may sign at once.
    pub(super) fn new(keys: Vec<SigningKey>, clock: &Clock) -> Result<Self, LocalIssuerError> {
        let ring = Self(Vec::new());
        ring.rotated(keys, Deadline::after(Duration::ZERO, clock), clock)
    }

    /// The keys after a rotation. A key that was not listed before signs after [`LISTED_FIRST`];
    /// the last key that may sign goes on until then.
    pub(super) fn rotate(
        &mut self,
        keys: Vec<SigningKey>,
        clock: &Clock,
    ) -> Result<(), LocalIssuerError> {
        self.prune(clock);
        *self = self.rotated(keys, Deadline::after(LISTED_FIRST, clock), clock)?;
        self.prune(clock);
        Ok(())
    }

    fn rotated(
        &self,
        keys: Vec<SigningKey>,
        new_sign_from: Deadline,
        clock: &Clock,
    ) -> Result<Self, LocalIssuerError> {
        if keys.is_empty() {
            return Err(LocalIssuerError::NoKey);
        }
        let mut ring: Vec<Arc<ListedKey>> = Vec::with_capacity(keys.len());
        for key in keys {
            if ring.iter().any(|listed| listed.key.kid() == key.kid()) {
                return Err(LocalIssuerError::DuplicateKid { kid: key.kid().to_owned() });
            }
            let before = self.0.iter().find(|listed| listed.key.kid() == key.kid());
            let (signs_from, last_expiry) = match before {
                None => (new_sign_from, 0),
                Some(before) if before.key.public_jwk() == key.public_jwk() => {
                    (before.signs_from, before.last_expiry.load(Ordering::Relaxed))
                }
                Some(_) => {
                    return Err(LocalIssuerError::ReusedKid { kid: key.kid().to_owned() });
                }
            };
            let last_expiry = last_expiry.into();
            ring.push(Arc::new(ListedKey { key, signs_from, last_expiry, is_current: true }));
        }
        // The key that signs now comes first among the earlier ones, so that it goes on.
        let signer = self.position_of_signer(clock);
        let mut earlier: Vec<_> = self.0.clone();
        if let Some(signer) = signer {
            earlier.swap(0, signer);
        }
        for before in earlier {
            if ring.iter().all(|listed| listed.key.kid() != before.key.kid()) {
                ring.push(Arc::new(ListedKey {
                    key: before.key.clone(),
                    signs_from: before.signs_from,
                    last_expiry: before.last_expiry.load(Ordering::Relaxed).into(),
                    is_current: false,
                }));
            }
        }
        Ok(Self(ring))
    }

    /// The key that signs a token with this `exp`, in Unix seconds.
    pub(super) fn signer(&self, expiry: u64, clock: &Clock) -> SigningKey {
        let position = self.position_of_signer(clock).unwrap_or_default();
        let signer = &self.0[position];
        signer.last_expiry.fetch_max(expiry, Ordering::Relaxed);
        signer.key.clone()
    }

    /// The first key that may sign.
    fn position_of_signer(&self, clock: &Clock) -> Option<usize> {
        self.0.iter().position(|listed| listed.signs_from.has_passed(clock))
    }

    /// Removes the earlier keys that sign no more and whose last token has expired.
    pub(super) fn prune(&mut self, clock: &Clock) {
        let (signer, now) = (self.position_of_signer(clock), clock.unix_now());
        let mut position = 0;
        self.0.retain(|listed| {
            let is_signer = signer == Some(position);
            position += 1;
            let listed_until =
                listed.last_expiry.load(Ordering::Relaxed).saturating_add(MAX_CLOCK_SKEW);
            listed.is_current || is_signer || now < listed_until
        });
    }

    /// The JWK Set (RFC 7517 §5).
    pub(super) fn jwks(&self) -> String {
        let keys: Vec<_> = self.0.iter().map(|listed| listed.key.public_jwk()).collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }
}
