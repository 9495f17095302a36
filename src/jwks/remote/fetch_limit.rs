//! How many fetches requests may cause.

use std::time::Duration;

use tokio::time::Instant;

/// A bad signature under a known key may cause one fetch in this time, and only if the set is at
/// least this old.
const SUSPICION_COOLDOWN: Duration = Duration::from_secs(60);

/// Counts the fetches that requests caused, by when they began, whether they succeeded or failed:
/// counting successes alone would let anybody hammer an endpoint that is down.
#[derive(Debug)]
pub(super) struct Gate {
    cooldown: Duration,
    /// When the last two fetches for an unknown key id began, the older one first.
    asked: [Option<Instant>; 2],
    /// When the last fetch for a bad signature began.
    suspected: Option<Instant>,
    /// The endpoint asked to be left alone until then.
    closed_until: Option<Instant>,
}

impl Gate {
    pub(super) fn new(cooldown: Duration) -> Self {
        Self { cooldown, asked: [None; 2], suspected: None, closed_until: None }
    }

    /// Whether a fetch for an unknown key id may begin: at most two in any `cooldown`.
    pub(super) fn admits_unknown_key(&self, now: Instant) -> bool {
        self.until_unknown_key(now).is_zero()
    }

    /// How long until a fetch for an unknown key id may begin.
    pub(super) fn until_unknown_key(&self, now: Instant) -> Duration {
        let opens = self.asked[0].map(|older| older + self.cooldown).max(self.closed_until);
        opens.map_or(Duration::ZERO, |opens| opens.saturating_duration_since(now))
    }

    /// Whether a fetch for a bad signature may begin: at most one in any minute, and only if the
    /// set, which was fetched at `fetched`, is older than that. Otherwise the signature says more
    /// about its sender than about the set.
    pub(super) fn admits_suspicion(&self, now: Instant, fetched: Option<Instant>) -> bool {
        let rested = |since: Instant| now.duration_since(since) >= SUSPICION_COOLDOWN;
        self.closed_until.is_none_or(|until| now >= until)
            && self.suspected.is_none_or(rested)
            && fetched.is_some_and(rested)
    }

    pub(super) fn unknown_key_began(&mut self, now: Instant) {
        self.asked = [self.asked[1], Some(now)];
    }

    pub(super) fn suspicion_began(&mut self, now: Instant) {
        self.suspected = Some(now);
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
    fn two_attempts_are_admitted_in_any_cooldown() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut gate = Gate::new(Duration::from_secs(10));
        // (second, whether a fetch that is asked for then may begin)
        for (second, admitted) in
            [(0, true), (4, true), (5, false), (9, false), (10, true), (13, false), (14, true)]
        {
            assert_eq!(gate.admits_unknown_key(at(second)), admitted, "at {second} s");
            if admitted {
                gate.unknown_key_began(at(second));
            }
        }
    }

    #[test]
    fn one_suspicion_is_admitted_a_minute() {
        let start = Instant::now();
        let at = |seconds: u64| start + Duration::from_secs(seconds);
        let mut gate = Gate::new(Duration::from_secs(10));
        assert!(!gate.admits_suspicion(at(100), None));
        assert!(!gate.admits_suspicion(at(100), Some(at(41))));
        assert!(gate.admits_suspicion(at(100), Some(at(40))));
        gate.suspicion_began(at(100));
        assert!(!gate.admits_suspicion(at(159), Some(start)));
        assert!(gate.admits_suspicion(at(160), Some(start)));
        assert!(gate.admits_unknown_key(at(100)));
    }

    #[test]
    fn an_endpoint_that_asks_for_it_is_left_alone() {
        let start = Instant::now();
        let mut gate = Gate::new(Duration::from_secs(10));
        gate.close_until(start + Duration::from_secs(120));
        assert!(!gate.admits_unknown_key(start + Duration::from_secs(119)));
        assert!(!gate.admits_suspicion(start + Duration::from_secs(119), Some(start)));
        assert_eq!(gate.until_unknown_key(start), Duration::from_secs(120));
        assert!(gate.admits_unknown_key(start + Duration::from_secs(120)));
        gate.close_until(start + Duration::from_secs(500));
        gate.reopen();
        assert!(gate.admits_unknown_key(start + Duration::from_secs(130)));
    }
}
