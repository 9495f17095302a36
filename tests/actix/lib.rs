//! The service that the docs' page `other_frameworks` shows, and the page's code as doctests.

mod service;

pub use service::routes;

/// The page.
#[cfg(doctest)]
#[doc = include_str!("../../src/docs/other_frameworks.md")]
struct OtherFrameworks;
