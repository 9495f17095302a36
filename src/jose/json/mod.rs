//! Parsing of the JSON in tokens, key sets, deny lists and mint requests.
//!
//! [`object`] and [`array`] are strict: no duplicate members, at most 32 levels, nothing after the
//! value.
//!
//! Parsing straight into a `serde_json::Value` would keep the last of two members with one name,
//! where another parser of the same token may keep the first (RFC 7515 §4, RFC 7519 §4).
//! [`members`] finds the members of an object without building values. `OrderedObject` reads an
//! object of a mint request leniently and keeps the order of its members.
//!
//! Every text from outside is checked for [reserved names](has_reserved_name) before serde_json
//! builds a value from it.

mod object;
#[cfg(feature = "embedded-core")]
mod ordered;
mod scan;

#[cfg(feature = "embedded-core")]
pub(crate) use object::has_reserved_name;
pub(crate) use object::{array, is_valid, object};
#[cfg(feature = "embedded-core")]
pub(crate) use ordered::OrderedObject;
pub(crate) use scan::{RawString, RawValue, members};
