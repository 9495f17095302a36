//! JSON as a token, a key set or a request to mint may hold it.
//!
//! [`object`] is strict: no member twice, at most 32 levels, nothing after the object. Not
//! `serde_json::Value` alone: of two members with one name it keeps the last, and another library
//! on the path may keep the first (RFC 7515 §4, RFC 7519 §4). [`members`] finds the members of an
//! object without building values.
//!
//! Every text from outside is checked for [reserved names](has_reserved_name) before serde_json
//! builds a value from it.

mod object;
mod scan;

#[cfg(feature = "embedded-core")]
pub(crate) use object::{has_reserved_name, lenient_object};
pub(crate) use object::{is_valid, object};
pub(crate) use scan::{RawString, RawValue, members};
