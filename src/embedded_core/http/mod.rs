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

pub(crate) use api_keys::ApiKeys;
#[cfg(test)]
pub(crate) use cdi_version::CdiVersion;
pub(crate) use connection_slots::ConnectionSlots;
pub(crate) use listener::BoundedListener;
pub(crate) use mint_request::MintRequest;
pub(crate) use path::BasePath;
pub(crate) use response::Refusal;
pub(crate) use routes::respond;
