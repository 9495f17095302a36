//! [`SigningKey`], a private key with its `kid` and algorithm.

use std::fmt;
use std::path::Path;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use zeroize::Zeroizing;

use super::error::SigningKeyError;
use super::private_jwk::PrivateJwk;
use super::private_key::PrivateKey;
use super::{pem, private_jwk};
use crate::config_text::without_bom;
use crate::error::SourceError;
use crate::jose::algorithm::Algorithm;
use crate::jose::jwk::Jwk;
use crate::jose::jws::MAX_KID_LEN;
use crate::trusted_file;

/// The largest file, in bytes. An RSA key of 8192 bits has about 6 KiB.
const MAX_FILE: u64 = 64 * 1024;

/// A private key that signs tokens with one algorithm.
///
/// Its public half is a JWK that any verifier of JWTs reads:
///
/// ```
/// use tower_m2m::{Algorithm, LocalJwks, SigningKey, SigningKeyError, Verifier};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let key = SigningKey::generate(Algorithm::ES256)?;
/// let jwks = LocalJwks::from_json(format!(r#"{{"keys":[{}]}}"#, key.public_jwk()))?;
/// let verifier = Verifier::new(jwks).audience("billing");
///
/// assert_eq!(
///     key.for_algorithm(Algorithm::RS256).unwrap_err(),
///     SigningKeyError::AlgorithmMismatch { key: "a P-256 key", algorithm: Algorithm::RS256 },
/// );
/// # Ok(())
/// # }
/// ```
///
/// A key is read from PEM or from a private JWK, and limited as the keys of a key set are: RSA of
/// 2048 to 8192 bits, P-256, P-384 or Ed25519. A key whose public half a [`Verifier`] would skip is
/// an error.
///
/// Clones are cheap and share the key. The private key is zeroed in memory when the last clone is
/// dropped, and the buffers that it is decoded from when it has been read. A text that the caller
/// passes is not zeroed. `Debug` prints the `kid` and the algorithm.
///
/// [`Verifier`]: crate::Verifier
#[derive(Clone)]
pub struct SigningKey(Arc<Inner>);

struct Inner {
    private: Arc<PrivateKey>,
    algorithm: Algorithm,
    kid: String,
    public_jwk: String,
    /// The encoded header of each token that the key signs, with the dot after it.
    header: String,
}

impl SigningKey {
    /// Generates a key for this algorithm. RSA keys have 2048 bits.
    ///
    /// No other process has the key. Replicas of a service must share a key instead, in a file that
    /// [`from_file`](Self::from_file) reads: the key set of one replica would lack the keys of the
    /// others, and that of a restarted one the old key.
    ///
    /// Generating an RSA key takes a large part of a second, so call this with
    /// [`spawn_blocking`](tokio::task::spawn_blocking) on an async runtime. Other keys take less
    /// than a millisecond.
    ///
    /// ```
    /// use tower_m2m::{Algorithm, SigningKey};
    ///
    /// # fn main() -> Result<(), tower_m2m::SigningKeyError> {
    /// let key = SigningKey::generate(Algorithm::EdDSA)?;
    /// assert_eq!(key.algorithm(), Algorithm::EdDSA);
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::Generation`] if the random generator fails.
    pub fn generate(algorithm: Algorithm) -> Result<Self, SigningKeyError> {
        let private =
            PrivateKey::generate(algorithm).map_err(|Unspecified| SigningKeyError::Generation)?;
        Self::new(Arc::new(private), Some(algorithm), None)
    }

    /// Reads a private key in PEM (RFC 7468): RSA of 2048 to 8192 bits, P-256, P-384 or Ed25519.
    ///
    /// The text has one block: a `PRIVATE KEY` (PKCS#8, as `openssl genpkey` writes it), an
    /// `RSA PRIVATE KEY` (PKCS#1) or an `EC PRIVATE KEY` (SEC 1, with or without the
    /// `EC PARAMETERS` of `openssl ecparam -genkey`). There may be other text around it. Line breaks
    /// are optional, because some configuration formats replace them with spaces.
    ///
    /// An RSA key signs with RS256; [`for_algorithm`](Self::for_algorithm) selects another
    /// algorithm. A P-256 key signs with ES256, a P-384 key with ES384 and an Ed25519 key with
    /// EdDSA.
    ///
    /// ```
    /// use tower_m2m::{Algorithm, SigningKey};
    ///
    /// # fn main() -> Result<(), tower_m2m::SigningKeyError> {
    /// // openssl genpkey -algorithm ed25519
    /// let key = SigningKey::from_pem(
    ///     "-----BEGIN PRIVATE KEY-----\n\
    ///      MC4CAQAwBQYDK2VwBCIEIJ1hsZ3v/VpguoRK9JLsLMREScVpezJpGXA7rAMcrn9g\n\
    ///      -----END PRIVATE KEY-----\n",
    /// )?;
    /// assert_eq!(key.algorithm(), Algorithm::EdDSA);
    /// // The key of RFC 8037 §A.
    /// assert_eq!(key.kid(), "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::NotPem`] if the text has no PEM block, [`SigningKeyError::Encrypted`],
    /// [`SigningKeyError::PemBlock`] if a block is something else, such as a public key,
    /// [`SigningKeyError::SeveralKeys`], and [`SigningKeyError::UnusableKey`].
    pub fn from_pem(pem: impl AsRef<[u8]>) -> Result<Self, SigningKeyError> {
        Self::new(Arc::new(pem::read(pem.as_ref())?), None, None)
    }

    /// Reads a private JWK (RFC 7517 §4): `RSA` with `p`, `q`, `dp`, `dq` and `qi`, `EC` on P-256
    /// or P-384, or `OKP` with Ed25519.
    ///
    /// The key signs with the algorithm that its `alg` names; without one, as a key in
    /// [PEM](Self::from_pem) does. It keeps its `kid`. Its `use`, if present, must be `sig`, and its
    /// `key_ops` must hold `sign`.
    ///
    /// ```
    /// use tower_m2m::SigningKey;
    ///
    /// # fn main() -> Result<(), tower_m2m::SigningKeyError> {
    /// let key = SigningKey::from_jwk(
    ///     r#"{
    ///         "kty": "OKP",
    ///         "crv": "Ed25519",
    ///         "kid": "2026-01",
    ///         "d": "nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A",
    ///         "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"
    ///     }"#,
    /// )?;
    /// assert_eq!(key.kid(), "2026-01");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::NotAJwk`], [`SigningKeyError::PublicJwk`],
    /// [`SigningKeyError::AlgorithmMismatch`] if the `alg` does not fit the key, and
    /// [`SigningKeyError::UnusableKey`], also if the private and the public members do not belong
    /// together.
    pub fn from_jwk(jwk: impl AsRef<[u8]>) -> Result<Self, SigningKeyError> {
        let PrivateJwk { key, algorithm, kid } = private_jwk::read(without_bom(jwk.as_ref()))?;
        Self::new(Arc::new(key), algorithm, kid)
    }

    /// Reads a file that holds a private key in PEM or a private JWK, as [`from_pem`] and
    /// [`from_jwk`] do.
    ///
    /// Symbolic links are followed, as Kubernetes mounts need. The file must be a regular one of at
    /// most 64 KiB, and on Unix not writable by all users. A FIFO is an error and does not block.
    ///
    /// ```no_run
    /// use tower_m2m::{Algorithm, SigningKey};
    ///
    /// # fn main() -> Result<(), tower_m2m::SigningKeyError> {
    /// // openssl genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:3072 -out key.pem
    /// let key = SigningKey::from_file("/etc/orders/key.pem")?.for_algorithm(Algorithm::PS256)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::File`], which names the file: it cannot be read, breaks one of these
    /// rules, or its contents are not as described.
    ///
    /// [`from_pem`]: Self::from_pem
    /// [`from_jwk`]: Self::from_jwk
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, SigningKeyError> {
        let path = path.as_ref();
        let unusable = |source| SigningKeyError::File { path: path.to_owned(), source };
        let content = trusted_file::read_secret_of_others(path, MAX_FILE)
            .map(Zeroizing::new)
            .map_err(|err| unusable(SourceError::new(err)))?;
        let is_json = without_bom(&content).trim_ascii_start().starts_with(b"{");
        let key = if is_json { Self::from_jwk(&*content) } else { Self::from_pem(&*content) };
        key.map_err(|err| unusable(SourceError::new(err)))
    }

    /// This key with another algorithm: for an RSA key RS256, RS384, RS512, PS256, PS384 or PS512.
    /// The `kid` stays the same.
    ///
    /// ```
    /// use tower_m2m::{Algorithm, SigningKey};
    ///
    /// # fn main() -> Result<(), tower_m2m::SigningKeyError> {
    /// let key = SigningKey::generate(Algorithm::RS256)?;
    /// let key = key.for_algorithm(Algorithm::PS256)?;
    ///
    /// let err = key.for_algorithm(Algorithm::EdDSA).unwrap_err();
    /// assert_eq!(err.to_string(), "an RSA key cannot sign with EdDSA");
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// [`SigningKeyError::AlgorithmMismatch`] if the key cannot sign with `algorithm`.
    pub fn for_algorithm(self, algorithm: Algorithm) -> Result<Self, SigningKeyError> {
        Self::new(self.0.private.clone(), Some(algorithm), Some(self.0.kid.clone()))
    }

    /// The `kid` in the header of the key's tokens and in its public JWK: that of the JWK that the
    /// key was read from, or else its thumbprint (RFC 7638) with SHA-256, in base64url.
    #[must_use]
    pub fn kid(&self) -> &str {
        &self.0.kid
    }

    /// The algorithm that the key signs with.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.0.algorithm
    }

    /// The public half as a JSON object (RFC 7517 §4), for a key set.
    ///
    /// It has `kty`, `kid`, the parameters of the key, `alg` and `use`, in this order.
    #[must_use]
    pub fn public_jwk(&self) -> &str {
        &self.0.public_jwk
    }

    /// `algorithm` defaults to that of the key type, and `kid` to the thumbprint.
    fn new(
        private: Arc<PrivateKey>,
        algorithm: Option<Algorithm>,
        kid: Option<String>,
    ) -> Result<Self, SigningKeyError> {
        let algorithm = algorithm.unwrap_or(private.default_algorithm());
        if !private.fits(algorithm) {
            return Err(SigningKeyError::AlgorithmMismatch { key: private.kind(), algorithm });
        }
        let kid = kid.unwrap_or_else(|| thumbprint(private.public_parameters()));
        let key = Self::build(private, algorithm, kid);
        key.check().map_err(|reason| SigningKeyError::UnusableKey { reason })?;
        Ok(key)
    }

    fn build(private: Arc<PrivateKey>, algorithm: Algorithm, kid: String) -> Self {
        let name = Value::from(&*kid);
        // The members and their order are those of a SuperTokens core, which are part of the wire
        // format. The Python and Go SDKs fail on an RSA key that lacks one of them.
        let header = format!(r#"{{"kid":{name},"typ":"JWT","alg":"{algorithm}"}}"#);
        let (kty, parameters) = private.public_parameters();
        let parameters: String =
            parameters.iter().map(|(name, value)| format!(r#""{name}":"{value}","#)).collect();
        let public_jwk = format!(
            r#"{{"kty":"{kty}","kid":{name},{parameters}"alg":"{algorithm}","use":"sig"}}"#
        );
        let header = URL_SAFE_NO_PAD.encode(header) + ".";
        Self(Arc::new(Inner { private, algorithm, kid, public_jwk, header }))
    }

    /// Checks that a [`Verifier`](crate::Verifier) accepts the key and its `kid`.
    fn check(&self) -> Result<(), &'static str> {
        if self.kid().len() > MAX_KID_LEN {
            return Err("its `kid` is longer than 256 bytes");
        }
        let jwk = serde_json::from_str(self.public_jwk()).map_err(|_| "its JWK is malformed")?;
        Jwk::from_jwk(&jwk).map(drop)
    }
}

/// Prints the `kid` and the algorithm.
impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("kid", &self.kid())
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

/// Signing. Nothing is parsed for a signature.
impl SigningKey {
    /// Signs `claims`, a JSON object, into a compact JWS (RFC 7515 §7.1).
    pub(crate) fn sign(&self, claims: &str) -> Result<String, Unspecified> {
        // Base64 takes 4 bytes for 3. A signature of RSA-2048 takes 342, and a dot precedes it.
        let len = self.0.header.len() + claims.len() * 4 / 3 + 350;
        let mut input = String::with_capacity(len);
        input.push_str(&self.0.header);
        URL_SAFE_NO_PAD.encode_string(claims, &mut input);
        self.sign_input(input)
    }

    /// Signs any two texts as header and claims of a compact JWS.
    #[cfg(feature = "testing")]
    pub(crate) fn sign_parts(&self, header: &str, claims: &str) -> Result<String, Unspecified> {
        let mut input = URL_SAFE_NO_PAD.encode(header);
        input.push('.');
        URL_SAFE_NO_PAD.encode_string(claims, &mut input);
        self.sign_input(input)
    }

    /// Appends a dot and the signature of `input`, the first two parts of a compact JWS.
    pub(crate) fn sign_input(&self, input: String) -> Result<String, Unspecified> {
        let mut jwt = input;
        let signature = self.0.private.sign(self.0.algorithm, jwt.as_bytes())?;
        jwt.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut jwt);
        Ok(jwt)
    }
}

/// For the keys of the embedded core and of `testing`, which choose their `kid`.
#[cfg(feature = "embedded-core")]
impl SigningKey {
    /// Reads a PrivateKeyInfo (RFC 5208 §5).
    pub(crate) fn from_pkcs8(der: &[u8]) -> Result<Self, SigningKeyError> {
        let private = PrivateKey::from_pkcs8(der)
            .map_err(|reason| SigningKeyError::UnusableKey { reason })?;
        Self::new(Arc::new(private), None, None)
    }

    /// The private key as a PrivateKeyInfo (RFC 5208 §5).
    pub(crate) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        self.0.private.to_pkcs8()
    }

    pub(crate) fn is_rsa_2048(&self) -> bool {
        matches!(&*self.0.private, PrivateKey::Rsa(pair) if pair.public_modulus_len() == 256)
    }

    /// This key with another `kid`. The caller chooses one that verifiers accept.
    pub(crate) fn with_kid(&self, kid: String) -> Self {
        Self::build(self.0.private.clone(), self.0.algorithm, kid)
    }
}

/// The SHA-256 thumbprint of a public key with these parameters (RFC 7638 §3).
fn thumbprint((kty, parameters): (&'static str, Vec<(&'static str, String)>)) -> String {
    let mut members = parameters;
    members.push(("kty", kty.to_owned()));
    members.sort_unstable();
    let members: Vec<_> =
        members.iter().map(|(name, value)| format!(r#""{name}":"{value}""#)).collect();
    let json = format!("{{{}}}", members.join(","));
    URL_SAFE_NO_PAD.encode(digest(&SHA256, json.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thumbprint_equals_the_examples_of_the_rfcs() {
        // RFC 7638 §3.1, RFC 8037 §A.3.
        let n = "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6\
                 tSoc_BJECPebWKRXjBZCiFV4n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5\
                 v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5hajrn1n91CbOpbISD0\
                 8qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU\
                 8awapJzKnqDKgw";
        let x = "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo";
        let cases = [
            ("RSA", vec![("n", n), ("e", "AQAB")], "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs"),
            (
                "OKP",
                vec![("crv", "Ed25519"), ("x", x)],
                "kPrK_qmxVWaYVA9wwBF6Iuo3vVzz7TxHCTwXBygrS4k",
            ),
        ];
        for (kty, parameters, expected) in cases {
            let parameters = parameters.into_iter().map(|(name, value)| (name, value.to_owned()));
            assert_eq!(thumbprint((kty, parameters.collect())), expected, "{kty}");
        }
    }
}
