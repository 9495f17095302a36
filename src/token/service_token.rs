//! M1's own token, ready to be put on requests.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::bearer;
use crate::clock::Clock;
use crate::error::ConfigError;
#[cfg(feature = "reqwest")]
use crate::error::MintError;
use crate::jose::Jws;

/// A token longer than this is not sent: no server would read it.
const MAX_TOKEN_LEN: usize = 64 * 1024;

/// A handle on the token that this process calls others with. Cheap to clone, and never printed.
///
/// A token that was minted may be replaced by a newer one while it is in use: take
/// [`header_value`](Self::header_value) for each request anew. Whatever replaces it ends with the
/// last clone.
#[derive(Clone)]
pub struct ServiceToken(Arc<Handle>);

/// What the clones of one token share. Its end is the end of whatever renews the token.
struct Handle {
    slot: Arc<Slot>,
    renewal: Option<Box<dyn Renewal>>,
}

/// The place of the token that is in use now. Whoever keeps a copy asks for the generation first,
/// which takes no lock.
pub(crate) struct Slot {
    generation: AtomicU64,
    current: RwLock<Current>,
}

/// One token, and which one of its slot's.
#[derive(Clone)]
pub(crate) struct Current {
    pub(crate) header_value: HeaderValue,
    /// Tells it from the tokens before and after it in its slot.
    pub(crate) generation: u64,
    /// In Unix seconds.
    pub(crate) expires_at: Option<u64>,
}

/// What replaces a token before it expires, or once it is refused. Its end is the end of its work.
pub(crate) trait Renewal: Send + Sync {
    /// The token is in use: its renewal has to be under way. Called for each request.
    fn tend(&self);

    /// A server refused the token of this generation as no valid one.
    fn refused(&self, generation: u64);

    /// Whether it is under way, and why the newest attempt failed.
    #[cfg(feature = "reqwest")]
    fn health(&self) -> (bool, Option<MintError>);
}

/// How a [`ServiceToken`] fares.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TokenHealth {
    /// When the token that is in use expires. `None` as in [`ServiceToken::expires_at`].
    pub expires_at: Option<SystemTime>,
    /// Whether a task renews it: with [`validity`](crate::ServiceTokenRequest::validity) or
    /// [`dynamic_key`](crate::ServiceTokenRequest::dynamic_key), or once a server has refused it.
    pub renewing: bool,
    /// Why the newest renewal failed. `None` if it succeeded, or if there was none so far.
    #[cfg(feature = "reqwest")]
    pub last_error: Option<MintError>,
}

impl ServiceToken {
    /// A token that came from elsewhere, from an environment variable for instance: a compact JWS
    /// (RFC 7515 §7.1) of at most 64 KiB. White space around it is taken off. The signature cannot
    /// be checked here. It is never renewed.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Token`] if the text is no such JWS, its claims are no JSON object, or its
    /// `exp` has passed.
    pub fn from_jwt(jwt: impl AsRef<str>) -> Result<Self, ConfigError> {
        let current = Current::checked(jwt.as_ref().trim(), &Clock::default())?;
        Ok(Self(Arc::new(Handle { slot: Slot::new(current), renewal: None })))
    }

    /// The token in `slot`, which `renewal` replaces.
    #[cfg(feature = "reqwest")]
    pub(crate) fn renewed(slot: Arc<Slot>, renewal: impl Renewal + 'static) -> Self {
        Self(Arc::new(Handle { slot, renewal: Some(Box::new(renewal)) }))
    }

    /// `Bearer <jwt>`, marked sensitive: for any client that takes headers. Costs a reference count
    /// and a lock that is never held for longer than that.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.current().header_value
    }

    /// The token to use now.
    pub(crate) fn current(&self) -> Current {
        self.tend();
        self.0.slot.read(Current::clone)
    }

    /// Puts the token to use now in the place of a copy, if another one has come since.
    pub(crate) fn renew(&self, copy: &mut Current) {
        self.tend();
        if self.0.slot.generation() != copy.generation {
            *copy = self.0.slot.read(Current::clone);
        }
    }

    fn tend(&self) {
        if let Some(renewal) = &self.0.renewal {
            renewal.tend();
        }
    }

    /// Whether another token can take this one's place.
    pub(crate) fn is_renewable(&self) -> bool {
        self.0.renewal.is_some()
    }

    /// Sets `Authorization` in `headers`, replacing what is there.
    pub fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, self.header_value());
    }

    /// The token's `exp`. `None` if it has none, or one that this platform's [`SystemTime`] does
    /// not reach.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0.slot.read(|current| current.expires_at)?))
    }

    /// How the token fares, for a health endpoint or a log.
    #[must_use]
    pub fn health(&self) -> TokenHealth {
        #[cfg(feature = "reqwest")]
        {
            let (renewing, last_error) =
                self.0.renewal.as_ref().map(|renewal| renewal.health()).unwrap_or_default();
            TokenHealth { expires_at: self.expires_at(), renewing, last_error }
        }
        #[cfg(not(feature = "reqwest"))]
        TokenHealth { expires_at: self.expires_at(), renewing: false }
    }

    /// A server refused the token of this generation as no valid one.
    pub(crate) fn refused(&self, generation: u64) {
        if let Some(renewal) = &self.0.renewal {
            renewal.refused(generation);
        }
    }
}

impl Slot {
    pub(crate) fn new(current: Current) -> Arc<Self> {
        Arc::new(Self { generation: current.generation.into(), current: current.into() })
    }

    pub(crate) fn read<T>(&self, look: impl FnOnce(&Current) -> T) -> T {
        // No holder of the lock panics; were it so, the token would still be whole.
        look(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }

    #[cfg(feature = "reqwest")]
    pub(crate) fn replace(&self, next: Current) {
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        *current = Current { generation: current.generation + 1, ..next };
        // Told last, and still under the lock: whoever sees the new number finds the new token.
        self.generation.store(current.generation, Ordering::Release);
    }

    pub(crate) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }
}

impl Current {
    pub(crate) fn checked(jwt: &str, clock: &Clock) -> Result<Self, ConfigError> {
        let claims = Jws::parse(jwt, MAX_TOKEN_LEN).and_then(|jws| jws.claims());
        let claims = claims.map_err(|reason| ConfigError::Token(reason.description()))?;
        let expires_at = match claims.get("exp") {
            None => None,
            Some(exp) => {
                let seconds = exp.as_u64().or_else(|| exp.as_f64().map(|exp| exp as u64));
                Some(seconds.ok_or(ConfigError::Token("the token has no valid expiration time"))?)
            }
        };
        if expires_at.is_some_and(|expires_at| expires_at <= clock.unix_now()) {
            return Err(ConfigError::Token("the token has expired"));
        }
        let header_value = bearer::write(jwt)
            .map_err(|_| ConfigError::Token("the token is not fit for a header"))?;
        Ok(Self { header_value, generation: 0, expires_at })
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceToken").field("health", &self.health()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn jwt(claims: &str) -> String {
        format!(
            "{}.{}.c2VjcmV0",
            URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#),
            URL_SAFE_NO_PAD.encode(claims)
        )
    }

    #[test]
    fn only_a_current_jwt_becomes_a_token() {
        let cases = [
            (jwt(r#"{"exp":4953600000}"#), true),
            (format!(" {}\n", jwt(r#"{"exp":4953600000}"#)), true),
            (jwt("{}"), true),
            (jwt(r#"{"exp":1}"#), false),
            (jwt(r#"{"exp":"soon"}"#), false),
            (jwt("[]"), false),
            ("not a token".to_owned(), false),
            (String::new(), false),
        ];
        for (text, accepted) in cases {
            assert_eq!(ServiceToken::from_jwt(&text).is_ok(), accepted, "{text}");
        }
    }

    #[test]
    fn token_is_sensitive_and_never_appears_in_debug() {
        let text = jwt(r#"{"exp":4953600000}"#);
        let token = ServiceToken::from_jwt(&text).unwrap();
        let mut headers = HeaderMap::new();
        token.apply(&mut headers);
        assert_eq!(headers[AUTHORIZATION], format!("Bearer {text}"));
        for printed in
            [format!("{token:?}"), format!("{headers:?}"), format!("{:?}", token.header_value())]
        {
            assert!(!printed.contains("c2VjcmV0"), "{printed}");
        }
        let error = ServiceToken::from_jwt(jwt(r#"{"exp":1}"#)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
    }
}
