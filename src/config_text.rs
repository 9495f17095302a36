//! Values that users read from environment variables and files. Editors, `echo` and mounted secrets
//! add white space, a line break or a byte order mark around them.

const BOM: char = '\u{feff}';

/// The text without surrounding white space and byte order marks. Every api key, token and URL that
/// a user configures is trimmed with it.
pub(crate) fn trim(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || c == BOM)
}

/// The text without a byte order mark in front.
pub(crate) fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}
