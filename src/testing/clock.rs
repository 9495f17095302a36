//! [`TestClock`]: wall time that a test moves.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::clock::Clock;
use crate::jose::SigningKey;
use crate::jwks::{KeySource, RemoteJwks, RemoteJwksBuilder};
use crate::token::{LocalIssuer, LocalIssuerError};
use crate::verify::{SignatureLimit, Verifier};

/// The clock of a [`TestAuthority`](crate::testing::TestAuthority), and of its verifiers, key caches
/// and minted tokens; also that of a [`LocalIssuer`] under test. Clones move together.
///
/// It starts at the real time, rounded down to a whole second like the dates in tokens, and runs at
/// the pace of tokio's clock, also of a paused one. [`advance`](Self::advance) moves it forwards.
///
/// ```
/// use std::time::Duration;
/// use tower_m2m::RejectionReason;
/// use tower_m2m::testing::TestAuthority;
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let authority = TestAuthority::offline();
/// let (verifier, token) = (authority.verifier(), authority.token().sign());
/// assert!(verifier.verify(&token).await.is_ok());
///
/// authority.clock().advance(Duration::from_secs(2 * 3600));
/// let rejection = verifier.verify(&token).await.unwrap_err();
/// assert_eq!(rejection.reason(), RejectionReason::Expired);
/// # }
/// ```
///
/// # What moves with it
///
/// Dates in tokens, deadlines of keys, and the times at which a key set or token is renewed or a
/// failed renewal is tried again. The renewal starts with the next use of the key set or token, once
/// it is 5 s late: advance past its time by more than that. The use does not wait for the renewal
/// while the old key set or token is still good.
///
/// A future from [`ServiceClaims::expired`](crate::ServiceClaims::expired) resolves as soon as the
/// clock passes the end of its token.
///
/// Timeouts, the retries of one `mint`, the reads of a [watched](crate::DenyList::watch_file) deny
/// list, and limits on fetches and mints in a span of time (such as
/// one mint in 30 s after rejections) do not move with it. They follow tokio's clock.
#[derive(Clone)]
pub struct TestClock(Clock);

impl TestClock {
    /// A clock of its own. That of an authority is
    /// [`TestAuthority::clock`](crate::testing::TestAuthority::clock).
    #[must_use]
    pub fn new() -> Self {
        Self(Clock::movable())
    }

    /// The clock for the parts of the crate that are bound to it.
    pub(crate) fn shared(&self) -> Clock {
        self.0.clone()
    }

    pub(super) fn unix_now(&self) -> u64 {
        self.0.unix_now()
    }

    /// Moves the clock forwards, by a century at most.
    pub fn advance(&self, by: Duration) {
        self.0.advance(by);
    }

    /// A [`LocalIssuer`] on this clock: its rotations and the renewals of its tokens follow it.
    ///
    /// # Errors
    ///
    /// Those of [`LocalIssuer::new`].
    ///
    /// ```
    /// use std::time::Duration;
    /// use tower_m2m::testing::TestClock;
    /// use tower_m2m::{Algorithm, LocalJwks, RejectionReason, SigningKey};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// let clock = TestClock::new();
    /// let key = SigningKey::generate(Algorithm::EdDSA)?;
    /// let issuer = clock.local_issuer("https://orders.internal", [key])?;
    /// let verifier = clock.verifier(LocalJwks::from_json(issuer.jwks())?);
    ///
    /// let jwt = issuer.service_token().sign()?;
    /// assert!(verifier.verify(&jwt).await.is_ok());
    /// clock.advance(Duration::from_secs(2 * 3600));
    /// let rejection = verifier.verify(&jwt).await.unwrap_err();
    /// assert_eq!(rejection.reason(), RejectionReason::Expired);
    /// # Ok(())
    /// # }
    /// ```
    pub fn local_issuer(
        &self,
        issuer: impl Into<String>,
        keys: impl IntoIterator<Item = SigningKey>,
    ) -> Result<LocalIssuer, LocalIssuerError> {
        LocalIssuer::on_clock(issuer.into(), keys.into_iter().collect(), self.shared())
    }

    /// The options of a key cache on this clock, for the JWKS of a
    /// [`local_issuer`](Self::local_issuer), for instance. As in
    /// [`TestAuthority::jwks_builder`](crate::testing::TestAuthority::jwks_builder), fetches for
    /// unknown keys have no limit.
    pub fn jwks_builder(&self, url: impl AsRef<str>) -> RemoteJwksBuilder {
        RemoteJwks::builder(url).on_clock(self.shared()).cooldown(Duration::from_nanos(1))
    }

    /// A verifier on this clock, with these keys.
    pub fn verifier(&self, keys: impl Into<KeySource>) -> Verifier {
        // Tests that run in parallel must not take each other's permits.
        let limit = Arc::new(SignatureLimit::of_machine());
        Verifier::new(keys).on_clock(self.shared()).with_signature_limit(limit)
    }

    /// The current time of this clock.
    #[must_use]
    pub fn now(&self) -> SystemTime {
        UNIX_EPOCH + self.0.since_epoch()
    }
}

impl Default for TestClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TestClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestClock").field("now", &self.now()).finish()
    }
}
