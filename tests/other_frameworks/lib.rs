//! The services that the docs' page `other_frameworks` shows, and the page's code as doctests.

mod actix_service;
mod jsonrpsee_service;

pub use actix_service::routes;
pub use jsonrpsee_service::serve;

/// The page.
#[cfg(doctest)]
#[doc = include_str!("../../src/docs/other_frameworks.md")]
struct OtherFrameworks;
