//! The signature algorithms that a token may use.

use std::fmt;

const NAMES: [(&str, Algorithm); 9] = [
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// A JWS signature algorithm (RFC 7518 §3.1, RFC 8037 §3.1).
///
/// All of them are asymmetric. HMAC and `none` have no variant, so no policy can allow them.
///
/// A [`Verifier`](crate::Verifier) allows all of them by default, and
/// [`algorithms`](crate::Verifier::algorithms) allows fewer. A token must also use an algorithm of
/// its key: the key's `alg`, or else the algorithms of its type and curve (RFC 8725 §3.1).
///
/// ```
/// use tower_m2m::{Algorithm, RejectionReason, Verifier};
/// # use tower_m2m::{EmbeddedCore, LocalJwks, SuperTokensCore};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let core = EmbeddedCore::builder().build().await?;
/// # let jwks = LocalJwks::from_json(core.jwks().await)?;
/// # let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// # let core_url = format!("http://{}", listener.local_addr()?);
/// # tokio::spawn(async move { core.serve(listener, std::future::pending()).await });
/// # let request = SuperTokensCore::new(core_url)?.service_token("https://api.example.com");
/// # let header = request.mint().await?.header_value();
/// # let jwt = header.to_str()?.trim_start_matches("Bearer ");
/// // `jwt` comes from a SuperTokens core, which signs with RS256.
/// let verifier = Verifier::new(jwks).algorithms([Algorithm::ES256, Algorithm::EdDSA]);
/// let rejection = verifier.verify(jwt).await.unwrap_err();
/// assert_eq!(rejection.reason(), RejectionReason::AlgorithmNotAllowed);
///
/// let verifier = verifier.algorithms([Algorithm::RS256]);
/// assert!(verifier.verify(jwt).await.is_ok());
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Algorithm {
    /// RSASSA-PKCS1-v1_5 with SHA-256. SuperTokens signs with it.
    RS256,
    /// RSASSA-PKCS1-v1_5 with SHA-384.
    RS384,
    /// RSASSA-PKCS1-v1_5 with SHA-512.
    RS512,
    /// RSASSA-PSS with SHA-256.
    PS256,
    /// RSASSA-PSS with SHA-384.
    PS384,
    /// RSASSA-PSS with SHA-512.
    PS512,
    /// ECDSA on P-256 with SHA-256.
    ES256,
    /// ECDSA on P-384 with SHA-384.
    ES384,
    /// Ed25519, named `EdDSA` (RFC 8037 §3.1) or `Ed25519` (RFC 9864 §2.2) in tokens and keys.
    EdDSA,
}

impl Algorithm {
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        NAMES.into_iter().map(|(_, algorithm)| algorithm)
    }

    /// The algorithm with this `alg` name. Names are case-sensitive (RFC 7515 §4.1.1).
    pub(crate) fn from_name(name: &str) -> Option<Self> {
        let name = if name == "Ed25519" { "EdDSA" } else { name };
        NAMES.into_iter().find(|(known, _)| *known == name).map(|(_, algorithm)| algorithm)
    }
}

/// Writes the `alg` name, which is the variant's name.
impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_matched_exactly() {
        for algorithm in Algorithm::all() {
            assert_eq!(Algorithm::from_name(&algorithm.to_string()), Some(algorithm));
        }
        assert_eq!(Algorithm::from_name("Ed25519"), Some(Algorithm::EdDSA));
        for name in ["none", "None", "HS256", "rs256", "RS256 ", "", "ES512", "ES256K", "Ed448"] {
            assert_eq!(Algorithm::from_name(name), None, "{name}");
        }
    }
}
