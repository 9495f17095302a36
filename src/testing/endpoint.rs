//! The JWKS endpoint of a [`TestAuthority`](crate::testing::TestAuthority), which a test controls.

use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::sync::watch;
use tokio::time::timeout;

use super::keys::Keys;

pub(super) const PATH: &str = "/.well-known/jwks.json";

/// How long a test waits for an event before it panics.
const EVENT_TIMEOUT: Duration = Duration::from_secs(20);

/// What the endpoint does with each fetch.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    /// Responds with the listed keys.
    Keys,
    /// Responds with this text in their place.
    Text(String),
    Status(StatusCode),
    /// Holds the fetch until the answer changes.
    Hang,
}

/// The test's side of the endpoint. When it is dropped, fetches that are held get a response.
#[derive(Debug)]
pub(super) struct Endpoint {
    answer: watch::Sender<Answer>,
    fetches: watch::Receiver<usize>,
}

#[derive(Clone)]
struct Shared {
    keys: Keys,
    answer: watch::Receiver<Answer>,
    fetches: watch::Sender<usize>,
}

impl Endpoint {
    /// The endpoint, and its route.
    pub(super) fn new(keys: Keys) -> (Self, Router) {
        let (answer, answers) = watch::channel(Answer::Keys);
        let (fetches, counted) = watch::channel(0);
        let shared = Shared { keys, answer: answers, fetches };
        let router = Router::new().route(PATH, get(respond)).with_state(shared);
        (Self { answer, fetches: counted }, router)
    }

    pub(super) fn answer(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    pub(super) fn fetches(&self) -> usize {
        *self.fetches.borrow()
    }

    /// Waits until this many fetches have arrived.
    pub(super) async fn fetched(&self, count: usize) {
        let mut fetches = self.fetches.clone();
        let arrived = timeout(EVENT_TIMEOUT, fetches.wait_for(|fetches| *fetches >= count)).await;
        assert!(arrived.is_ok(), "{} of {count} fetches arrived within 20 s", self.fetches());
    }
}

async fn respond(State(mut shared): State<Shared>) -> Response {
    shared.fetches.send_modify(|fetches| *fetches += 1);
    let answer = shared.answer.wait_for(|answer| !matches!(answer, Answer::Hang)).await;
    let answer = answer.map_or(Answer::Status(StatusCode::SERVICE_UNAVAILABLE), |it| it.clone());
    let body = match answer {
        Answer::Status(status) => return status.into_response(),
        Answer::Text(text) => text,
        Answer::Keys | Answer::Hang => shared.keys.to_json(),
    };
    ([(header::CONTENT_TYPE, "application/jwk-set+json")], body).into_response()
}
