//! The clients that the docs' page `other_clients` shows, and the page's code as doctests.
#![allow(clippy::must_use_candidate)] // the page leaves the attribute out

extern crate self as billing; // as the page imports it

pub mod apis;
/// openapi-generator with `supportMiddleware=true`.
pub mod with_middleware;
/// openapi-generator until 7.19, with `supportMiddleware=true`.
pub mod with_older_reqwest;
/// progenitor.
#[allow(missing_docs)] // of the generated code
pub mod with_progenitor;
/// reqwest.
pub mod with_reqwest;
/// ureq.
pub mod with_ureq;

/// The page.
#[cfg(doctest)]
#[doc = include_str!("../../src/docs/other_clients.md")]
struct OtherClients;
