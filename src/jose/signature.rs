//! What checks a key's signatures (RFC 7515 §5.2).

use aws_lc_rs::signature::{
    ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384,
    RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256, RSA_PSS_2048_8192_SHA384,
    RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
};
use jsonwebtoken::DecodingKey;
use jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER;

use super::algorithm::Algorithm;

/// The parameters that jsonwebtoken's provider uses.
const RSA: [(Algorithm, &RsaParameters); 6] = [
    (Algorithm::RS256, &RSA_PKCS1_2048_8192_SHA256),
    (Algorithm::RS384, &RSA_PKCS1_2048_8192_SHA384),
    (Algorithm::RS512, &RSA_PKCS1_2048_8192_SHA512),
    (Algorithm::PS256, &RSA_PSS_2048_8192_SHA256),
    (Algorithm::PS384, &RSA_PSS_2048_8192_SHA384),
    (Algorithm::PS512, &RSA_PSS_2048_8192_SHA512),
];

/// A key, ready to check signatures.
///
/// RSA keys are built once and then used by the calls that jsonwebtoken's provider makes: the
/// provider builds them for each check, which takes 2.3 of 16.4 µs at 2048 bits. For the curves
/// that would gain 2 % at most.
#[derive(Debug)]
pub(super) enum SignatureVerifier {
    /// One for each algorithm of the key: aws-lc-rs binds to an algorithm what it has built.
    Rsa(Vec<(Algorithm, ParsedPublicKey)>),
    Curve(jsonwebtoken::Algorithm, DecodingKey),
}

impl SignatureVerifier {
    /// Of an RSA key whose modulus and exponent, both big-endian, have been judged.
    pub(super) fn rsa(n: &[u8], e: &[u8], algorithms: &[Algorithm]) -> Result<Self, &'static str> {
        let numbers = RsaPublicKeyComponents { n, e };
        let bound = RSA.iter().filter(|(algorithm, _)| algorithms.contains(algorithm));
        let built = bound.map(|(algorithm, parameters)| {
            Some((*algorithm, numbers.to_parsed_public_key(parameters).ok()?))
        });
        built.collect::<Option<_>>().map(Self::Rsa).ok_or("the numbers are no RSA key")
    }

    /// Whether the signature is good. The caller has made sure that the algorithm fits the key: a
    /// curve has only one.
    pub(super) fn passes(&self, algorithm: Algorithm, message: &[u8], signature: &Vec<u8>) -> bool {
        match self {
            Self::Rsa(built) => built.iter().any(|(bound, key)| {
                *bound == algorithm && key.verify_sig(message, signature).is_ok()
            }),
            // Deliberately not `jsonwebtoken::crypto::verify`: it asks for the process-wide default
            // provider, which panics once another crate in the build enables jsonwebtoken's second
            // backend.
            Self::Curve(only, key) => (DEFAULT_PROVIDER.verifier_factory)(only, key)
                .is_ok_and(|verifier| verifier.verify(message, signature).is_ok()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::KeySize;
    use aws_lc_rs::signature::{
        KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256,
        RSA_PSS_SHA384, RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    };

    #[test]
    fn an_rsa_key_judges_as_jsonwebtokens_provider_does() {
        let algorithms: [(Algorithm, jsonwebtoken::Algorithm, &dyn RsaEncoding); 6] = [
            (Algorithm::RS256, jsonwebtoken::Algorithm::RS256, &RSA_PKCS1_SHA256),
            (Algorithm::RS384, jsonwebtoken::Algorithm::RS384, &RSA_PKCS1_SHA384),
            (Algorithm::RS512, jsonwebtoken::Algorithm::RS512, &RSA_PKCS1_SHA512),
            (Algorithm::PS256, jsonwebtoken::Algorithm::PS256, &RSA_PSS_SHA256),
            (Algorithm::PS384, jsonwebtoken::Algorithm::PS384, &RSA_PSS_SHA384),
            (Algorithm::PS512, jsonwebtoken::Algorithm::PS512, &RSA_PSS_SHA512),
        ];
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let RsaPublicKeyComponents { n, e } =
            RsaPublicKeyComponents::<Vec<u8>>::from(pair.public_key());
        let key =
            SignatureVerifier::rsa(&n, &e, &algorithms.map(|(algorithm, ..)| algorithm)).unwrap();
        let decoding = DecodingKey::from_rsa_raw_components(&n, &e);
        for (signed_by, _, encoding) in algorithms {
            let mut good = vec![0; 256];
            pair.sign(encoding, &SystemRandom::new(), b"message", &mut good).unwrap();
            let mut changed = good.clone();
            changed[255] ^= 1;
            // All numbers from the modulus on are out of range (RFC 8017 §5.2.2).
            let signatures = [
                vec![0; 256],
                vec![255; 256],
                n.clone(),
                good[1..].to_vec(),
                [&[0], &good[..]].concat(),
                changed,
                Vec::new(),
                good,
            ];
            for (algorithm, provided, _) in algorithms {
                let bound = SignatureVerifier::rsa(&n, &e, &[algorithm]).unwrap();
                let provider = (DEFAULT_PROVIDER.verifier_factory)(&provided, &decoding).unwrap();
                for (number, signature) in signatures.iter().enumerate() {
                    let passes = algorithm == signed_by && number == signatures.len() - 1;
                    let case = format!("{signed_by} as {algorithm}, signature {number}");
                    assert_eq!(key.passes(algorithm, b"message", signature), passes, "{case}");
                    assert_eq!(bound.passes(algorithm, b"message", signature), passes, "{case}");
                    assert_eq!(provider.verify(b"message", signature).is_ok(), passes, "{case}");
                    assert!(
                        !bound.passes(signed_by, b"message", signature) || signed_by == algorithm,
                        "{case}"
                    );
                    assert!(!key.passes(algorithm, b"massage", signature), "{case}");
                }
            }
        }
    }
}
