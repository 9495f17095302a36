//! Faults of a key set endpoint: a scripted server against a real `RemoteJwks`.
//!
//! Each fault on the wire is a failed fetch and nothing else: the last good set stays in use;
//! without one requests get 503 with `Retry-After`.

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
