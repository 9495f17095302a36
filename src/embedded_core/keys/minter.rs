//! Mints tokens, with a bound on how many are under way.

use std::sync::Arc;

use tokio::sync::{Semaphore, SemaphorePermit};

use super::signers::Signers;
use super::store::KeyStore;
use super::unsigned_token::{KeyKind, UnsignedToken};
use crate::clock::Clock;
use crate::jose::SigningKey;

/// 32 MiB of payloads.
const MAX_MINTS: usize = 512;
const MAX_WAITING_MINTS: usize = MAX_MINTS / 2;

/// Signs tokens with the keys of a store.
#[derive(Debug)]
pub(crate) struct Minter {
    keys: KeyStore,
    clock: Clock,
    /// Bounds the payloads in memory: each mint under way holds at most one.
    under_way: Semaphore,
    /// Bounds the mints among them that wait for a new key, so that static mints are admitted
    /// meanwhile.
    waiting: Semaphore,
    signers: Signers,
}

impl Minter {
    pub(crate) fn new(keys: KeyStore, clock: Clock) -> Self {
        let (under_way, waiting) = (Semaphore::new(MAX_MINTS), Semaphore::new(MAX_WAITING_MINTS));
        Self { keys, clock, under_way, waiting, signers: Signers::new() }
    }

    pub(crate) fn keys(&self) -> &KeyStore {
        &self.keys
    }

    /// A permit for one mint. Fails at once at the limit, because a waiting mint holds memory too.
    pub(crate) fn admit(&self) -> Result<SemaphorePermit<'_>, MinterError> {
        self.under_way.try_acquire().map_err(|_| MinterError::Busy)
    }

    /// Signs `token` into a compact JWS.
    pub(crate) async fn mint(&self, token: UnsignedToken) -> Result<String, MinterError> {
        let dynamic = token.key() == KeyKind::Dynamic;
        let key =
            if dynamic { self.dynamic_key().await? } else { self.keys.current().static_key() };
        let validity_seconds = token.validity();
        let claims = token.into_claims(self.clock.unix_now());
        let jwt = self.signers.sign(key.clone(), claims).await.ok_or(MinterError::SigningFailed)?;
        tracing::info!(kid = key.kid(), dynamic, validity_seconds, "token minted");
        Ok(jwt)
    }

    /// The dynamic key that signs now. Waits for a new key, with a bound, only if every key is too
    /// old.
    async fn dynamic_key(&self) -> Result<Arc<SigningKey>, MinterError> {
        if let Some(key) = self.keys.current().dynamic_key() {
            return Ok(key);
        }
        let _permit = self.waiting.try_acquire().map_err(|_| MinterError::Busy)?;
        self.keys.wait_for_new_key().await;
        Ok(self.keys.current().dynamic_or_newest_key())
    }
}

/// Why a token is not minted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum MinterError {
    /// The limit of mints, or of those that wait for a key, is reached.
    Busy,
    /// The crypto library failed, or the runtime is shutting down.
    SigningFailed,
}
