//! What the responses of an endpoint have listed so far.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::endpoint::{Fetch, TestKey};
use crate::jwks::remote::fetch::FetchCause;

const DAY: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Debug, Default)]
pub(super) struct Listings {
    /// The start of the last fetch that listed each key.
    last: BTreeMap<TestKey, Instant>,
    /// The keys of the newest response.
    newest: BTreeSet<TestKey>,
    /// The keys that the response to a `refresh` lacked.
    refreshed_away: BTreeSet<TestKey>,
    /// When a key that one response lacked was last listed again.
    returned: Option<Instant>,
    /// The number of fetches read so far.
    read: usize,
}

impl Listings {
    /// Reads the fetches that have ended since the last call.
    pub(super) fn read(&mut self, fetches: &[Fetch]) {
        for fetch in &fetches[self.read..] {
            let Some((ended, _)) = fetch.ended else { return };
            self.read += 1;
            let Some(listed) = &fetch.listed else { continue };
            let listed: BTreeSet<_> = listed
                .iter()
                .map(|(kid, material)| TestKey { kid: *kid, material: *material })
                .collect();
            let is_known =
                |key: &&TestKey| self.last.contains_key(key) || self.refreshed_away.contains(key);
            if listed.difference(&self.newest).any(|key| is_known(&key)) {
                self.returned = Some(ended);
            }
            self.last.extend(listed.iter().map(|key| (*key, fetch.started)));
            if fetch.cause == FetchCause::Refresh {
                let lacked = self.last.keys().filter(|key| !listed.contains(key)).copied();
                self.refreshed_away.extend(lacked);
            }
            self.refreshed_away.retain(|key| !listed.contains(key));
            // A key whose kid the response gives to another key expires at once.
            let is_reused = |key: &TestKey| {
                !listed.contains(key) && listed.iter().any(|other| other.kid == key.kid)
            };
            let refreshed_away = &self.refreshed_away;
            self.last.retain(|key, _| !is_reused(key) && !refreshed_away.contains(key));
            self.newest = listed;
        }
    }

    /// The start of the last fetch that listed each key, unless the key had to expire at once.
    pub(super) fn last(&self) -> impl Iterator<Item = (TestKey, Instant)> {
        self.last.iter().map(|(key, at)| (*key, *at))
    }

    pub(super) fn is_in_newest(&self, key: TestKey) -> bool {
        self.newest.contains(&key)
    }

    pub(super) fn refreshed_away(&self) -> impl Iterator<Item = TestKey> {
        self.refreshed_away.iter().copied()
    }

    /// Whether a key that was last listed at `at` may have twice the lifetime: a key was listed
    /// again in the 24 h before, or since.
    pub(super) fn may_be_extended(&self, at: Instant) -> bool {
        self.returned.is_some_and(|returned| at <= returned + DAY)
    }
}
