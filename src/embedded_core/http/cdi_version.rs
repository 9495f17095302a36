//! The CDI versions: which revision of a core's interface a request speaks.

use std::fmt;

use axum::http::HeaderMap;

use super::refusal::Refusal;

/// A version of the core driver interface that this core supports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct CdiVersion {
    major: u8,
    minor: u8,
}

impl CdiVersion {
    /// From here on a request may choose between the static and the dynamic keys.
    pub(crate) const CHOICE_OF_KEY: Self = Self::new(2, 21);
    /// From here on a path may name a tenant.
    pub(crate) const TENANTS: Self = Self::new(3, 0);
    /// From here on what belongs to the app is refused to every tenant but the public one.
    pub(crate) const PUBLIC_TENANT_ONLY: Self = Self::new(5, 0);
    const NEWEST: Self = Self::new(5, 4);

    /// Every supported version, oldest first: those of core 11.4.7.
    pub(crate) const SUPPORTED: [Self; 23] = [
        Self::new(2, 7),
        Self::new(2, 8),
        Self::new(2, 9),
        Self::new(2, 10),
        Self::new(2, 11),
        Self::new(2, 12),
        Self::new(2, 13),
        Self::new(2, 14),
        Self::new(2, 15),
        Self::new(2, 16),
        Self::new(2, 17),
        Self::new(2, 18),
        Self::new(2, 19),
        Self::new(2, 20),
        Self::new(2, 21),
        Self::new(3, 0),
        Self::new(3, 1),
        Self::new(4, 0),
        Self::new(5, 0),
        Self::new(5, 1),
        Self::new(5, 2),
        Self::new(5, 3),
        Self::NEWEST,
    ];

    const fn new(major: u8, minor: u8) -> Self {
        Self { major, minor }
    }

    /// The version that a request asks for in its `cdi-version` header; without one, the newest.
    pub(crate) fn from_headers(headers: &HeaderMap) -> Result<Self, Refusal> {
        let Some(value) = headers.get("cdi-version") else { return Ok(Self::NEWEST) };
        let text = value.to_str().map_err(|_| Refusal::VersionMalformed)?;
        // Only digits and dots pass, so the text may be repeated in the answer.
        if !text
            .split('.')
            .all(|part| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return Err(Refusal::VersionMalformed);
        }
        // By its text and not by its value: to a core, `5.3.0` and `05.3` are other versions than
        // `5.3`.
        let supported = Self::SUPPORTED.into_iter().find(|version| version.to_string() == text);
        supported.ok_or_else(|| Refusal::VersionUnsupported(text.to_owned()))
    }
}

impl fmt::Display for CdiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
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
    fn versions_are_read_by_their_text() {
        let unsupported = |text: &str| Err(Refusal::VersionUnsupported(text.to_owned()));
        let cases: [(&str, Result<CdiVersion, Refusal>); 14] = [
            ("2.7", Ok(CdiVersion::new(2, 7))),
            ("2.21", Ok(CdiVersion::new(2, 21))),
            ("5.4", Ok(CdiVersion::new(5, 4))),
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
    fn without_the_header_the_newest_is_spoken() {
        assert_eq!(CdiVersion::from_headers(&HeaderMap::new()), Ok(CdiVersion::new(5, 4)));
        assert!(CdiVersion::SUPPORTED.is_sorted());
    }
}
