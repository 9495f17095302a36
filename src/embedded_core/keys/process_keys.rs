//! Keys in memory that the cores of one process share, for feature `testing`.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use aws_lc_rs::error::Unspecified;
use tokio::task;
use uuid::Uuid;

use super::dynamic_key::DynamicKey;
use super::rotation::Rotation;
use super::signing_keys::SigningKeys;
use super::store::KeyStore;
use crate::clock::Clock;
use crate::embedded_core::error::BuildError;
use crate::jose::SigningKey;

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

impl KeyStore {
    /// A store whose keys never rotate, and which shares them with the other stores that this
    /// function makes. Generating RSA keys for each of many cores would be slow.
    pub(crate) async fn of_process(clock: Clock) -> Result<Self, BuildError> {
        static KEYS: OnceLock<Option<SigningKeys>> = OnceLock::new();
        let generated = task::spawn_blocking(|| KEYS.get_or_init(|| generate().ok())).await;
        let keys = generated.ok().and_then(Option::clone).ok_or(BuildError::KeyGeneration)?;
        Ok(Self::new(keys, None, Rotation::new(CENTURY, HOUR)?, clock))
    }
}

/// A static and a dynamic key of one RSA key pair. Blocks.
fn generate() -> Result<SigningKeys, Unspecified> {
    let static_key = SigningKey::generate_rsa(|| format!("s-{}", Uuid::new_v4()))?;
    let kid = format!("d-{}", Clock::default().unix_now_millis());
    let pkcs8 = static_key.to_pkcs8()?;
    let dynamic = SigningKey::from_pkcs8(&kid, pkcs8.as_ref()).and_then(DynamicKey::from_key);
    let dynamic = vec![dynamic.ok_or(Unspecified)?];
    SigningKeys::from_stored(Arc::new(static_key), dynamic).ok_or(Unspecified)
}
