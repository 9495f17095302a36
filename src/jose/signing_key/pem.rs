//! Reads one private key in PEM (RFC 7468).

use super::error::SigningKeyError;
use super::private_key::PrivateKey;
use crate::jose::pem_block::{Block, NoLabel, blocks};

const PUBLIC: &str = "use the private key that it belongs to, without other blocks";
/// `ssh-keygen` writes an Ed25519 key only in the format of OpenSSH.
const OPENSSH: &str = "`ssh-keygen -p -N '' -m PKCS8 -f COPY_OF_FILE` converts an RSA or EC key; \
                       `openssl genpkey -algorithm ed25519` makes a new Ed25519 key";

/// Parses a private key in one of its DER forms.
type Reader = fn(&[u8]) -> Result<PrivateKey, &'static str>;

/// Reads the only key of the text: `PRIVATE KEY` (RFC 5958 §2), `RSA PRIVATE KEY` (RFC 8017 §A.1.2)
/// or `EC PRIVATE KEY` (RFC 5915 §4).
pub(super) fn read(text: &[u8]) -> Result<PrivateKey, SigningKeyError> {
    let mut found = None;
    for block in blocks(text) {
        let block = block.map_err(|NoLabel| SigningKeyError::NotPem)?;
        let Some(reader) = reader(&block)? else { continue };
        if found.replace((block, reader)).is_some() {
            return Err(SigningKeyError::SeveralKeys);
        }
    }
    let (block, reader) = found.ok_or(SigningKeyError::NotPem)?;
    let unusable = |reason| SigningKeyError::UnusableKey { reason };
    reader(&block.der().map_err(unusable)?).map_err(unusable)
}

/// The reader for a block with this label. `None` skips the block.
fn reader(block: &Block<'_>) -> Result<Option<Reader>, SigningKeyError> {
    let label = block.label();
    let remedy = match label {
        _ if label.ends_with("PRIVATE KEY") && block.is_encrypted() => {
            return Err(SigningKeyError::Encrypted);
        }
        "ENCRYPTED PRIVATE KEY" => return Err(SigningKeyError::Encrypted),
        "PRIVATE KEY" => return Ok(Some(PrivateKey::from_pkcs8)),
        "RSA PRIVATE KEY" => return Ok(Some(PrivateKey::from_pkcs1)),
        "EC PRIVATE KEY" => return Ok(Some(PrivateKey::from_sec1)),
        // `openssl ecparam -genkey` writes it before the key, which names its curve itself.
        "EC PARAMETERS" => return Ok(None),
        "OPENSSH PRIVATE KEY" => OPENSSH,
        "PUBLIC KEY" | "RSA PUBLIC KEY" | "SSH2 PUBLIC KEY" => PUBLIC,
        _ if label.contains("CERTIFICATE") => PUBLIC,
        _ => "use PRIVATE KEY, RSA PRIVATE KEY or EC PRIVATE KEY",
    };
    Err(SigningKeyError::PemBlock { label: label.to_owned(), remedy })
}
