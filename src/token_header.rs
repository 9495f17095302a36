//! The header names that cannot carry a token.

use http::header::HeaderName;

use crate::error::ConfigError;

/// Headers whose value a proxy removes, or which say how the request is sent, routed or read.
const RESERVED: [&str; 24] = [
    // RFC 9110 §7.6.1: a proxy removes them, and HTTP/2 refuses them (RFC 9113 §8.2.2).
    "connection",
    "http2-settings",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    // RFC 9110 §11.7: they are for the next proxy.
    "proxy-authenticate",
    "proxy-authorization",
    // RFC 9110 §7.2, §7.6.2, §8.6, §10.1.1: routing, length and expectations.
    "content-length",
    "expect",
    "host",
    "max-forwards",
    // RFC 9110 §8: how to read the body.
    "content-encoding",
    "content-range",
    "content-type",
    // RFC 9110 §13.1, §14.2: conditions and ranges.
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
    // RFC 6265 §5.4: the token would replace all cookies, and `Bearer <jwt>` is none.
    "cookie",
];

/// Refuses a header that cannot carry a token.
pub(crate) fn check(name: &HeaderName) -> Result<(), ConfigError> {
    let name = name.as_str();
    // The gRPC protocol reserves this prefix for headers of its own, such as `grpc-timeout`.
    if RESERVED.contains(&name) || name.starts_with("grpc-") {
        return Err(ConfigError::Header { name: name.to_owned() });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_are_valid_header_names() {
        for name in RESERVED {
            // `from_static` panics at an upper case letter, which would never match.
            assert!(check(&HeaderName::from_static(name)).is_err(), "{name}");
        }
    }
}
