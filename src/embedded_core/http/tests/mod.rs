//! Tests that are too long for the files that they test.

mod routes;
