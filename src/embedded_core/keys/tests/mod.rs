//! Tests that are too long for the files that they test.

mod folder;
mod signing_keys;
mod store;
