//! The gRPC service that the example `grpc` calls, and that the tests of tests/grpc call.

pub mod pb;
mod service;

pub use service::{BillingService, RefundsService};
