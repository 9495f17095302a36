//! Mints tokens, with a bound on how many are under way.

use std::num::NonZero;
use std::sync::Arc;
use std::thread;

use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::task;

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
    keys: Arc<KeyStore>,
    clock: Clock,
    /// Bounds the payloads in memory: each mint under way holds at most one.
    under_way: Semaphore,
    /// Bounds the mints among them that wait for a new key, so that static mints are admitted
    /// meanwhile.
    waiting: Semaphore,
    /// Bounds the signatures in progress: one for each processor.
    signatures: Arc<Semaphore>,
}

impl Minter {
    pub(crate) fn new(keys: Arc<KeyStore>, clock: Clock) -> Self {
        let (under_way, waiting) = (Semaphore::new(MAX_MINTS), Semaphore::new(MAX_WAITING_MINTS));
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let signatures = Arc::new(Semaphore::new(processors));
        Self { keys, clock, under_way, waiting, signatures }
    }

    pub(crate) fn keys(&self) -> &Arc<KeyStore> {
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
        let jwt = self.sign(key.clone(), claims).await.ok_or(MinterError::SigningFailed)?;
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

    /// Signs on a blocking thread: on the async threads key sets would wait behind tokens. A mint
    /// that is dropped before it has a permit costs no signature.
    async fn sign(&self, key: Arc<SigningKey>, claims: String) -> Option<String> {
        let permit = self.signatures.clone().acquire_owned().await.ok()?;
        let signing = task::spawn_blocking(move || {
            let jwt = key.sign(&claims);
            // Held until here, also if the mint was dropped.
            drop(permit);
            jwt.ok()
        });
        signing.await.ok()?
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::Map;

    use super::*;
    use crate::embedded_core::keys::rotation::Rotation;

    async fn minter() -> Arc<Minter> {
        let hour = Duration::from_secs(3600);
        let rotation = Rotation::new(168 * hour, hour).unwrap();
        let keys = KeyStore::open(None, rotation, Clock::default()).await.unwrap();
        Arc::new(Minter::new(Arc::new(keys), Clock::default()))
    }

    fn token(payload: Map<String, serde_json::Value>) -> UnsignedToken {
        UnsignedToken::new("i".to_owned(), payload, 60, KeyKind::Static)
    }

    #[tokio::test]
    async fn every_token_is_signed_and_every_permit_comes_back() {
        let minter = minter().await;
        let permits = minter.signatures.available_permits();
        let key = minter.keys.current().static_key();
        let signing: Vec<_> = (0..200)
            .map(|n| {
                let (minter, key) = (minter.clone(), key.clone());
                tokio::spawn(async move { minter.sign(key, format!(r#"{{"n":{n}}}"#)).await })
            })
            .collect();
        for (n, signing) in signing.into_iter().enumerate() {
            assert_eq!(signing.await.unwrap(), key.sign(&format!(r#"{{"n":{n}}}"#)).ok());
        }
        assert_eq!(minter.signatures.available_permits(), permits);
    }

    #[tokio::test]
    async fn mint_dropped_before_its_turn_costs_no_signature() {
        let minter = minter().await;
        let permits = u32::try_from(minter.signatures.available_permits()).unwrap();
        let all = minter.signatures.acquire_many(permits).await.unwrap();
        let key = minter.keys.current().static_key();
        let before = Arc::strong_count(&key);
        let waiting = tokio::spawn({
            let (minter, key) = (minter.clone(), key.clone());
            async move { minter.sign(key, "{}".to_owned()).await }
        });
        tokio::task::yield_now().await;
        assert_eq!(Arc::strong_count(&key), before + 1);
        // Key sets do not wait for signatures.
        assert!(minter.keys.current().to_json().contains(key.kid()));
        waiting.abort();
        assert!(waiting.await.unwrap_err().is_cancelled());
        assert_eq!(Arc::strong_count(&key), before, "no job holds the key");
        drop(all);
        assert!(minter.mint(token(Map::new())).await.is_ok());
    }

    #[test]
    fn runtime_that_ends_takes_no_permit_along() {
        let runtime = || tokio::runtime::Builder::new_current_thread().build().unwrap();
        let minter = runtime().block_on(minter());
        for _ in 0..3 * minter.signatures.available_permits() {
            let runtime = runtime();
            let minter = minter.clone();
            runtime.spawn(async move { minter.mint(token(Map::new())).await });
            runtime.block_on(task::yield_now());
            runtime.shutdown_background();
        }
        assert!(runtime().block_on(minter.mint(token(Map::new()))).is_ok());
    }
}
