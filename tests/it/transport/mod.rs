//! What an endpoint can do to whoever fetches its key set: a scripted server against a real
//! `RemoteJwks`.
//!
//! Whatever goes wrong on the wire is a failed fetch and nothing else: the last good set is kept
//! and its keys admit as before; without one requests get 503 with `Retry-After`.

mod answers;
mod authority;
mod child;
mod client;
mod connections;
mod documents;
mod environment;
mod load;
mod outcome;
mod scripted;
mod tls;
