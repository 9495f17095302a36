//! M1's own token, ready to be put on requests.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, HeaderMap, HeaderValue};

use crate::bearer;
use crate::clock::Clock;
use crate::error::ConfigError;
use crate::jws::Jws;

/// A token longer than this is not sent: no server would read it.
const MAX_TOKEN_LEN: usize = 64 * 1024;

/// A handle on the token that this process calls others with. Cheap to clone, and never printed.
#[derive(Clone)]
pub struct ServiceToken(Arc<Current>);

struct Current {
    header_value: HeaderValue,
    expires_at: Option<u64>,
}

impl ServiceToken {
    /// A token that came from elsewhere, from an environment variable for instance: a compact JWS (RFC 7515 §7.1) of at
    /// most 64 KiB. White space around it is taken off. The signature cannot be checked here.
    ///
    /// # Errors
    ///
    /// [`ConfigError::Token`] if the text is no such JWS, its claims are no JSON object, or its `exp` has passed.
    pub fn from_jwt(jwt: impl AsRef<str>) -> Result<Self, ConfigError> {
        Self::checked(jwt.as_ref().trim(), &Clock::default())
    }

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
        let header_value = bearer::write(jwt).map_err(|_| ConfigError::Token("the token is not fit for a header"))?;
        Ok(Self(Arc::new(Current { header_value, expires_at })))
    }

    /// `Bearer <jwt>`, marked sensitive: for any client that takes headers. Costs a reference count.
    #[must_use]
    pub fn header_value(&self) -> HeaderValue {
        self.0.header_value.clone()
    }

    /// Sets `Authorization` in `headers`, replacing what is there.
    pub fn apply(&self, headers: &mut HeaderMap) {
        headers.insert(AUTHORIZATION, self.header_value());
    }

    /// The token's `exp`. `None` if it has none, or one that this platform's [`SystemTime`] does not reach.
    #[must_use]
    pub fn expires_at(&self) -> Option<SystemTime> {
        UNIX_EPOCH.checked_add(Duration::from_secs(self.0.expires_at?))
    }
}

impl fmt::Debug for ServiceToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServiceToken").field("expires_at", &self.0.expires_at).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    fn jwt(claims: &str) -> String {
        format!("{}.{}.c2VjcmV0", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#), URL_SAFE_NO_PAD.encode(claims))
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
        for printed in [format!("{token:?}"), format!("{headers:?}"), format!("{:?}", token.header_value())] {
            assert!(!printed.contains("c2VjcmV0"), "{printed}");
        }
        let error = ServiceToken::from_jwt(jwt(r#"{"exp":1}"#)).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("c2VjcmV0"));
    }
}
