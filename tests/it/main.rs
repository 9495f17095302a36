//! Behaviour across modules, as a user of the crate sees it: in process where that is enough, over
//! loopback sockets where HTTP itself matters.
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

mod architecture;
mod client;
mod debug;
mod edge;
mod failover;
#[cfg(unix)]
mod files;
#[cfg(unix)]
mod kill;
mod mint;
mod mint_responses;
mod observer;
mod outcome;
mod remote;
mod remote_limits;
mod renewal;
mod scripted;
mod server;
mod stacks;
mod support;
mod tokens;
mod tokens_claims;
mod transport;
