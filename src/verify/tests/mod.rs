//! Tests of `verify` that are too long for the file that they test, or that cover several files.

mod concurrency;
#[cfg(feature = "testing")]
mod expired;
#[cfg(feature = "testing")]
mod issuers;
mod policy;
#[cfg(feature = "testing")]
mod rules;
#[cfg(feature = "testing")]
mod token_cache;
#[cfg(feature = "testing")]
mod verifier;
