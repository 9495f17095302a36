//! A `RemoteJwks` against a scripted JWKS endpoint that misbehaves.
//!
//! Each fault only fails the fetch: the last key set stays in use, and without one the layer
//! responds with 503 and `Retry-After`.

mod bearer_token;
mod caching;
mod child;
mod client;
mod connections;
mod discovery;
mod documents;
mod environment;
mod load;
mod minting;
mod outcome;
mod responses;
pub(crate) mod scripted;
pub(crate) mod tls;
