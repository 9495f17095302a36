//! One value of a token: what the renewal replaces.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use http::HeaderValue;
use serde_json::{Map, Value};

#[cfg(feature = "reqwest")]
use super::error::MintError;
use super::error::TokenError;
#[cfg(feature = "reqwest")]
use super::redact::redact_claim;
use crate::bearer;
use crate::clock::Clock;
#[cfg(feature = "reqwest")]
use crate::jose::Jws;
use crate::jose::claims_to_carry;
use crate::rejection::RejectionReason;

/// Maximum length of a token, in bytes. Servers refuse longer headers.
pub(super) const MAX_TOKEN_LEN: usize = 64 * 1024;

static NEXT_SERIAL: AtomicU64 = AtomicU64::new(0);

/// One value of a [`ServiceToken`]. A renewal replaces it with another.
pub(super) struct TokenValue {
    header_value: HeaderValue,
    /// Unique in this process.
    serial: u64,
    /// In Unix seconds.
    expires_at: Option<u64>,
    lifetime: Duration,
    /// Whether the expiry has been noted, to be logged once.
    expiry_noted: AtomicBool,
}

impl TokenValue {
    /// Reads a token for any reader: checks its form and its `exp`. Fails if it has expired.
    pub(super) fn from_jwt(jwt: &str, clock: &Clock) -> Result<Self, TokenError> {
        if jwt.is_empty() {
            return Err(TokenError::Empty);
        }
        if let Some(reason) = other_text(jwt) {
            return Err(TokenError::Malformed { reason });
        }
        let claims = claims_to_carry(jwt, MAX_TOKEN_LEN).map_err(malformed)?;
        Self::new(jwt, &claims, clock)
    }

    /// A token with these claims. Fails if it has expired.
    fn new(jwt: &str, claims: &Map<String, Value>, clock: &Clock) -> Result<Self, TokenError> {
        let expires_at = match claims.get("exp") {
            None => None,
            Some(exp) => {
                let seconds = exp.as_u64().or_else(|| exp.as_f64().map(|exp| exp as u64));
                Some(seconds.ok_or(TokenError::ExpirationTime)?)
            }
        };
        if expires_at.is_some_and(|expires_at| expires_at <= clock.unix_now()) {
            return Err(TokenError::Expired);
        }
        let header_value = bearer::write(jwt)
            .map_err(|_| TokenError::Malformed { reason: "a header cannot carry the token" })?;
        // The first clone of a `HeaderValue` allocates its reference count, for which no request is
        // to pay.
        drop(header_value.clone());
        let issued_at = claims.get("iat").and_then(Value::as_u64).unwrap_or_default();
        let expiry = expires_at.unwrap_or(u64::MAX);
        let lifetime = Duration::from_secs(expiry.saturating_sub(issued_at.max(clock.unix_now())));
        let serial = NEXT_SERIAL.fetch_add(1, Ordering::Relaxed);
        Ok(Self { header_value, serial, expires_at, lifetime, expiry_noted: false.into() })
    }

    /// The token, valid for at most this long from now, even if its `exp` is later or missing.
    #[cfg(feature = "oauth2")]
    pub(super) fn valid_for_at_most(mut self, lifetime: Duration, clock: &Clock) -> Self {
        let until = clock.unix_now().saturating_add(lifetime.as_secs());
        self.expires_at = Some(self.expires_at.map_or(until, |expires_at| expires_at.min(until)));
        self.lifetime = self.lifetime.min(lifetime);
        self
    }

    /// A token that `core` minted. Checks its marker, issuer and dates: a token that every verifier
    /// would reject is an error at start-up.
    #[cfg(feature = "reqwest")]
    pub(super) fn minted(
        jwt: &str,
        core: &str,
        iss: &str,
        api_key: Option<&str>,
        clock: &Clock,
    ) -> Result<Self, MintError> {
        let unusable = |source| MintError::UnusableToken { core: core.to_owned(), source };
        let claims = Jws::parse(jwt, MAX_TOKEN_LEN)
            .and_then(|jws| jws.claims())
            .map_err(|reason| unusable(malformed(reason)))?;
        let wrong = |claim, expected: &str| {
            let received = claims.get(claim).map(|value| redact_claim(value, api_key));
            let (core, expected) = (core.to_owned(), expected.to_owned());
            Err(MintError::WrongClaims { core, claim, expected, received })
        };
        for (claim, expected) in [("source", "microservice"), ("iss", iss)] {
            if claims.get(claim).and_then(Value::as_str) != Some(expected) {
                return wrong(claim, expected);
            }
        }
        let token = Self::new(jwt, &claims, clock).map_err(unusable)?;
        if token.lifetime.is_zero() {
            return wrong("exp", "later than iat");
        }
        Ok(token)
    }

    pub(super) fn header_value(&self) -> &HeaderValue {
        &self.header_value
    }

    /// The text of the token.
    pub(super) fn jwt(&self) -> &str {
        let text = self.header_value.to_str().unwrap_or_default();
        text.strip_prefix("Bearer ").unwrap_or_default()
    }

    /// The header value, the serial, and the expiry in Unix seconds.
    pub(super) fn parts(&self) -> (HeaderValue, u64, Option<u64>) {
        (self.header_value.clone(), self.serial, self.expires_at)
    }

    /// Whether the token has expired and no earlier call has returned `true`. `now` is in Unix
    /// seconds.
    pub(super) fn note_expiry(&self, now: u64) -> bool {
        self.expires_at.is_some_and(|expires_at| expires_at <= now)
            && !self.expiry_noted.swap(true, Ordering::Relaxed)
    }

    pub(super) fn serial(&self) -> u64 {
        self.serial
    }

    /// In Unix seconds.
    pub(super) fn expires_at(&self) -> Option<u64> {
        self.expires_at
    }

    /// The time from the mint or from `iat`, whichever is later, to `exp`: the clocks of this
    /// machine and of the core may differ.
    pub(super) fn lifetime(&self) -> Duration {
        self.lifetime
    }
}

/// What a text is that is often given in place of a token.
fn other_text(text: &str) -> Option<&'static str> {
    let starts =
        |start: &str| text.get(..start.len()).is_some_and(|it| it.eq_ignore_ascii_case(start));
    match text.as_bytes().first()? {
        _ if starts("Bearer ") => Some("it begins with `Bearer `, which is no part of the token"),
        b'{' | b'[' => Some("it is JSON"),
        b'<' => Some("it is HTML or XML"),
        b'-' => Some("it is PEM"),
        _ => None,
    }
}

fn malformed(reason: RejectionReason) -> TokenError {
    TokenError::Malformed { reason: reason.description() }
}
