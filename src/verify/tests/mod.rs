//! Tests of `verify` that are too long for the file that they test, or that cover several files.

mod concurrency;
mod policy;
mod token_cache;
mod verifier;
