//! Integration tests through the public API: in process where possible, over loopback sockets where
//! HTTP behaviour matters.
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

mod architecture;
mod authenticate;
mod by_origin;
mod cache_file;
mod callers;
mod client;
mod client_credentials;
mod client_credentials_calls;
mod client_runtimes;
mod debug;
mod deny_list;
mod edge;
#[cfg(unix)]
mod examples;
mod failover;
#[cfg(unix)]
mod files;
mod guides;
mod inputs;
mod issuers;
mod key_file;
#[cfg(unix)]
mod kill;
mod layer_order;
mod local_issuer;
mod manual_clock;
mod matrix;
mod middleware_fn;
mod mint;
mod mint_responses;
mod mint_retries;
mod observe;
mod observer;
mod optional;
mod origins;
mod outcome;
mod pem;
mod properties;
mod readme;
mod received;
mod records;
mod redirects;
mod refusal_response;
mod refusals;
mod remote;
mod remote_limits;
mod renewal;
mod request_token;
mod reqwest_middleware;
mod retry_once;
mod scripted;
mod server;
mod several_cores;
mod span_fields;
mod stacks;
mod support;
mod testing;
mod token_header;
mod tokens;
mod tokens_claims;
mod transport;
mod verify_with;
