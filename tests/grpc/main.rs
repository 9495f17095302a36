//! Both layers with tonic's client and server, over sockets.
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions

mod grpc_web;
mod interceptor;
mod public_services;
mod request_token;
mod streaming;
mod support;
mod trailers;
mod unary;
