//! Tests of this room that are too long for the file that they test.

mod jwk;
mod jwk_rsa;
