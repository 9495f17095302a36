//! Tests that are too long for the files that they test.

mod key_file;
mod local;
