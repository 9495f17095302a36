//! [`LocalIssuerError`]: why a [`LocalIssuer`](crate::LocalIssuer) cannot use an issuer or its keys.

/// Why a [`LocalIssuer`](crate::LocalIssuer) cannot use an issuer or a list of keys.
///
/// ```
/// use tower_m2m::{LocalIssuer, LocalIssuerError};
///
/// let err = LocalIssuer::new("https://orders.internal", []).unwrap_err();
/// assert_eq!(err, LocalIssuerError::NoKey);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LocalIssuerError {
    /// The issuer is empty.
    #[error("the issuer is empty")]
    EmptyIssuer,
    /// The list has no key.
    #[error("the list of signing keys is empty")]
    NoKey,
    /// Two keys of the list have the same `kid`: a key is listed twice, or two JWKs name one `kid`.
    #[error("two signing keys have the kid {kid:?}; list each key once, with a kid of its own")]
    DuplicateKid {
        /// The `kid`.
        kid: String,
    },
    /// A key of the list has the `kid` of an earlier key whose tokens have not all expired.
    #[error(
        "the kid {kid:?} belongs to an earlier key with valid tokens; give the new key another kid"
    )]
    ReusedKid {
        /// The `kid`.
        kid: String,
    },
}
