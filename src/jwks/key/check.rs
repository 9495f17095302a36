//! What checks a key's signatures (RFC 7515 §5.2).

use aws_lc_rs::error::KeyRejected;
use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters,
    RsaPublicKeyComponents,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;

use crate::algorithm::Algorithm;

/// A key as it is used.
///
/// jsonwebtoken's provider would build an RSA key anew for each check: of 16.4 µs at 2048 bits that is 2.3. So these
/// are built once, when they are read, and then used by the same calls that the provider makes. For the curves that
/// would gain 2 % at most.
#[derive(Debug)]
pub(super) enum Check {
    /// One for each algorithm of the key: aws-lc-rs binds to an algorithm what it has built.
    Rsa(Vec<(Algorithm, ParsedPublicKey)>),
    Curve(jsonwebtoken::Algorithm, DecodingKey),
}

/// The parameters that jsonwebtoken's provider uses.
const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
];

impl Check {
    /// Of an RSA key whose modulus and exponent, both big-endian, have been judged.
    pub(super) fn rsa(n: &[u8], e: &[u8], algorithms: &[Algorithm]) -> Result<Self, &'static str> {
        let numbers = RsaPublicKeyComponents { n, e };
        let bound = RSA.iter().filter(|(algorithm, _)| algorithms.contains(algorithm));
        let built = bound.map(|(algorithm, parameters)| Ok((*algorithm, numbers.to_parsed_public_key(parameters)?)));
        built.collect::<Result<_, _>>().map(Self::Rsa).map_err(|_: KeyRejected| "the numbers are no RSA key")
    }

    /// Whether the signature is good under an algorithm that fits the key.
    pub(super) fn passes(&self, algorithm: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        match self {
            Self::Rsa(built) => {
                built.iter().any(|(bound, key)| *bound == algorithm && key.verify_sig(message, signature).is_ok())
            }
            // Deliberately not `jsonwebtoken::crypto::verify`: it asks for the process-wide default provider, which
            // panics once another crate in the build enables jsonwebtoken's second backend.
            Self::Curve(algorithm, key) => (DEFAULT_PROVIDER.verifier_factory)(algorithm, key)
                .is_ok_and(|verifier| verifier.verify(message, signature).is_ok()),
        }
    }
}
