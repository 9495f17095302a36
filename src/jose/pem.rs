//! Reads public keys in PEM (RFC 7468): blocks between a BEGIN and an END line, with any text
//! around them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::certificate;
use super::jwk::Jwk;

const BEGIN: &str = "-----BEGIN ";
const DASHES: &str = "-----";

/// The longest label that is printed.
const MAX_LABEL_LEN: usize = 40;

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

enum Label {
    PublicKey,
    Certificate,
}

/// Whether the text holds the beginning of a block.
pub(crate) fn has_block(text: &[u8]) -> bool {
    text.windows(BEGIN.len()).any(|window| window == BEGIN.as_bytes())
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
    let blocks = blocks(&String::from_utf8_lossy(text), max_keys)?;
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

/// The label and the decoded body of each block. Line breaks are optional, because some
/// configuration formats replace them with spaces.
fn blocks(text: &str, max_keys: usize) -> Result<Vec<(Label, Vec<u8>)>, PemError> {
    let mut blocks = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(BEGIN) {
        let (name, after) = after.split_once(DASHES).ok_or(PemError::NoBlock)?;
        let label = Label::from_name(name)?;
        if blocks.len() == max_keys {
            return Err(PemError::TooManyKeys);
        }
        let unusable = |reason| PemError::UnusableKey { block: blocks.len() + 1, reason };
        let (body, after) = after
            .split_once(&format!("-----END {name}-----"))
            .ok_or_else(|| unusable("the END line is missing"))?;
        let body: String = body.split_ascii_whitespace().collect();
        let der = STANDARD.decode(body).map_err(|_| unusable("the block is not base64"))?;
        blocks.push((label, der));
        rest = after;
    }
    if blocks.is_empty() { Err(PemError::NoBlock) } else { Ok(blocks) }
}

impl Label {
    /// Reads the text between `BEGIN` and the dashes. After a damaged line that text may hold key
    /// material, so an error shows it only if it has the form of a label.
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
        let is_label_char =
            |byte: u8| byte.is_ascii_uppercase() || byte.is_ascii_digit() || b" .".contains(&byte);
        match name.len() <= MAX_LABEL_LEN && name.bytes().all(is_label_char) {
            true => Err(PemError::OtherBlock { label: name.to_owned(), remedy }),
            false => Err(PemError::NoBlock),
        }
    }
}
