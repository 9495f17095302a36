//! The limit of fetches that requests cause.

use std::time::Duration;

use tokio::time::Instant;

/// The minimum time between two fetches for bad signatures, and the minimum age of the key set
/// before such a fetch.
const BAD_SIGNATURE_COOLDOWN: Duration = Duration::from_secs(60);

/// Limits the fetches that requests cause.
///
/// Attempts count when they start, whether they succeed or fail: a limit of successes would not
/// protect an endpoint that is down.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchLimit {
    cooldown: Duration,
    /// When the last two fetches for an unknown key started, the older one first.
    unknown_key: [Option<Instant>; 2],
    /// When the last fetch for a bad signature started.
    bad_signature: Option<Instant>,
    /// The end of the endpoint's `Retry-After`.
    blocked_until: Option<Instant>,
}

impl FetchLimit {
    pub(super) fn new(cooldown: Duration) -> Self {
        Self { cooldown, unknown_key: [None; 2], bad_signature: None, blocked_until: None }
    }

    /// Whether a fetch for an unknown key may start: at most two in any `cooldown`.
    pub(super) fn admits_unknown_key(&self, now: Instant) -> bool {
        self.until_unknown_key(now).is_zero()
    }

    /// How long until a fetch for an unknown key may start.
    pub(super) fn until_unknown_key(&self, now: Instant) -> Duration {
        let cooled_down = self.unknown_key[0].map(|older| older + self.cooldown);
        let free_at = cooled_down.max(self.blocked_until);
        free_at.map_or(Duration::ZERO, |free_at| free_at.saturating_duration_since(now))
    }

    /// Whether a fetch for a bad signature may start: at most one in any minute, and only if the
    /// key set, fetched at `fetched`, is at least a minute old. While the set is newer, a forged
    /// token is more likely than a reused `kid`.
    pub(super) fn admits_bad_signature(&self, now: Instant, fetched: Option<Instant>) -> bool {
        let has_cooled_down = |since: Instant| now.duration_since(since) >= BAD_SIGNATURE_COOLDOWN;
        self.blocked_until.is_none_or(|until| now >= until)
            && self.bad_signature.is_none_or(has_cooled_down)
            && fetched.is_some_and(has_cooled_down)
    }

    pub(super) fn count_unknown_key(&mut self, now: Instant) {
        self.unknown_key = [self.unknown_key[1], Some(now)];
    }

    pub(super) fn count_bad_signature(&mut self, now: Instant) {
        self.bad_signature = Some(now);
    }

    pub(super) fn block_until(&mut self, until: Instant) {
        self.blocked_until = Some(until);
    }

    pub(super) fn unblock(&mut self) {
        self.blocked_until = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_keys_cause_two_fetches_in_any_cooldown() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut limit = FetchLimit::new(Duration::from_secs(10));
        // (second, whether a fetch may start then)
        for (second, admitted) in
            [(0, true), (4, true), (5, false), (9, false), (10, true), (13, false), (14, true)]
        {
            assert_eq!(limit.admits_unknown_key(at(second)), admitted, "at {second} s");
            if admitted {
                limit.count_unknown_key(at(second));
            }
        }
    }

    #[test]
    fn bad_signatures_cause_one_fetch_a_minute() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut limit = FetchLimit::new(Duration::from_secs(10));
        assert!(!limit.admits_bad_signature(at(100), None));
        assert!(!limit.admits_bad_signature(at(100), Some(at(41))));
        assert!(limit.admits_bad_signature(at(100), Some(at(40))));
        limit.count_bad_signature(at(100));
        assert!(!limit.admits_bad_signature(at(159), Some(start)));
        assert!(limit.admits_bad_signature(at(160), Some(start)));
        assert!(limit.admits_unknown_key(at(100)));
    }

    #[test]
    fn retry_after_blocks_fetches_that_requests_cause() {
        let start = Instant::now();
        let mut limit = FetchLimit::new(Duration::from_secs(10));
        limit.block_until(start + Duration::from_secs(120));
        assert!(!limit.admits_unknown_key(start + Duration::from_secs(119)));
        assert!(!limit.admits_bad_signature(start + Duration::from_secs(119), Some(start)));
        assert_eq!(limit.until_unknown_key(start), Duration::from_secs(120));
        assert!(limit.admits_unknown_key(start + Duration::from_secs(120)));
        limit.block_until(start + Duration::from_secs(500));
        limit.unblock();
        assert!(limit.admits_unknown_key(start + Duration::from_secs(130)));
    }
}
