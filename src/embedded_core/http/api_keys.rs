//! The configured api keys, and the headers in which a request presents one.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use axum::http::{HeaderMap, header};

use crate::config_text;
use crate::embedded_core::error::BuildError;

const BEARER: &[u8] = b"Bearer ";

/// The configured api keys. Without any, every request is admitted.
#[derive(Clone, Default)]
pub(crate) struct ApiKeys(Vec<String>);

impl ApiKeys {
    pub(crate) fn push(&mut self, key: &str) {
        self.0.push(config_text::trim(key).to_owned());
    }

    /// Fails if a header cannot carry one of the keys.
    pub(crate) fn checked(self) -> Result<Self, BuildError> {
        let usable =
            |key: &String| !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic());
        if self.0.iter().all(usable) { Ok(self) } else { Err(BuildError::UnusableApiKey) }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a request with these headers is admitted.
    pub(super) fn admit(&self, headers: &HeaderMap) -> bool {
        // Compares every key, even after a match, so that the duration reveals only their lengths.
        let is_configured = |presented| {
            self.0.iter().fold(false, |admitted, key| {
                verify_slices_are_equal(key.as_bytes(), presented).is_ok() | admitted
            })
        };
        self.is_empty() || presented(headers).is_some_and(is_configured)
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ApiKeys").field("count", &self.0.len()).finish_non_exhaustive()
    }
}

/// The key that a request presents: its `api-key` header or, only if that is absent,
/// `Authorization`, with or without the scheme `Bearer`.
fn presented(headers: &HeaderMap) -> Option<&[u8]> {
    if let Some(value) = headers.get("api-key") {
        return Some(value.as_bytes().trim_ascii());
    }
    let value = headers.get(header::AUTHORIZATION)?.as_bytes().trim_ascii();
    match value.split_at_checked(BEARER.len()) {
        Some((scheme, key)) if scheme.eq_ignore_ascii_case(BEARER) => Some(key.trim_ascii()),
        _ => Some(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn key_is_read_from_api_key_or_authorization() {
        let keys = ApiKeys(vec!["first".to_owned(), "second".to_owned()]).checked().unwrap();
        let cases: [(&[(&str, &str)], bool); 15] = [
            (&[("api-key", "first")], true),
            (&[("api-key", "second")], true),
            (&[("api-key", "  first ")], true),
            (&[("authorization", "Bearer first")], true),
            (&[("authorization", "bearer  second")], true),
            (&[("authorization", "second")], true),
            (&[], false),
            (&[("api-key", "")], false),
            (&[("api-key", "FIRST")], false),
            (&[("api-key", "firs")], false),
            (&[("api-key", "first,second")], false),
            (&[("api-key", "Bearer first")], false),
            (&[("authorization", "Basic first")], false),
            (&[("authorization", "Bearer")], false),
            (&[("api-key", "wrong"), ("authorization", "Bearer first")], false),
        ];
        for (pairs, expected) in cases {
            assert_eq!(keys.admit(&headers(pairs)), expected, "{pairs:?}");
        }
    }

    #[test]
    fn without_keys_every_request_is_admitted() {
        let keys = ApiKeys::default();
        assert!(keys.admit(&headers(&[])));
        assert!(keys.admit(&headers(&[("api-key", "whatever")])));
    }

    #[test]
    fn keys_that_no_header_can_carry_are_refused() {
        for key in ["", " ", "with space", "with\nnewline", "umläut"] {
            let refused = ApiKeys(vec!["good".to_owned(), key.to_owned()]).checked();
            assert_eq!(refused.err(), Some(BuildError::UnusableApiKey), "{key:?}");
        }
    }

    #[test]
    fn api_keys_never_appear_in_debug() {
        let keys = ApiKeys(vec!["secret-one".to_owned()]).checked().unwrap();
        assert_eq!(format!("{keys:?}"), "ApiKeys { count: 1, .. }");
    }
}
