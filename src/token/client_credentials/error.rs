//! [`ClientCredentialsError`]: why an OAuth2 server issued no token.

use std::time::Duration;

use crate::error::SourceError;
use crate::http_client;

/// Parameters that a request must not set, each with what to do instead.
const RESERVED_PARAMETERS: [(&str, &str); 6] = [
    ("client_assertion", "the client secret is sent"),
    ("client_assertion_type", "the client secret is sent"),
    ("client_id", "set the client id instead"),
    ("client_secret", "set the client secret instead"),
    ("grant_type", "it is always client_credentials"),
    ("scope", "add a scope instead"),
];

/// What the error codes of a token endpoint mean for this grant (RFC 6749 §5.2, RFC 8707 §2).
const MEANINGS: [(&str, &str); 7] = [
    ("invalid_client", "wrong client id or secret, or the wrong way to send them"),
    ("invalid_grant", "the server does not accept the client credentials grant of this client"),
    ("invalid_request", "a parameter is missing, unknown or repeated"),
    ("invalid_scope", "a scope is unknown, or this client may not request it"),
    ("invalid_target", "the resource or audience is unknown, or not for this client"),
    ("unauthorized_client", "this client may not use the client credentials grant"),
    ("unsupported_grant_type", "the server does not offer the client credentials grant"),
];

/// Why [`ClientCredentials`](crate::ClientCredentials) got no token.
///
/// No error holds the client secret or a token. What the server writes is shown as
/// [`MintError`](crate::MintError) shows the text of a core: on one line, cut, and not at all if it
/// may hold a secret.
///
/// ```no_run
/// use tower_m2m::{ClientCredentials, ClientCredentialsError, MintError, ServiceToken};
///
/// # async fn start(credentials: ClientCredentials) -> Result<ServiceToken, MintError> {
/// match credentials.mint().await {
///     Err(MintError::ClientCredentials(ClientCredentialsError::Refused { error, .. }))
///         if error.as_deref() == Some("invalid_client") => panic!("set CLIENT_SECRET"),
///     result => result,
/// }
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ClientCredentialsError {
    /// The client id or the client secret is empty, as an environment variable that is set to
    /// nothing.
    #[error("the client {part} is empty")]
    EmptyCredential {
        /// `id` or `secret`.
        part: &'static str,
    },
    /// A [`parameter`](crate::ClientCredentials::parameter) is one that this crate sets itself, or
    /// authenticates in another way.
    #[error("parameter `{name}` is reserved; {}", instead_of(.name))]
    ReservedParameter {
        /// The name of the parameter.
        name: String,
    },
    /// No connection to the token endpoint, or no complete response from it, within the timeout.
    #[error("the token endpoint {url} cannot be reached")]
    Unreachable {
        /// The token URL, without its query.
        url: String,
        /// Why the attempt failed, as the HTTP library reports it, without the URL.
        source: SourceError,
    },
    /// The token endpoint responded with an error status.
    #[error("{}", refusal(.url, *.status, .error.as_deref(), .description.as_deref()))]
    Refused {
        /// The token URL, without its query.
        url: String,
        /// The HTTP status.
        status: u16,
        /// The code of RFC 6749 §5.2, such as `invalid_client`. `None` if the response holds none,
        /// as that of a proxy.
        error: Option<String>,
        /// The `error_description`, or the whole body if there is no code. `None` if it is empty.
        description: Option<String>,
        /// The response's `Retry-After`, at most 5 min.
        retry_after: Option<Duration>,
    },
    /// The response is a redirect, or a success without a bearer token.
    #[error("{url} does not respond like a token endpoint: {reason}")]
    NotATokenEndpoint {
        /// The token URL, without its query.
        url: String,
        /// The check that failed.
        reason: String,
    },
    /// The access token is no JWT. A called service cannot verify it with a key set. Many servers
    /// issue JWTs only for an [`audience`](crate::ClientCredentials::audience), or with a setting
    /// of the client.
    #[error(
        "the token endpoint {url} issued an opaque token, which no key set can verify; make the \
         server issue JWTs, for instance for an audience"
    )]
    OpaqueToken {
        /// The token URL, without its query.
        url: String,
    },
    /// The access token is a malformed JWT or has expired.
    #[error("the token endpoint {url} issued a token that cannot be used")]
    UnusableToken {
        /// The token URL, without its query.
        url: String,
        /// Why it cannot be used.
        source: SourceError,
    },
}

impl ClientCredentialsError {
    /// The error for a reserved parameter. `None` if the parameter is not reserved.
    pub(super) fn reserved(name: &str) -> Option<Self> {
        let is_reserved = RESERVED_PARAMETERS.iter().any(|(reserved, _)| *reserved == name);
        is_reserved.then(|| Self::ReservedParameter { name: name.to_owned() })
    }

    /// Whether a retry may succeed.
    pub(in crate::token) fn is_transient(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            // A 404 with an HTML page is a wrong path here, and no server that starts.
            Self::Refused { status, .. } => http_client::is_transient(*status, false),
            _ => false,
        }
    }

    /// Whether the server responded.
    pub(in crate::token) fn is_answer(&self) -> bool {
        !matches!(self, Self::Unreachable { .. })
    }

    /// How long the server asks callers to wait before a retry.
    pub(in crate::token) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}

/// Whether the meaning of a code is known.
pub(super) fn is_known(code: &str) -> bool {
    MEANINGS.iter().any(|(known, _)| *known == code)
}

fn instead_of(parameter: &str) -> &'static str {
    let found = RESERVED_PARAMETERS.iter().find(|(reserved, _)| *reserved == parameter);
    found.map_or("leave it out", |(_, instead)| instead)
}

fn refusal(url: &str, status: u16, error: Option<&str>, description: Option<&str>) -> String {
    let meaning = match error {
        // Keycloak's answer to a wrong secret. With 400 it is about the grant alone (RFC 6749 §5.2).
        Some("unauthorized_client") if status == 401 => {
            Some("wrong client secret, or this client may not use the client credentials grant")
        }
        Some(code) => MEANINGS.iter().find(|(known, _)| *known == code).map(|(_, it)| *it),
        None if matches!(status, 404 | 405) => Some("is the token URL right?"),
        None => None,
    };
    let code = error.map(|code| format!(", {code}"));
    let parts = [meaning, description].into_iter().flatten().map(|part| format!(": {part}"));
    let parts: String = code.into_iter().chain(parts).collect();
    format!("the token endpoint {url} refused with status {status}{parts}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16, error: Option<&str>, description: Option<&str>) -> String {
        let [error, description] = [error, description].map(|text| text.map(str::to_owned));
        let url = "https://a/token".to_owned();
        let retry_after = None;
        ClientCredentialsError::Refused { url, status, error, description, retry_after }.to_string()
    }

    #[test]
    fn refusal_says_what_the_code_means() {
        let cases = [
            (
                refused(401, Some("invalid_client"), None),
                "401, invalid_client: wrong client id or secret, or the wrong way to send them",
            ),
            (
                refused(400, Some("invalid_scope"), Some("no such scope")),
                "400, invalid_scope: a scope is unknown, or this client may not request it: no such \
                 scope",
            ),
            (
                refused(401, Some("unauthorized_client"), None),
                "401, unauthorized_client: wrong client secret, or this client may not use the client \
                 credentials grant",
            ),
            (
                refused(400, Some("unauthorized_client"), None),
                "400, unauthorized_client: this client may not use the client credentials grant",
            ),
            (refused(403, Some("consent_required"), None), "403, consent_required"),
            (refused(403, Some("x"), Some("why")), "403, x: why"),
            (refused(404, None, None), "404: is the token URL right?"),
            (refused(405, None, Some("No")), "405: is the token URL right?: No"),
            (refused(503, None, None), "503"),
        ];
        for (text, end) in cases {
            assert_eq!(
                text,
                format!("the token endpoint https://a/token refused with status {end}")
            );
        }
    }
}
