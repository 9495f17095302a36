//! [`Rotation`], the intervals by which dynamic keys rotate.

use std::time::Duration;

use crate::embedded_core::error::BuildError;

/// Milliseconds for which a key is listed before it signs, so that verifiers hold it by then.
const AHEAD: u64 = 60_000;
/// With the static key that makes 100, the most that `RemoteJwks` accepts by default.
pub(super) const MAX_DYNAMIC_KEYS: usize = 99;

/// The intervals by which dynamic keys rotate, in milliseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rotation {
    /// The age at which a key stops signing and its successor starts, under steady traffic.
    interval: u64,
    /// The minimum time for which a token of a dynamic key can be verified.
    validity: u64,
    /// How long a key is listed before it signs.
    ahead: u64,
}

impl Rotation {
    pub(crate) fn new(
        rotate_every: Duration,
        access_token_validity: Duration,
    ) -> Result<Self, BuildError> {
        let (interval, validity) = (millis(rotate_every), millis(access_token_validity));
        let rotation = Self { interval, validity, ahead: AHEAD.min(interval / 2) };
        // Under steady traffic a key is made every `due_after`, and each is listed for
        // `listed_for`.
        let listed_at_once = rotation.listed_for().checked_div(rotation.due_after());
        if listed_at_once.is_none_or(|count| count >= MAX_DYNAMIC_KEYS as u64) {
            return Err(BuildError::RotationTooFast { rotate_every, access_token_validity });
        }
        Ok(rotation)
    }

    /// The age at which the newest key needs a successor.
    pub(super) fn due_after(self) -> u64 {
        self.interval - self.ahead
    }

    /// How long a key is listed before it signs.
    pub(super) fn ahead(self) -> u64 {
        self.ahead
    }

    /// The age at which a key leaves the key set.
    pub(super) fn listed_for(self) -> u64 {
        self.interval.saturating_add(self.listed_after_signing())
    }

    /// How long a key is listed after it last signed.
    pub(super) fn listed_after_signing(self) -> u64 {
        self.validity.saturating_mul(2)
    }

    /// The age up to which a key may sign while its successor has not been listed for long enough.
    pub(super) fn max_signing_age(self) -> u64 {
        self.interval.saturating_add(self.validity)
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rotation_that_would_list_too_many_keys_is_refused() {
        let seconds = Duration::from_secs;
        let cases = [
            (seconds(0), seconds(0), false),
            (Duration::from_nanos(1), seconds(0), false),
            (seconds(10), seconds(3600), false),
            (seconds(10), seconds(10), true),
            (seconds(120), seconds(3600), false),
            (seconds(180), seconds(3600), true),
            (seconds(3600), seconds(3600), true),
            (seconds(3600), Duration::MAX, false),
            (Duration::MAX, Duration::MAX, true),
        ];
        for (rotate_every, access_token_validity, usable) in cases {
            let rotation = Rotation::new(rotate_every, access_token_validity);
            assert_eq!(rotation.is_ok(), usable, "{rotate_every:?}, {access_token_validity:?}");
        }
    }
}
