//! Versions of the core driver interface (CDI), which a request names in `cdi-version`.

use std::fmt;
use std::ops::RangeInclusive;

use axum::http::HeaderMap;

use super::response::Refusal;

/// The versions that core 11.4.7 supports, oldest first, as major and minor numbers.
const SUPPORTED: [(u8, RangeInclusive<u8>); 4] = [(2, 7..=21), (3, 0..=1), (4, 0..=0), (5, 0..=4)];

/// A supported version, as major and minor number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct CdiVersion(u8, u8);

impl CdiVersion {
    /// From this version on, a request may choose between the static and the dynamic key.
    pub(super) const CHOICE_OF_KEY: Self = Self(2, 21);
    /// From this version on, a path may name a tenant.
    pub(super) const TENANTS: Self = Self(3, 0);
    /// From this version on, some routes refuse tenants other than the public one.
    pub(super) const PUBLIC_TENANT_ONLY: Self = Self(5, 0);
    const NEWEST: Self = Self(5, 4);

    /// Every supported version, oldest first.
    pub(super) fn supported() -> impl Iterator<Item = Self> {
        SUPPORTED
            .into_iter()
            .flat_map(|(major, minors)| minors.map(move |minor| Self(major, minor)))
    }

    /// The version in the `cdi-version` header, or the newest if there is none.
    pub(super) fn from_headers(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get("cdi-version") else { return Ok(Self::NEWEST) };
        let text = value.to_str().map_err(|_| Refusal::VersionMalformed)?;
        // Only digits and dots pass, so the response may repeat the text.
        let is_number =
            |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
        if !text.split('.').all(is_number) {
            return Err(Refusal::VersionMalformed);
        }
        // Compares the text and not the numbers: a SuperTokens core refuses `5.3.0` and `05.3`.
        let supported = Self::supported().find(|version| version.to_string() == text);
        supported.ok_or_else(|| Refusal::VersionUnsupported(text.to_owned()))
    }
}

impl fmt::Display for CdiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn of(value: &[u8]) -> Result<CdiVersion, Refusal> {
        let mut headers = HeaderMap::new();
        headers.insert("cdi-version", HeaderValue::from_bytes(value).unwrap());
        CdiVersion::from_headers(&headers)
    }

    #[test]
    fn versions_are_compared_as_text() {
        let unsupported = |text: &str| Err(Refusal::VersionUnsupported(text.to_owned()));
        let cases: [(&str, Result<CdiVersion, Refusal>); 14] = [
            ("2.7", Ok(CdiVersion(2, 7))),
            ("2.21", Ok(CdiVersion(2, 21))),
            ("5.4", Ok(CdiVersion(5, 4))),
            ("2.6", unsupported("2.6")),
            ("2.22", unsupported("2.22")),
            ("5", unsupported("5")),
            ("5.3.0", unsupported("5.3.0")),
            ("05.3", unsupported("05.3")),
            ("99999999999.9", unsupported("99999999999.9")),
            ("", Err(Refusal::VersionMalformed)),
            ("5.", Err(Refusal::VersionMalformed)),
            ("v5.3", Err(Refusal::VersionMalformed)),
            ("5.3, 5.4", Err(Refusal::VersionMalformed)),
            ("+5.3", Err(Refusal::VersionMalformed)),
        ];
        for (text, expected) in cases {
            assert_eq!(of(text.as_bytes()), expected, "{text:?}");
        }
        assert_eq!(of(b"5.\xff"), Err(Refusal::VersionMalformed));
    }

    #[test]
    fn missing_header_means_the_newest_version() {
        assert_eq!(CdiVersion::from_headers(&HeaderMap::new()), Ok(CdiVersion(5, 4)));
        assert!(CdiVersion::supported().is_sorted());
        assert_eq!(CdiVersion::supported().count(), 23);
        assert_eq!(CdiVersion::supported().last(), Some(CdiVersion::NEWEST));
    }
}
