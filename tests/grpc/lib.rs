//! The code of the docs' page `grpc` as doctests.

/// The page `grpc`.
#[cfg(doctest)]
#[doc = include_str!("../../src/docs/grpc.md")]
struct Grpc;
