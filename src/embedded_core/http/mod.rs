//! The routes of the core over HTTP: what a request asks for, and how it is answered.

mod api_keys;
mod cdi_version;
mod connection;
mod connection_slots;
mod listener;
mod loopback;
mod mint_request;
mod path;
mod refusal;
mod response;
mod routes;
mod state;

pub(super) use api_keys::ApiKeys;
pub(super) use listener::BoundedListener;
pub(super) use path::BasePath;
pub(super) use routes::router;
pub(super) use state::CoreState;
