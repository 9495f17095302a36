//! What holds across modules, seen from outside the crate.
#![allow(clippy::unwrap_used)] // Everything here is a test or stands in for something that a test talks to.

mod transport;
