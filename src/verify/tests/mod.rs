//! Tests of this room that are too long for the file that they test, or cross several files.

mod concurrency;
mod policy;
mod properties;
mod token_cache;
mod verifier;
