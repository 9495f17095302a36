//! [`KeyRing`]: the keys of an issuer, which one signs, and which ones are listed.

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
#[derive(Clone)]
struct ListedKey {
    key: SigningKey,
    /// From when on the key may sign.
    signs_from: Deadline,
    /// The latest `exp` of its tokens, in Unix seconds. 0 if it has signed none.
    last_expiry: u64,
    /// Whether the key was in the list of the last rotation.
    is_current: bool,
}

/// The current keys in the order of the user, then the earlier ones that are still listed. No two
/// have the same `kid`.
pub(super) struct KeyRing(Vec<ListedKey>);

impl KeyRing {
    /// Keys that may sign at once.
    pub(super) fn new(keys: Vec<SigningKey>, clock: &Clock) -> Result<Self, LocalIssuerError> {
        Self(Vec::new()).with_current(keys, Deadline::after(Duration::ZERO, clock), clock)
    }

    /// Replaces the current keys. A key that was not listed before signs after [`LISTED_FIRST`];
    /// the last key that may sign goes on until then. After an error the ring is unchanged.
    pub(super) fn rotate(
        &mut self,
        keys: Vec<SigningKey>,
        clock: &Clock,
    ) -> Result<(), LocalIssuerError> {
        self.prune(clock);
        *self = self.with_current(keys, Deadline::after(LISTED_FIRST, clock), clock)?;
        self.prune(clock);
        Ok(())
    }

    /// The ring with these current keys, of which new ones sign from `new_sign_from` on.
    fn with_current(
        &self,
        keys: Vec<SigningKey>,
        new_sign_from: Deadline,
        clock: &Clock,
    ) -> Result<Self, LocalIssuerError> {
        if keys.is_empty() {
            return Err(LocalIssuerError::NoKey);
        }
        let mut ring = Self(Vec::with_capacity(keys.len() + self.0.len()));
        for key in keys {
            if ring.find(key.kid()).is_some() {
                return Err(LocalIssuerError::DuplicateKid { kid: key.kid().to_owned() });
            }
            ring.0.push(match self.find(key.kid()) {
                None => {
                    ListedKey { key, signs_from: new_sign_from, last_expiry: 0, is_current: true }
                }
                Some(listed) if listed.key.public_jwk() == key.public_jwk() => {
                    ListedKey { is_current: true, ..listed.clone() }
                }
                Some(_) => return Err(LocalIssuerError::ReusedKid { kid: key.kid().to_owned() }),
            });
        }
        let mut earlier = self.0.clone();
        // The key that signs now comes first among the earlier ones, so that it goes on.
        if let Some(signer) = self.position_of_signer(clock) {
            earlier.swap(0, signer);
        }
        earlier.retain(|listed| ring.find(listed.key.kid()).is_none());
        ring.0.extend(earlier.into_iter().map(|listed| ListedKey { is_current: false, ..listed }));
        Ok(ring)
    }

    fn find(&self, kid: &str) -> Option<&ListedKey> {
        self.0.iter().find(|listed| listed.key.kid() == kid)
    }

    /// The key that signs a token with this `exp`, in Unix seconds.
    pub(super) fn signer(&mut self, expiry: u64, clock: &Clock) -> SigningKey {
        let position = self.position_of_signer(clock).unwrap_or_default();
        let signer = &mut self.0[position];
        signer.last_expiry = signer.last_expiry.max(expiry);
        signer.key.clone()
    }

    /// The first key that may sign.
    fn position_of_signer(&self, clock: &Clock) -> Option<usize> {
        self.0.iter().position(|listed| listed.signs_from.has_passed(clock))
    }

    /// Removes the earlier keys that sign no more and whose last token has expired.
    pub(super) fn prune(&mut self, clock: &Clock) {
        let (signer, now) = (self.position_of_signer(clock), clock.unix_now());
        let mut positions = 0..;
        self.0.retain(|listed| {
            let is_signer = positions.next() == signer;
            let listed_until = listed.last_expiry.saturating_add(MAX_CLOCK_SKEW);
            listed.is_current || is_signer || now < listed_until
        });
    }

    /// The JWK Set (RFC 7517 §5).
    pub(super) fn jwks(&self) -> String {
        let keys: Vec<_> = self.0.iter().map(|listed| listed.key.public_jwk()).collect();
        format!(r#"{{"keys":[{}]}}"#, keys.join(","))
    }
}
