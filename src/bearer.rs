//! The `Authorization` header, both ways (RFC 6750 §2.1, RFC 9110 §11.6.2).

use http::header::{AUTHORIZATION, HeaderName, HeaderValue, InvalidHeaderValue};

use crate::rejection::RejectionReason;

const SCHEME: &[u8] = b"Bearer";

/// The request's only credential. `values` are all values of the header that carries it.
///
/// Rejects a request with two credentials. `HeaderMap::get` would return the first, while a proxy
/// may have verified the second.
pub(crate) fn credential<V: AsRef<[u8]>>(
    values: impl IntoIterator<Item = V>,
) -> Result<V, RejectionReason> {
    let mut values = values.into_iter();
    let credential = values.next().ok_or(RejectionReason::MissingCredentials)?;
    if values.next().is_some() {
        return Err(RejectionReason::MultipleCredentials);
    }
    if credential.as_ref().is_empty() {
        return Err(RejectionReason::MissingCredentials);
    }
    Ok(credential)
}

/// The token in a credential: the bytes that follow `Bearer`, in any letter case, and one or more
/// spaces. In a header other than `Authorization` the scheme may be missing, as in the headers of
/// identity-aware proxies. The token may be empty or malformed; [`b64token`] checks it.
pub(crate) fn token<'c>(
    credential: &'c [u8],
    header: &HeaderName,
) -> Result<&'c [u8], RejectionReason> {
    let token = match credential.split_at_checked(SCHEME.len()) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case(SCHEME) && !starts_with_tchar(rest) => {
            rest
        }
        _ if header != AUTHORIZATION && !has_scheme(credential) => return Ok(credential),
        _ if has_bearer_after_comma(credential) => {
            return Err(RejectionReason::MultipleCredentials);
        }
        _ => return Err(RejectionReason::UnsupportedScheme),
    };
    let spaces = token.iter().take_while(|byte| **byte == b' ').count();
    let token = &token[spaces..];
    if spaces == 0 {
        return Err(RejectionReason::MalformedCredentials);
    }
    Ok(token)
}

/// The token as text, if it is one b64token of at most `max_len` bytes.
pub(crate) fn b64token(token: &[u8], max_len: usize) -> Result<&str, RejectionReason> {
    if token.len() > max_len {
        return Err(RejectionReason::TokenTooLong);
    }
    match std::str::from_utf8(token) {
        Ok(token) if is_b64token(token.as_bytes()) => Ok(token),
        _ => Err(RejectionReason::MalformedCredentials),
    }
}

/// The header value `Bearer <token>`, marked sensitive.
pub(crate) fn write(token: &str) -> Result<HeaderValue, InvalidHeaderValue> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// RFC 6750 §2.1: `1*( ALPHA / DIGIT / "-" / "." / "_" / "~" / "+" / "/" ) *"="`.
fn is_b64token(token: &[u8]) -> bool {
    let padding = token.iter().rev().take_while(|byte| **byte == b'=').count();
    let body = &token[..token.len() - padding];
    // `fold` has no early exit, so it vectorizes.
    !body.is_empty() && body.iter().fold(true, |all, byte| all & is_b64token_char(*byte))
}

fn is_b64token_char(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b'+' | b'/')
}

/// Whether `rest` continues the name of the scheme: `BearerX` is another scheme. A tab or a comma
/// does not continue it.
fn starts_with_tchar(rest: &[u8]) -> bool {
    // The usual byte, a space, is compared first: `is_tchar` takes 15 comparisons to exclude it.
    rest.first().is_some_and(|byte| *byte != b' ' && is_tchar(byte))
}

/// Whether the credential begins with the name of a scheme and a space (RFC 9110 §11.4).
fn has_scheme(credential: &[u8]) -> bool {
    let space = credential.iter().position(|byte| *byte == b' ');
    space.is_some_and(|space| space > 0 && credential[..space].iter().all(is_tchar))
}

/// `tchar` of RFC 9110 §5.6.2.
fn is_tchar(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte)
}

/// Whether one of the parts after a comma is a Bearer credential: some proxies join the values of a
/// header with commas.
fn has_bearer_after_comma(credential: &[u8]) -> bool {
    credential.split(|byte| *byte == b',').skip(1).any(|part| {
        let part = part.trim_ascii_start();
        part.split_at_checked(SCHEME.len()).is_some_and(|(scheme, rest)| {
            scheme.eq_ignore_ascii_case(SCHEME) && rest.first().is_none_or(u8::is_ascii_whitespace)
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use RejectionReason as R;

    fn outcome(values: &[&[u8]]) -> Result<String, R> {
        outcome_in(&AUTHORIZATION, values)
    }

    fn outcome_in(header: &HeaderName, values: &[&[u8]]) -> Result<String, R> {
        let token = token(credential(values)?, header)?;
        b64token(token, 16).map(str::to_owned)
    }

    #[test]
    fn single_bearer_credential_is_read() {
        for value in ["Bearer abc", "bearer abc", "BEARER abc", "bEaReR   abc"] {
            assert_eq!(outcome(&[value.as_bytes()]), Ok("abc".to_owned()), "{value}");
        }
        assert_eq!(outcome(&[b"Bearer aZ0-._~+/=="]), Ok("aZ0-._~+/==".to_owned()));
        assert_eq!(outcome(&[b"Bearer 1234567890123456"]), Ok("1234567890123456".to_owned()));
    }

    #[test]
    fn each_invalid_credential_is_rejected_with_its_reason() {
        let cases: &[(&[&[u8]], R)] = &[
            (&[], R::MissingCredentials),
            (&[b""], R::MissingCredentials),
            (&[b"Basic dTpw"], R::UnsupportedScheme),
            (&[b"BearerX abc"], R::UnsupportedScheme),
            (&[b"Bear"], R::UnsupportedScheme),
            (&[b"Digest username=\"bearer\", realm=\"x\""], R::UnsupportedScheme),
            (&[b"Basic dTpw, Digest abc"], R::UnsupportedScheme),
            (&[b"Basic dTpw, BearerX abc"], R::UnsupportedScheme),
            (&[b"Basic dTpw, Bearer"], R::MultipleCredentials),
            (&[b"Bearer abc", b"Bearer abc"], R::MultipleCredentials),
            (&[b"Basic dTpw", b"Bearer abc"], R::MultipleCredentials),
            (&[b"Basic dTpw, Bearer abc"], R::MultipleCredentials),
            (&[b"Bearer"], R::MalformedCredentials),
            (&[b"Bearer "], R::MalformedCredentials),
            (&[b"Bearer\tabc"], R::MalformedCredentials),
            (&[b"Bearer \tabc"], R::MalformedCredentials),
            (&[b"Bearer,abc"], R::MalformedCredentials),
            (&[b"Bearer abc "], R::MalformedCredentials),
            (&[b"Bearer a b"], R::MalformedCredentials),
            (&[b"Bearer abc,Bearer d"], R::MalformedCredentials),
            (&[b"Bearer abc\xe9"], R::MalformedCredentials),
            (&[b"Bearer\xa0abc"], R::MalformedCredentials),
            (&[b"Bearer \"abc\""], R::MalformedCredentials),
            (&[b"Bearer =="], R::MalformedCredentials),
            (&[b"Bearer a=b"], R::MalformedCredentials),
            (&[b"Bearer 12345678901234567"], R::TokenTooLong),
            (&[b"Bearer 1234567890123456\xe9"], R::TokenTooLong),
        ];
        for (values, expected) in cases {
            assert_eq!(
                outcome(values),
                Err(*expected),
                "{:?}",
                values.iter().map(|v| v.escape_ascii().to_string())
            );
        }
    }

    #[test]
    fn scheme_may_be_missing_in_another_header_only() {
        /// The values, the outcome in another header and the reason in `Authorization`.
        type Case<'c> = (&'c [&'c [u8]], Result<&'c str, R>, R);
        let cases: &[Case<'_>] = &[
            (&[b"a.b.c"], Ok("a.b.c"), R::UnsupportedScheme),
            (&[b"aZ0-._~+/=="], Ok("aZ0-._~+/=="), R::UnsupportedScheme),
            (&[b"Bearer"], Err(R::MalformedCredentials), R::MalformedCredentials),
            (&[b"Bearer a b"], Err(R::MalformedCredentials), R::MalformedCredentials),
            (&[b"Bearer,a"], Err(R::MalformedCredentials), R::MalformedCredentials),
            (&[b"BearerX"], Ok("BearerX"), R::UnsupportedScheme),
            (&[b"BearerX a.b.c"], Err(R::UnsupportedScheme), R::UnsupportedScheme),
            (&[b"Basic dTpw"], Err(R::UnsupportedScheme), R::UnsupportedScheme),
            (&[b"Basic dTpw, Bearer a"], Err(R::MultipleCredentials), R::MultipleCredentials),
            (&[b"a.b.c,d.e.f"], Err(R::MalformedCredentials), R::UnsupportedScheme),
            (&[b"a.b.c, d.e.f"], Err(R::MalformedCredentials), R::UnsupportedScheme),
            (&[b"a.b.c, Bearer d"], Err(R::MalformedCredentials), R::MultipleCredentials),
            (&[b"\"a.b.c\""], Err(R::MalformedCredentials), R::UnsupportedScheme),
            (&[b" a.b.c"], Err(R::MalformedCredentials), R::UnsupportedScheme),
            (&[b"a.b.c\xe9"], Err(R::MalformedCredentials), R::UnsupportedScheme),
            (&[b"12345678901234567"], Err(R::TokenTooLong), R::UnsupportedScheme),
            (&[b"a", b"a"], Err(R::MultipleCredentials), R::MultipleCredentials),
            (&[b""], Err(R::MissingCredentials), R::MissingCredentials),
        ];
        let other = HeaderName::from_static("x-goog-iap-jwt-assertion");
        for (values, in_other, in_authorization) in cases {
            let name = values.iter().map(|v| v.escape_ascii().to_string()).collect::<Vec<_>>();
            let seen = outcome_in(&other, values);
            assert_eq!(seen.as_deref().map_err(|reason| *reason), *in_other, "{name:?}");
            assert_eq!(outcome(values), Err(*in_authorization), "{name:?}");
        }
    }

    #[test]
    fn written_credential_is_sensitive_and_reads_back() {
        let value = write("abc").unwrap();
        assert!(value.is_sensitive());
        assert_eq!(outcome(&[value.as_bytes()]), Ok("abc".to_owned()));
        assert!(write("a\nb").is_err());
    }
}
