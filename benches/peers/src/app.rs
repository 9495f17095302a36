//! A contestant as a type-erased service, to be called in this process or to be served.

use std::convert::Infallible;
use std::future::{Ready, ready};
use std::time::Duration;

use axum::extract::Request;
use axum::handler::{Handler, HandlerService};
use axum::http::StatusCode;
use axum::response::Response;
use axum_07::extract::Request as Request07;
use axum_07::handler::{Handler as Handler07, HandlerService as HandlerService07};
use axum_07::response::Response as Response07;
use tower::{Layer, Service};

use crate::authority::{Fixture, Result};
use crate::measure::{Drive, Driver, bearer};

pub struct App {
    pub driver: Box<dyn Drive>,
    pub routes: Routes,
}

pub enum Routes {
    Axum07(axum_07::Router),
    Axum08(axum::Router),
}

/// The handler that layers wrap.
type Bare = HandlerService<fn() -> Ready<&'static str>, ((),), ()>;
type Bare07 = HandlerService07<fn() -> Ready<&'static str>, ((),), ()>;

fn handler() -> Ready<&'static str> {
    ready("ok")
}

impl App {
    pub fn new<S>(make: impl Fn() -> S + 'static) -> Self
    where
        S: Service<Request, Response = Response, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        let routes = Routes::Axum08(axum::Router::new().route_service("/", make()));
        Self { driver: Box::new(Driver::new(make)), routes }
    }

    pub fn wrapping<S>(wrap: impl Fn(Bare) -> S + 'static) -> Self
    where
        S: Service<Request, Response = Response, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync
            + 'static,
    {
        Self::new(move || wrap(Handler::with_state(handler as fn() -> _, ())))
    }

    pub fn layered<L>(layer: L) -> Self
    where
        L: Layer<Bare> + 'static,
        L::Service: Service<Request, Response = Response, Error = Infallible, Future: Send>
            + Clone
            + Send
            + Sync,
    {
        Self::wrapping(move |bare| layer.layer(bare))
    }

    pub fn extracting<T: 'static, S: Clone + Send + Sync + 'static>(
        handler: impl Handler<T, S>,
        state: S,
    ) -> Self {
        Self::new(move || handler.clone().with_state(state.clone()))
    }

    pub fn layered_07<L>(layer: L) -> Self
    where
        L: Layer<Bare07> + 'static,
        L::Service: Service<Request07, Response = Response07, Error = Infallible, Future: Send>
            + Clone
            + Send,
    {
        let make = move || layer.layer(Handler07::with_state(handler as fn() -> _, ()));
        let routes = Routes::Axum07(axum_07::Router::new().route_service("/", make()));
        Self { driver: Box::new(Driver::new(make)), routes }
    }

    /// Waits until the known token is accepted: some contestants fetch their keys in the
    /// background.
    pub async fn ready(mut self, fixture: &Fixture) -> Result<Self> {
        for _ in 0..100 {
            if self.driver.status(bearer(&fixture.known)).await == StatusCode::OK {
                return Ok(self);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let status = self.driver.status(bearer(&fixture.known)).await;
        Err(format!("status {status} for a good token").into())
    }
}
