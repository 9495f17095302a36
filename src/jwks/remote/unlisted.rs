//! Keys that an earlier response listed and the newest one lacks.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::expiry::Expiry;
use crate::clock::Clock;
use crate::deadline::Deadline;
use crate::jose::{Algorithm, Jwk, JwkSet};

/// How long an unlisted key is remembered, and how long an endpoint counts as inconsistent after
/// one was listed again.
const MEMORY: Duration = Duration::from_secs(24 * 3600);

/// The keys that the newest response lacks.
///
/// Servers behind one URL may list different keys: two SuperTokens cores on one database each have
/// a dynamic key of their own. A response without a key therefore does not prove that the key was
/// withdrawn: it stays usable until its own deadline.
#[derive(Clone, Debug, Default)]
pub(super) struct UnlistedKeys {
    /// Expired ones included: they are remembered to notice that they are listed again.
    keys: Arc<[UnlistedKey]>,
    /// Until when the endpoint counts as inconsistent: an unlisted key was listed again.
    inconsistent_until: Option<Deadline>,
}

#[derive(Clone, Debug)]
struct UnlistedKey {
    key: Arc<Jwk>,
    /// The deadlines of the last response that listed it.
    listed: Expiry,
    /// When it expires while the endpoint responds.
    until: Deadline,
    /// Whether it was usable while the endpoint counted as inconsistent. An outage then does not
    /// expire it before `stale_at`.
    is_extended: bool,
}

impl UnlistedKey {
    fn deadline(&self, is_outage: bool) -> Deadline {
        if is_outage && self.is_extended { self.listed.stale_at } else { self.until }
    }

    fn without_passed_extension(self, clock: &Clock) -> Self {
        Self { is_extended: self.is_extended && !self.until.has_passed(clock), ..self }
    }

    /// Extends the deadline at a response of an inconsistent endpoint. `fresh_until` is the end of
    /// that response's lifetime.
    fn extend(&mut self, fresh_until: Deadline, clock: &Clock) {
        if self.until.has_passed(clock) {
            // An outage kept it: the first response after it may be that of another server.
            self.until = fresh_until.min(self.listed.stale_at);
        } else if !self.is_extended {
            self.until = self.listed.extended_until;
        }
        self.is_extended = true;
    }
}

/// A response that was read or confirmed, and the state before it.
pub(super) struct Listing<'s> {
    pub(super) before: &'s JwkSet,
    /// `None` before the first set.
    pub(super) expired_before: Option<Expiry>,
    pub(super) set: &'s JwkSet,
    pub(super) expiry: Expiry,
    /// Whether the fetch before this one failed.
    pub(super) was_outage: bool,
}

impl UnlistedKeys {
    /// The keys that `listing.set` lacks, at most `room`.
    ///
    /// Not kept: keys without a `kid`, because a token without one is checked against the newest
    /// set, and keys whose `kid` an entry of the newest set has.
    pub(super) fn next(&self, listing: &Listing<'_>, room: usize, clock: &Clock) -> Self {
        let next = self.without_keys(listing, clock);
        let is_inconsistent = next.is_inconsistent(clock);
        let newly = listing.expired_before.into_iter().flat_map(|listed| {
            listing.before.keys().iter().map(move |key| {
                let key = Arc::clone(key);
                let unlisted =
                    UnlistedKey { key, listed, until: listed.fresh_until, is_extended: false };
                (unlisted, !listed.stale_at.has_passed(clock))
            })
        });
        let still = self.keys.iter().map(|unlisted| {
            let deadline = unlisted.deadline(listing.was_outage);
            (unlisted.clone(), !deadline.has_passed(clock))
        });
        let is_lost = |key: &Jwk| key.kid().is_some_and(|kid| !listing.set.names(kid));
        let mut keys: Vec<_> = newly
            .chain(still)
            .filter(|(unlisted, _)| is_lost(&unlisted.key))
            .map(|(mut unlisted, is_usable)| {
                if is_usable && is_inconsistent {
                    unlisted.extend(listing.expiry.fresh_until, clock);
                }
                unlisted
            })
            .filter(|unlisted| clock.now() < unlisted.until.at() + MEMORY)
            .collect();
        keys.sort_by_key(|unlisted| Reverse(unlisted.until.at()));
        keys.truncate(room);
        Self { keys: keys.into(), ..next }
    }

    /// No keys: those that `listing.set` lacks expire at once.
    pub(super) fn without_keys(&self, listing: &Listing<'_>, clock: &Clock) -> Self {
        let has_returned = self.keys.iter().any(|unlisted| listing.set.contains(&unlisted.key));
        let inconsistent_until = match has_returned {
            true => Some(Deadline::after(MEMORY, clock)),
            false => self.inconsistent_until,
        };
        Self { keys: Arc::default(), inconsistent_until }
    }

    /// Keeps expired keys expired in an outage that begins now.
    pub(super) fn begin_outage(&mut self, clock: &Clock) {
        self.keys = self
            .keys
            .iter()
            .cloned()
            .map(|unlisted| unlisted.without_passed_extension(clock))
            .collect();
    }

    /// Whether an unlisted key was listed again in the last 24 h.
    pub(super) fn is_inconsistent(&self, clock: &Clock) -> bool {
        self.inconsistent_until.is_some_and(|until| !until.has_passed(clock))
    }

    /// All keys, expired ones included.
    pub(super) fn keys(&self) -> impl Iterator<Item = &Arc<Jwk>> {
        self.keys.iter().map(|unlisted| &unlisted.key)
    }

    /// The keys that may be used, and for how long.
    pub(super) fn usable(
        &self,
        is_outage: bool,
        clock: &Clock,
    ) -> impl Iterator<Item = (&Arc<Jwk>, Duration)> {
        self.keys.iter().filter_map(move |unlisted| {
            let left = unlisted.deadline(is_outage).left(clock);
            (!left.is_zero()).then_some((&unlisted.key, left))
        })
    }

    /// The usable key of this kid and algorithm.
    pub(super) fn find(
        &self,
        kid: &str,
        algorithm: Algorithm,
        is_outage: bool,
        clock: &Clock,
    ) -> Option<&Arc<Jwk>> {
        let unlisted = self.keys.iter().find(|unlisted| {
            unlisted.key.kid() == Some(kid)
                && unlisted.key.fits(algorithm)
                && !unlisted.deadline(is_outage).has_passed(clock)
        })?;
        Some(&unlisted.key)
    }

    /// When to fetch the set again to find a key before it expires, but not before `earliest`.
    /// `None` if no key is usable then.
    pub(super) fn look_at(&self, earliest: Deadline, clock: &Clock) -> Option<Deadline> {
        let is_usable = |unlisted: &&UnlistedKey| {
            !unlisted.until.has_passed(clock) && unlisted.until.at() > earliest.at()
        };
        let usable = self.keys.iter().filter(is_usable).map(|unlisted| unlisted.listed.look_from);
        Some(usable.reduce(Deadline::min)?.max(earliest))
    }

    /// When the next key expires.
    pub(super) fn next_deadline(&self, is_outage: bool, now: Instant) -> Option<Instant> {
        let deadlines = self.keys.iter().map(|unlisted| unlisted.deadline(is_outage).at());
        deadlines.filter(|at| *at > now).min()
    }

    /// Writes the deadline of each key into the key: its own one, or `latest` if that is earlier.
    pub(super) fn write_deadlines(&self, is_outage: bool, latest: Deadline, clock: &Clock) {
        for unlisted in &*self.keys {
            let deadline = unlisted.deadline(is_outage).min(latest);
            unlisted.key.use_until(deadline.usable_until(clock));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::super::limits::Limits;
    use super::*;

    const MATERIALS: [&str; 2] = [
        "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        "PUAXw-hDiVqStwqnTRt-vJyYLM8uxJaMwM1V8Sr0Zgw",
    ];

    fn jwk(members: &str, material: usize) -> String {
        format!(r#"{{"kty":"OKP","crv":"Ed25519","x":"{}"{members}}}"#, MATERIALS[material])
    }

    fn set(entries: &[String], known: &JwkSet) -> JwkSet {
        let json = format!(r#"{{"keys":[{}]}}"#, entries.join(","));
        JwkSet::from_json(json.as_bytes(), 100, known.keys(), |_, _| {}).unwrap()
    }

    /// The unlisted keys after a response with `after` that follows one with `before`.
    fn unlisted(before: &[String], after: &[String], room: usize) -> (UnlistedKeys, Clock) {
        let clock = Clock::driven(1_800_000_000);
        let lifetime = Duration::from_secs(600);
        let expiry = Expiry::new(lifetime, Duration::ZERO, &Limits::default(), &clock);
        let before = set(before, &JwkSet::default());
        let listing = Listing {
            before: &before,
            expired_before: Some(expiry),
            set: &set(after, &before),
            expiry,
            was_outage: false,
        };
        (UnlistedKeys::default().next(&listing, room, &clock), clock)
    }

    #[tokio::test(start_paused = true)]
    async fn key_with_an_ambiguous_kid_is_not_kept() {
        let key = |kid: &str, material| jwk(&format!(r#","kid":"{kid}""#), material);
        let stays = key("stays", 0);
        let cases = [
            ("another kid", key("a", 1), vec![], 100, 1),
            ("no kid", jwk("", 1), vec![], 100, 0),
            ("kid of another key", key("a", 1), vec![key("a", 0)], 100, 0),
            ("kid of two keys", key("a", 1), vec![key("a", 0), key("a", 1)], 100, 0),
            (
                "kid of a skipped key",
                key("a", 1),
                vec![jwk(r#","kid":"a","use":"enc""#, 1)],
                100,
                0,
            ),
            ("no room", key("a", 1), vec![], 0, 0),
        ];
        for (case, lost, others, room, kept) in cases {
            let after = [vec![stays.clone()], others].concat();
            let (unlisted, clock) = unlisted(&[stays.clone(), lost], &after, room);
            assert_eq!(unlisted.usable(false, &clock).count(), kept, "{case}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn keys_beyond_the_room_are_dropped() {
        let keys: Vec<_> = (0..9).map(|kid| jwk(&format!(r#","kid":"{kid}""#), 0)).collect();
        let (unlisted, _) = unlisted(&keys, &keys[..1], 5);
        let kids: BTreeSet<_> = unlisted.keys().filter_map(|key| key.kid()).collect();
        assert_eq!((kids.len(), kids.contains("0")), (5, false));
    }
}
