//! The limits of a remote key set.

use std::time::Duration;

/// Documented at the methods of [`RemoteJwksBuilder`](super::RemoteJwksBuilder).
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) min_age: Duration,
    pub(super) max_age: Duration,
    pub(super) stale_if_error: Duration,
    pub(super) timeout: Duration,
    pub(super) cooldown: Duration,
    pub(super) max_keys: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            min_age: Duration::from_secs(30),
            max_age: Duration::from_secs(3600),
            stale_if_error: Duration::from_secs(24 * 3600),
            timeout: Duration::from_secs(5),
            cooldown: Duration::from_secs(10),
            max_keys: 100,
        }
    }
}
