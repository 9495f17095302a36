//! Values that users read from environment variables and files. Editors, `echo` and mounted secrets
//! add white space, a line break or a byte order mark around them.

/// The text without a byte order mark in front.
pub(crate) fn without_bom(text: &[u8]) -> &[u8] {
    text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text)
}
