//! Forges tokens from the parts of others.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use crate::support::Stop;

/// The `kid` in the token's header.
pub(crate) fn kid(jwt: &str) -> Result<String, Stop> {
    let header: Value = serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part(jwt, 0)?)?)?;
    header["kid"]
        .as_str()
        .map(str::to_owned)
        .ok_or_else(|| Stop::Failed("the token has no kid".to_owned()))
}

/// The token with the signature of another one.
pub(crate) fn with_signature_of(jwt: &str, other: &str) -> Result<String, Stop> {
    Ok(format!("{}.{}.{}", part(jwt, 0)?, part(jwt, 1)?, part(other, 2)?))
}

fn part(jwt: &str, index: usize) -> Result<&str, Stop> {
    jwt.split('.')
        .nth(index)
        .ok_or_else(|| Stop::Failed("the token is not a compact JWS".to_owned()))
}
