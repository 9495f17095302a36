//! A closure as a middleware of reqwest-middleware. Shared with `tests/allocations_renewal.rs`.

use std::pin::Pin;

use http::Extensions;
use reqwest::{Request, Response};
use reqwest_middleware::{Next, Result};

pub(crate) type BoxFuture<'a> = Pin<Box<dyn Future<Output = Result<Response>> + Send + 'a>>;

/// Gives the closure the signature that `Middleware` requires.
pub(crate) fn middleware<F>(handle: F) -> F
where
    F: for<'a> Fn(Request, &'a mut Extensions, Next<'a>) -> BoxFuture<'a>,
{
    handle
}
