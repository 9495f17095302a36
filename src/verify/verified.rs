//! [`Verified`]: the claims of a token, and when the token ends.

use std::time::Duration;

use serde_json::{Map, Value};
use tokio::time::sleep;

use super::proof::Proof;
use super::validity::Validity;
use crate::clock::Clock;

/// The longest sleep of a future that waits for the end of a token: a timer stands still while the
/// machine is suspended, the wall clock may be set ahead, and a key may end at any time.
const MAX_SLEEP: Duration = Duration::from_secs(10);

/// The claims of a token, which all [`ServiceClaims`](crate::ServiceClaims) of the token share.
pub(super) struct Verified {
    claims: Map<String, Value>,
    validity: Validity,
    /// The clock of the verifier.
    clock: Clock,
    /// `None` for the claims of a handler test, which only their dates end.
    proof: Option<Proof>,
}

impl Verified {
    /// Claims without a proof.
    pub(super) fn new(claims: Map<String, Value>, validity: Validity, clock: Clock) -> Self {
        Self { claims, validity, clock, proof: None }
    }

    pub(super) fn proved_by(self, proof: Proof) -> Self {
        Self { proof: Some(proof), ..self }
    }

    pub(super) fn claims(&self) -> &Map<String, Value> {
        &self.claims
    }

    /// `exp` without leeway, rounded down to whole seconds.
    pub(super) fn expires_at(&self) -> u64 {
        self.validity.expires_at()
    }

    /// Resolves when a request with the token would be refused. Holds no lock while it waits.
    pub(super) async fn ended(&self) {
        let mut key = self.proof.as_ref().map(Proof::watch);
        // Both before the checks, so that a change after them ends the sleep.
        let mut changes = self.proof.as_ref().map(Proof::deny_list_changes).unwrap_or_default();
        loop {
            let moved = self.clock.moved();
            let now = self.clock.since_epoch();
            if self.has_ended(now) || key.as_mut().is_some_and(|key| key.has_ended(&self.clock)) {
                return;
            }
            tokio::select! {
                () = sleep(self.validity.left(now).min(MAX_SLEEP)) => {}
                () = moved => {}
                () = changes.changed() => {}
            }
        }
    }

    /// Whether the token has ended at `now`, since the Unix epoch, whatever the state of its key.
    /// Every condition of the policy that changes while a stream is open is checked here.
    fn has_ended(&self, now: Duration) -> bool {
        let is_denied = |proof: &Proof| proof.is_denied(&self.claims, self.validity);
        self.validity.left(now).is_zero() || self.proof.as_ref().is_some_and(is_denied)
    }
}
