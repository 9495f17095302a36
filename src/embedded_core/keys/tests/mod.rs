//! Tests of this room that are too long for the file that they test.

mod folder;
mod signing_keys;
mod store;
