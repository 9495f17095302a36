//! Why a signing key cannot be made or read.

use std::path::PathBuf;

use crate::error::SourceError;
use crate::jose::algorithm::Algorithm;

/// Why a [`SigningKey`](crate::SigningKey) cannot be generated or read.
///
/// No error shows anything of a private key.
///
/// ```
/// use tower_m2m::{SigningKey, SigningKeyError};
///
/// let public = "-----BEGIN PUBLIC KEY-----\n\
///     MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
///     -----END PUBLIC KEY-----\n";
/// match SigningKey::from_pem(public) {
///     Err(SigningKeyError::PemBlock { label, .. }) => assert_eq!(label, "PUBLIC KEY"),
///     other => panic!("{other:?}"),
/// }
/// ```
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SigningKeyError {
    /// The text has no PEM block (RFC 7468) that may hold a private key.
    #[error(
        "not a private key in PEM; use BEGIN PRIVATE KEY, BEGIN RSA PRIVATE KEY or BEGIN EC \
         PRIVATE KEY"
    )]
    NotPem,
    /// The text has a PEM block of another type, such as a public key or a certificate. No key of
    /// the text is used.
    #[error("the PEM block {label:?} cannot be read as a private key; {remedy}")]
    PemBlock {
        /// The type of the block, such as `PUBLIC KEY`.
        label: String,
        /// What to do, such as the command that converts the key.
        remedy: &'static str,
    },
    /// The private key in PEM is encrypted with a passphrase.
    #[error("the private key is encrypted; `openssl pkey -in FILE -out NEW_FILE` decrypts it")]
    Encrypted,
    /// The text has more than one private key, so that it does not say which one signs.
    #[error("more than one private key; use one text for each")]
    SeveralKeys,
    /// The text is not one JSON object with a `kty`, and so no JWK (RFC 7517 §4).
    #[error("not a JWK; expected one JSON object with the member `kty`")]
    NotAJwk,
    /// The JWK is a public key.
    #[error("the JWK is a public key; a private one has the member `d`")]
    PublicJwk,
    /// The key is damaged, of an unsupported type or size, or weak.
    #[error("the private key cannot be used: {reason}")]
    UnusableKey {
        /// The check that failed.
        reason: &'static str,
    },
    /// The key cannot sign with the algorithm that was asked for, or that its JWK names.
    #[error("{key} cannot sign with {algorithm}")]
    AlgorithmMismatch {
        /// The type of the key, such as `a P-256 key`.
        key: &'static str,
        /// The algorithm.
        algorithm: Algorithm,
    },
    /// The random generator failed.
    #[error("a key cannot be generated")]
    Generation,
    /// The file cannot be read, breaks a rule for its mode, type or size, or holds no usable key.
    #[error("key file {path:?} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// The I/O error, the broken rule and its remedy, or the `SigningKeyError` of the contents.
        source: SourceError,
    },
}
