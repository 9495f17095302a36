//! The routes of the core over HTTP: what a request asks for, and how it is answered.

mod api_keys;
mod cdi_version;
mod connection_slots;
mod listener;
mod loopback;
mod mint_request;
mod path;
mod response;
mod routes;

pub(super) use api_keys::ApiKeys;
pub(super) use listener::BoundedListener;
pub(super) use path::BasePath;
pub(super) use routes::{CoreState, router};
