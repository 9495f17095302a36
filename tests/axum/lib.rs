//! The stacks that the docs' page `layer_order` shows, and the page's code as doctests.

mod m1;
mod m2;

pub use m1::client;
pub use m2::app;

/// The page.
#[cfg(doctest)]
#[doc = include_str!("../../src/docs/layer_order.md")]
struct LayerOrder;
