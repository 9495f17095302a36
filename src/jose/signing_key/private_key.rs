//! The key pair of a signing key: its types, its DER forms, and its signatures.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::error::{KeyRejected, Unspecified};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::{self, KeySize};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
    KeyPair, RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
    RSA_PSS_SHA512, RsaEncoding,
};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use crate::jose::algorithm::Algorithm;
use crate::jose::der::{Der, INTEGER, OBJECT_IDENTIFIER, OCTET_STRING, SEQUENCE};

/// Object identifiers in DER: rsaEncryption (RFC 8017 §A.1), id-ecPublicKey and secp256r1 and
/// secp384r1 (RFC 5480 §2.1.1), id-Ed25519 (RFC 8410 §3).
const RSA: &[u8] = b"\x2a\x86\x48\x86\xf7\x0d\x01\x01\x01";
const EC: &[u8] = b"\x2a\x86\x48\xce\x3d\x02\x01";
const P256: &[u8] = b"\x2a\x86\x48\xce\x3d\x03\x01\x07";
const P384: &[u8] = b"\x2b\x81\x04\x00\x22";
const ED25519: &[u8] = b"\x2b\x65\x70";

/// The tag of `parameters` in an ECPrivateKey (RFC 5915 §3).
const EC_PARAMETERS: u8 = 0xa0;

const DAMAGED: &str = "its DER is damaged, or not in the form that its label names";
const UNNAMED_CURVE: &str = "it does not name its curve; `openssl ec -in FILE -param_enc \
                             named_curve` prints a key that does";
pub(super) const UNKNOWN_CURVE: &str = "its curve is not supported; use P-256, P-384 or Ed25519";
pub(super) const UNKNOWN_TYPE: &str =
    "its type is not supported; use an RSA, P-256, P-384 or Ed25519 key";

/// A parsed key pair. aws-lc zeroes its memory on drop.
pub(super) enum PrivateKey {
    Rsa(Box<rsa::KeyPair>),
    P256(Box<EcdsaKeyPair>),
    P384(Box<EcdsaKeyPair>),
    Ed25519(Box<Ed25519KeyPair>),
}

impl PrivateKey {
    /// A new key for this algorithm. RSA keys have 2048 bits.
    pub(super) fn generate(algorithm: Algorithm) -> Result<Self, Unspecified> {
        Ok(match algorithm {
            Algorithm::ES256 => {
                Self::P256(Box::new(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING)?))
            }
            Algorithm::ES384 => {
                Self::P384(Box::new(EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING)?))
            }
            Algorithm::EdDSA => Self::Ed25519(Box::new(Ed25519KeyPair::generate()?)),
            _ => Self::Rsa(Box::new(rsa::KeyPair::generate(KeySize::Rsa2048)?)),
        })
    }

    /// Reads a PrivateKeyInfo (RFC 5208 §5) or OneAsymmetricKey (RFC 5958 §2). The error says what
    /// is wrong with the key.
    pub(super) fn from_pkcs8(der: &[u8]) -> Result<Self, &'static str> {
        let (key_type, curve) = pkcs8_type(der).ok_or(DAMAGED)?;
        match (key_type, curve) {
            (RSA, _) => Self::rsa(rsa::KeyPair::from_pkcs8(der), DAMAGED),
            (EC, Some(P256)) => {
                ec(Self::P256, EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, der))
            }
            (EC, Some(P384)) => {
                ec(Self::P384, EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, der))
            }
            (EC, Some(_)) => Err(UNKNOWN_CURVE),
            (EC, None) => Err(UNNAMED_CURVE),
            (ED25519, _) => {
                let pair = Ed25519KeyPair::from_pkcs8(der).map_err(|_| DAMAGED)?;
                Ok(Self::Ed25519(Box::new(pair)))
            }
            _ => Err(UNKNOWN_TYPE),
        }
    }

    /// Reads an RSAPrivateKey (RFC 8017 §A.1.2).
    pub(super) fn from_pkcs1(der: &[u8]) -> Result<Self, &'static str> {
        Der::of_sequence(der).ok_or(DAMAGED)?;
        Self::rsa(rsa::KeyPair::from_der(der), DAMAGED)
    }

    /// Reads an ECPrivateKey (RFC 5915 §3).
    pub(super) fn from_sec1(der: &[u8]) -> Result<Self, &'static str> {
        match sec1_curve(der).ok_or(DAMAGED)? {
            Some(P256) => ec(
                Self::P256,
                EcdsaKeyPair::from_private_key_der(&ECDSA_P256_SHA256_FIXED_SIGNING, der),
            ),
            Some(P384) => ec(
                Self::P384,
                EcdsaKeyPair::from_private_key_der(&ECDSA_P384_SHA384_FIXED_SIGNING, der),
            ),
            Some(_) => Err(UNKNOWN_CURVE),
            None => Err(UNNAMED_CURVE),
        }
    }

    /// Wraps a parsed RSA key. `other_reason` describes a failure that is not about its size.
    pub(super) fn rsa(
        parsed: Result<rsa::KeyPair, KeyRejected>,
        other_reason: &'static str,
    ) -> Result<Self, &'static str> {
        match parsed {
            Ok(pair) => Ok(Self::Rsa(Box::new(pair))),
            // The reason of a `KeyRejected` is only in its text.
            Err(err) if ["TooSmall", "TooLarge"].contains(&err.to_string().as_str()) => {
                Err("the modulus does not have 2048 to 8192 bits")
            }
            Err(_) => Err(other_reason),
        }
    }

    /// The private key as a PrivateKeyInfo (RFC 5208 §5).
    #[cfg_attr(not(feature = "embedded-core"), allow(dead_code))] // no other key is stored
    pub(super) fn to_pkcs8(&self) -> Result<Zeroizing<Vec<u8>>, Unspecified> {
        let copy = |der: &[u8]| Zeroizing::new(der.to_vec());
        Ok(match self {
            Self::Rsa(pair) => copy(pair.as_der()?.as_ref()),
            Self::P256(pair) | Self::P384(pair) => copy(pair.to_pkcs8v1()?.as_ref()),
            Self::Ed25519(pair) => copy(pair.to_pkcs8v1()?.as_ref()),
        })
    }

    /// What an error calls the key.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Rsa(_) => "an RSA key",
            Self::P256(_) => "a P-256 key",
            Self::P384(_) => "a P-384 key",
            Self::Ed25519(_) => "an Ed25519 key",
        }
    }

    /// The algorithm of the key's signatures unless another one is chosen.
    pub(super) fn default_algorithm(&self) -> Algorithm {
        match self {
            Self::Rsa(_) => Algorithm::RS256,
            Self::P256(_) => Algorithm::ES256,
            Self::P384(_) => Algorithm::ES384,
            Self::Ed25519(_) => Algorithm::EdDSA,
        }
    }

    /// Whether the key can sign with this algorithm.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::Rsa(_) => rsa_encoding(algorithm).is_some(),
            _ => algorithm == self.default_algorithm(),
        }
    }

    /// The `kty` and the parameters of the public key (RFC 7518 §6, RFC 8037 §2).
    pub(super) fn public_parameters(&self) -> (&'static str, Vec<(&'static str, String)>) {
        let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
        let ec = |crv: &str, pair: &EcdsaKeyPair| {
            // An uncompressed point: a byte 4, then both coordinates (SEC 1 §2.3.3).
            let point = pair.public_key().as_ref();
            let (x, y) = point[1..].split_at(point.len() / 2);
            ("EC", vec![("crv", crv.to_owned()), ("x", text(x)), ("y", text(y))])
        };
        match self {
            Self::Rsa(pair) => {
                let (n, e) = (pair.public_key().modulus(), pair.public_key().exponent());
                let n = text(n.big_endian_without_leading_zero());
                ("RSA", vec![("n", n), ("e", text(e.big_endian_without_leading_zero()))])
            }
            Self::P256(pair) => ec("P-256", pair),
            Self::P384(pair) => ec("P-384", pair),
            Self::Ed25519(pair) => {
                let x = text(pair.public_key().as_ref());
                ("OKP", vec![("crv", "Ed25519".to_owned()), ("x", x)])
            }
        }
    }

    /// Signs with an algorithm that [fits](Self::fits) the key. The signature has the form of a JWS
    /// (RFC 7518 §3.3 to §3.5, RFC 8037 §3.1).
    pub(super) fn sign(
        &self,
        algorithm: Algorithm,
        message: &[u8],
    ) -> Result<Vec<u8>, Unspecified> {
        match self {
            Self::Rsa(pair) => {
                let encoding = rsa_encoding(algorithm).ok_or(Unspecified)?;
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(encoding, &SystemRandom::new(), message, &mut signature)?;
                Ok(signature)
            }
            Self::P256(pair) | Self::P384(pair) => {
                Ok(pair.sign(&SystemRandom::new(), message)?.as_ref().to_vec())
            }
            Self::Ed25519(pair) => Ok(pair.try_sign(message)?.as_ref().to_vec()),
        }
    }
}

fn ec(
    variant: fn(Box<EcdsaKeyPair>) -> PrivateKey,
    parsed: Result<EcdsaKeyPair, KeyRejected>,
) -> Result<PrivateKey, &'static str> {
    parsed.map(|pair| variant(Box::new(pair))).map_err(|_| DAMAGED)
}

fn rsa_encoding(algorithm: Algorithm) -> Option<&'static dyn RsaEncoding> {
    Some(match algorithm {
        Algorithm::RS256 => &RSA_PKCS1_SHA256,
        Algorithm::RS384 => &RSA_PKCS1_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_SHA512,
        Algorithm::PS256 => &RSA_PSS_SHA256,
        Algorithm::PS384 => &RSA_PSS_SHA384,
        Algorithm::PS512 => &RSA_PSS_SHA512,
        Algorithm::ES256 | Algorithm::ES384 | Algorithm::EdDSA => return None,
    })
}

/// The identifiers of the key type and, for an EC key, of the curve.
fn pkcs8_type(der: &[u8]) -> Option<(&[u8], Option<&[u8]>)> {
    let mut info = Der::of_sequence(der)?;
    info.take(INTEGER)?; // version
    let mut algorithm = Der(info.take(SEQUENCE)?.content);
    let key_type = algorithm.take(OBJECT_IDENTIFIER)?.content;
    Some((key_type, algorithm.take(OBJECT_IDENTIFIER).map(|curve| curve.content)))
}

/// The identifier of the curve, if the key names one.
fn sec1_curve(der: &[u8]) -> Option<Option<&[u8]>> {
    let mut key = Der::of_sequence(der)?;
    key.take(INTEGER)?; // version
    key.take(OCTET_STRING)?; // privateKey
    let parameters = key.take(EC_PARAMETERS).map_or(&[][..], |parameters| parameters.content);
    Some(Der(parameters).take(OBJECT_IDENTIFIER).map(|curve| curve.content))
}
