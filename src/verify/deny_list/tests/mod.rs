//! Tests of deny lists.

#[cfg(feature = "testing")]
mod cached;
mod changes;
mod entry;
mod file;
mod index;
mod json;
mod log;
#[cfg(feature = "metrics")]
mod metrics;
#[cfg(feature = "testing")]
mod verifier;
