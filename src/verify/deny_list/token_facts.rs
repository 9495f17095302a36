//! [`TokenFacts`]: what the entries of a deny list read of a token.

use serde_json::{Map, Value};

/// What the entries of a deny list read of a verified token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenFacts<'t> {
    /// `None` for a token without the marker. Only the entries for its key apply to it, so that no
    /// entry that is meant for services rejects end users.
    pub(crate) claims: Option<&'t Map<String, Value>>,
    /// `iat`, rounded down to whole seconds.
    pub(crate) issued_at: Option<u64>,
    /// The `kid` of the key that verified the signature. Not that in the header: a key from PEM
    /// verifies tokens with any `kid`.
    pub(crate) kid: Option<&'t str>,
}
