//! The HTTP side of the core: parsing and checking requests, responses, and the listener.

mod api_keys;
mod cdi_version;
mod connection_slots;
mod listener;
mod loopback;
mod mint_request;
mod path;
mod response;
mod routes;
#[cfg(test)]
mod tests;

pub(super) use api_keys::ApiKeys;
pub(super) use listener::BoundedListener;
pub(super) use path::BasePath;
pub(super) use routes::{CoreState, router};
