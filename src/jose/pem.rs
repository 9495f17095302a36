//! Reads public keys in PEM (RFC 7468).

use zeroize::Zeroizing;

use super::certificate;
use super::jwk::Jwk;
use super::pem_block::{NoLabel, blocks};

/// The reason for which certificates of different keys are unusable.
const CHAIN: &str =
    "another certificate of the text has a different key, as in a chain; keep only the signer's";

/// Why a text is not a list of public keys in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PemError {
    /// The text holds no block.
    NoBlock,
    /// The text holds a block of another type. `remedy` says what to do.
    OtherBlock { label: String, remedy: &'static str },
    /// More blocks than allowed.
    TooManyKeys,
    /// The block with this number, from 1, holds no usable key.
    UnusableKey { block: usize, reason: &'static str },
}

/// The label and the decoded body of a block.
type Decoded = (Label, Zeroizing<Vec<u8>>);

enum Label {
    PublicKey,
    Certificate,
}

/// Reads the key of each block, of which there may be `max_keys`: `PUBLIC KEY` (RFC 7468 §13),
/// `RSA PUBLIC KEY` (RFC 8017 §A.1.1) or `CERTIFICATE` (RFC 7468 §5). All keys get this `kid`, or
/// none.
///
/// A block of another type fails the whole text, since a private key beside a public one is a
/// mistake that must not go unnoticed. Its body is neither decoded nor printed.
///
/// Certificates of different keys fail it too: the key of an authority must not verify tokens only
/// because a file holds the whole chain. Their names do not tell whether they are a chain: one name
/// has several encodings (RFC 5280 §7.1), and the certificate between two others may be missing.
pub(crate) fn public_keys(
    text: &[u8],
    kid: Option<&str>,
    max_keys: usize,
) -> Result<Vec<Jwk>, PemError> {
    let blocks = decode(text, max_keys)?;
    let mut keys = Vec::with_capacity(blocks.len());
    let mut certified = None;
    for (index, (label, der)) in blocks.iter().enumerate() {
        let unusable = |reason| PemError::UnusableKey { block: index + 1, reason };
        let spki = match label {
            Label::PublicKey => der,
            Label::Certificate => {
                let spki =
                    certificate::public_key(der).ok_or_else(|| unusable("not a certificate"))?;
                if *certified.get_or_insert(spki) != spki {
                    return Err(unusable(CHAIN));
                }
                spki
            }
        };
        keys.push(Jwk::from_spki(spki, kid).map_err(unusable)?);
    }
    Ok(keys)
}

fn decode(text: &[u8], max_keys: usize) -> Result<Vec<Decoded>, PemError> {
    let mut decoded = Vec::new();
    for block in blocks(text) {
        let block = block.map_err(|NoLabel| PemError::NoBlock)?;
        let label = Label::from_name(block.label())?;
        if decoded.len() == max_keys {
            return Err(PemError::TooManyKeys);
        }
        let unusable = |reason| PemError::UnusableKey { block: decoded.len() + 1, reason };
        decoded.push((label, block.der().map_err(unusable)?));
    }
    if decoded.is_empty() { Err(PemError::NoBlock) } else { Ok(decoded) }
}

impl Label {
    fn from_name(name: &str) -> Result<Self, PemError> {
        let remedy = match name {
            "PUBLIC KEY" | "RSA PUBLIC KEY" => return Ok(Self::PublicKey),
            "CERTIFICATE" | "X509 CERTIFICATE" | "X.509 CERTIFICATE" => {
                return Ok(Self::Certificate);
            }
            "CERTIFICATE REQUEST" | "NEW CERTIFICATE REQUEST" => {
                "`openssl req -in FILE -noout -pubkey` prints the public key"
            }
            "TRUSTED CERTIFICATE" => "`openssl x509 -in FILE -noout -pubkey` prints the public key",
            "OPENSSH PRIVATE KEY" => "`ssh-keygen -e -m PKCS8 -f FILE` prints the public key",
            _ if name.ends_with("PRIVATE KEY") => {
                "`openssl pkey -in FILE -pubout` prints the public key"
            }
            _ => "use PUBLIC KEY, RSA PUBLIC KEY or CERTIFICATE",
        };
        Err(PemError::OtherBlock { label: name.to_owned(), remedy })
    }
}
