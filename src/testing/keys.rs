//! The keys of a [`TestAuthority`](crate::testing::TestAuthority).

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::jose::{Algorithm, SigningKey};
use crate::jwks::LocalJwks;

/// The key that signs, and the keys that are listed. Clones share them.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    ring: Arc<Mutex<KeyRing>>,
    /// Has the listed keys.
    local_jwks: LocalJwks,
}

#[derive(Debug)]
struct KeyRing {
    current: SigningKey,
    /// The `kid`s and JWKs of earlier keys that are still listed, newest first.
    earlier: Vec<(String, String)>,
    /// The JWKs of the core's keys, which are always listed.
    of_core: Vec<String>,
}

impl Keys {
    /// Generates the current key, and lists it with the JWKs of a core's keys.
    pub(super) fn new(of_core: Vec<String>) -> Self {
        let ring = KeyRing { current: generate(new_kid()), earlier: Vec::new(), of_core };
        let local_jwks = LocalJwks::from_json(ring.to_json()).expect("its own keys are usable");
        Self { ring: Arc::new(Mutex::new(ring)), local_jwks }
    }

    /// Calls `sign` with the current key.
    pub(super) fn with_current<T>(&self, sign: impl FnOnce(&SigningKey) -> T) -> T {
        sign(&self.ring().current)
    }

    /// Makes a new key the current one. Earlier keys stay listed, unless they have the same `kid`.
    pub(super) fn rotate(&self, kid: String) {
        let key = generate(kid);
        self.change(|ring| {
            let before = std::mem::replace(&mut ring.current, key);
            ring.earlier.insert(0, (before.kid().to_owned(), before.public_jwk().to_owned()));
            ring.earlier.retain(|(kid, _)| kid != ring.current.kid());
        });
    }

    /// Lists only the current key and those of the core.
    pub(super) fn withdraw(&self) {
        self.change(|ring| ring.earlier.clear());
    }

    /// The listed keys as a JWK Set (RFC 7517 §5).
    pub(super) fn to_json(&self) -> String {
        self.ring().to_json()
    }

    /// The listed keys as a local set, which follows each change.
    pub(super) fn local_jwks(&self) -> LocalJwks {
        self.local_jwks.clone()
    }

    fn change(&self, change: impl FnOnce(&mut KeyRing)) {
        let mut ring = self.ring();
        change(&mut ring);
        // Under the lock, so that the last change is the last replacement.
        self.local_jwks.replace(ring.to_json()).expect("its own keys are usable");
    }

    fn ring(&self) -> MutexGuard<'_, KeyRing> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl KeyRing {
    fn to_json(&self) -> String {
        let earlier = self.earlier.iter().map(|(_, jwk)| jwk);
        let others = earlier.chain(&self.of_core).map(String::as_str);
        let listed: Vec<_> = std::iter::once(self.current.public_jwk()).chain(others).collect();
        format!(r#"{{"keys":[{}]}}"#, listed.join(","))
    }
}

/// Unique in the process, so that the key of one authority is unknown at another.
pub(super) fn new_kid() -> String {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    format!("test-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

pub(super) fn generate(kid: String) -> SigningKey {
    let key = SigningKey::generate(Algorithm::EdDSA).expect("an Ed25519 key can be generated");
    key.with_kid(kid)
}

pub(super) const SIGNS: &str = "Ed25519 signs any text";
