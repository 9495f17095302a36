//! Compiles the tables that the examples `chain`, `demo` and `grpc` print, for their unit tests. They are no unit tests
//! of the examples: cargo builds an example with tests as a test alone, and other tests run it as a program.
#![allow(clippy::unwrap_used, dead_code)] // each example uses a part of it

#[path = "../examples/support/hops.rs"]
mod hops;
#[path = "../examples/support/mod.rs"]
mod support;
#[path = "../examples/support/table.rs"]
mod table;
