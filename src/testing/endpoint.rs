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
    counts: watch::Receiver<Counts>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    fetches: usize,
    /// The fetches that a client has aborted while they were held.
    aborted: usize,
}

#[derive(Clone)]
struct Shared {
    keys: Keys,
    answer: watch::Receiver<Answer>,
    counts: watch::Sender<Counts>,
}

impl Endpoint {
    /// The endpoint, and its route.
    pub(super) fn new(keys: Keys) -> (Self, Router) {
        let (answer, answers) = watch::channel(Answer::Keys);
        let (count, counts) = watch::channel(Counts::default());
        let shared = Shared { keys, answer: answers, counts: count };
        let router = Router::new().route(PATH, get(respond)).with_state(shared);
        (Self { answer, counts }, router)
    }

    pub(super) fn answer(&self, answer: Answer) {
        self.answer.send_replace(answer);
    }

    pub(super) fn fetches(&self) -> usize {
        self.counts.borrow().fetches
    }

    /// Waits until this many fetches have arrived.
    pub(super) async fn wait_for_fetches(&self, count: usize) {
        let arrived = self.counted(|counts| counts.fetches >= count).await;
        assert!(arrived, "{} of {count} fetches arrived within 20 s", self.fetches());
    }

    /// Waits until a client has aborted a fetch that was held.
    pub(super) async fn aborted(&self) {
        assert!(
            self.counted(|counts| counts.aborted > 0).await,
            "no fetch was aborted within 20 s"
        );
    }

    /// Waits until the counts are as expected. Returns whether they are so in time.
    async fn counted(&self, expected: impl Fn(&Counts) -> bool) -> bool {
        let mut counts = self.counts.clone();
        timeout(EVENT_TIMEOUT, counts.wait_for(|counts| expected(counts))).await.is_ok()
    }
}

/// Counts a fetch as aborted, unless it is answered: the drop of its future is all that the server
/// sees of an abort.
struct CountAbort<'s> {
    counts: &'s watch::Sender<Counts>,
    is_answered: bool,
}

impl Drop for CountAbort<'_> {
    fn drop(&mut self) {
        if !self.is_answered {
            self.counts.send_modify(|counts| counts.aborted += 1);
        }
    }
}

async fn respond(State(mut shared): State<Shared>) -> Response {
    shared.counts.send_modify(|counts| counts.fetches += 1);
    let mut abort = CountAbort { counts: &shared.counts, is_answered: false };
    let answer = shared.answer.wait_for(|answer| !matches!(answer, Answer::Hang)).await;
    let answer = answer.map_or(Answer::Status(StatusCode::SERVICE_UNAVAILABLE), |it| it.clone());
    abort.is_answered = true;
    let body = match answer {
        Answer::Status(status) => return status.into_response(),
        Answer::Text(text) => text,
        Answer::Keys | Answer::Hang => shared.keys.to_json(),
    };
    ([(header::CONTENT_TYPE, "application/jwk-set+json")], body).into_response()
}
