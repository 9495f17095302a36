//! How many fetches requests may cause.

use std::time::Duration;

use tokio::time::Instant;

/// At most one fetch for bad signatures in this time, and only if the key set is at least this old.
const BAD_SIGNATURE_COOLDOWN: Duration = Duration::from_secs(60);

/// Limits the fetches that requests cause. Counts attempts when they start, whether they succeed or
/// fail: counting successes alone would not protect an endpoint that is down.
#[derive(Clone, Copy, Debug)]
pub(super) struct FetchLimit {
    cooldown: Duration,
    /// The starts of the last two fetches for an unknown key, the older one first.
    unknown_key: [Option<Instant>; 2],
    /// The start of the last fetch for a bad signature.
    bad_signature: Option<Instant>,
    /// The endpoint's `Retry-After`.
    closed_until: Option<Instant>,
}

impl FetchLimit {
    pub(super) fn new(cooldown: Duration) -> Self {
        Self { cooldown, unknown_key: [None; 2], bad_signature: None, closed_until: None }
    }

    /// Whether a fetch for an unknown key may start: at most two in any `cooldown`.
    pub(super) fn admits_unknown_key(&self, now: Instant) -> bool {
        self.until_unknown_key(now).is_zero()
    }

    /// How long until a fetch for an unknown key may start.
    pub(super) fn until_unknown_key(&self, now: Instant) -> Duration {
        let opens = self.unknown_key[0].map(|older| older + self.cooldown).max(self.closed_until);
        opens.map_or(Duration::ZERO, |opens| opens.saturating_duration_since(now))
    }

    /// Whether a fetch for a bad signature may start: at most one in any minute, and only if the
    /// key set, fetched at `fetched`, is older than a minute. A young set makes a forged token more
    /// likely than a reused `kid`.
    pub(super) fn admits_bad_signature(&self, now: Instant, fetched: Option<Instant>) -> bool {
        let has_rested = |since: Instant| now.duration_since(since) >= BAD_SIGNATURE_COOLDOWN;
        self.closed_until.is_none_or(|until| now >= until)
            && self.bad_signature.is_none_or(has_rested)
            && fetched.is_some_and(has_rested)
    }

    pub(super) fn count_unknown_key(&mut self, now: Instant) {
        self.unknown_key = [self.unknown_key[1], Some(now)];
    }

    pub(super) fn count_bad_signature(&mut self, now: Instant) {
        self.bad_signature = Some(now);
    }

    pub(super) fn close_until(&mut self, until: Instant) {
        self.closed_until = Some(until);
    }

    pub(super) fn reopen(&mut self) {
        self.closed_until = None;
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
    fn retry_after_closes_the_limit_for_every_cause() {
        let start = Instant::now();
        let mut limit = FetchLimit::new(Duration::from_secs(10));
        limit.close_until(start + Duration::from_secs(120));
        assert!(!limit.admits_unknown_key(start + Duration::from_secs(119)));
        assert!(!limit.admits_bad_signature(start + Duration::from_secs(119), Some(start)));
        assert_eq!(limit.until_unknown_key(start), Duration::from_secs(120));
        assert!(limit.admits_unknown_key(start + Duration::from_secs(120)));
        limit.close_until(start + Duration::from_secs(500));
        limit.reopen();
        assert!(limit.admits_unknown_key(start + Duration::from_secs(130)));
    }
}
