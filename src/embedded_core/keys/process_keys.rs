//! Keys in memory that the cores of one process share, for feature `testing`.

use std::sync::OnceLock;
use std::time::Duration;

use tokio::task;
use uuid::Uuid;

use super::dynamic_key::DynamicKey;
use super::rotation::Rotation;
use super::signing_keys::SigningKeys;
use super::store::KeyStore;
use crate::clock::Clock;
use crate::embedded_core::error::BuildError;
use crate::jose::{Algorithm, SigningKey};

const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

impl KeyStore {
    /// A store whose keys never rotate, and which shares them with the other stores that this
    /// function makes. Generating RSA keys for each of many cores would be slow.
    pub(crate) async fn of_process(clock: Clock) -> Result<Self, BuildError> {
        static KEYS: OnceLock<Option<SigningKeys>> = OnceLock::new();
        let generated = task::spawn_blocking(|| KEYS.get_or_init(generate)).await;
        let keys = generated.ok().and_then(Option::clone).ok_or(BuildError::KeyGeneration)?;
        Ok(Self::new(keys, None, Rotation::new(CENTURY, HOUR)?, clock))
    }
}

/// A static and a dynamic key of one RSA key pair. Blocks.
fn generate() -> Option<SigningKeys> {
    let pair = SigningKey::generate(Algorithm::RS256).ok()?;
    let dynamic = pair.with_kid(format!("d-{}", Clock::default().unix_now_millis()));
    let static_key = pair.with_kid(format!("s-{}", Uuid::new_v4()));
    SigningKeys::from_stored(static_key, vec![DynamicKey::from_key(dynamic)?])
}
