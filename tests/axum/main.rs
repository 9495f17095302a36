//! The crate's layers among others, over sockets. The docs' page `layer_order` says which layer
//! goes where; these tests prove each of its claims.
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

mod client;
mod cors;
mod limits;
#[path = "../it/manual_clock.rs"]
mod manual_clock;
mod nesting;
mod page;
mod protocols;
#[path = "../it/received.rs"]
mod received;
mod required_claims;
mod routing;
mod streams;
mod support;
mod timeouts;
mod trace;
