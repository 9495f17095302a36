//! Where verification keys come from: fixed ones, or a JWKS endpoint behind a cache that states its bounds.
//!
//! A key set is a list of public keys (RFC 7517). Each entry is read alone: one that is private or symmetric, not for
//! signatures, too small, malformed or of an unknown type is skipped with a logged reason, and two different keys under
//! one id are both left out.

#[cfg(feature = "reqwest")]
mod builder;
mod fixed;
mod key;
#[cfg(feature = "reqwest")]
mod refresh;
#[cfg(feature = "reqwest")]
mod remote;
mod roca;
mod set;
mod source;
mod spki;
#[cfg(feature = "reqwest")]
mod waiter;

#[cfg(feature = "reqwest")]
pub use builder::RemoteJwksBuilder;
pub use fixed::FixedJwks;
pub(crate) use key::Key;
#[cfg(feature = "reqwest")]
pub use remote::{JwksHealth, RemoteJwks};
pub use source::KeySource;
pub(crate) use source::{Lookup, Ticket};
