//! A site in virtual time: an authority, M1 with a token that is renewed, and M2.

use std::convert::Infallible;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{Request, Response, StatusCode, Uri};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::{Instant, sleep, sleep_until};
use tower::util::BoxService;
use tower::{Layer, Service, ServiceExt, service_fn};

use crate::client::AddServiceTokenLayer;
use crate::clock::Clock;
use crate::error::SourceError;
use crate::testing::TestAuthority;
use crate::token::error::MintError;
use crate::token::mint::Mint;
use crate::token::renewal::{self, FirstToken};
use crate::token::schedule::RenewalPolicy;
use crate::token::service_token::ServiceToken;
use crate::token::token_value::TokenValue;
use crate::verify::Verifier;

const CORE: &str = "http://core";

/// How long the authority takes for each answer, unless it is slow.
const ROUND_TRIP: Duration = Duration::from_millis(50);

/// The answers of the authority.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// A good token.
    Up,
    /// No connection.
    Down,
    /// A good token after 4 s. A request waits for 5 s.
    Slow,
    /// A good token after 8 s, which is within the timeout of 10 s.
    VerySlow,
    /// None within the timeout.
    Hanging,
    /// A token that expired an hour ago.
    Expired,
    /// No token.
    Garbage,
    /// A good token, but without `source: microservice`.
    Markerless,
}

/// What M2 does with a request whose token has not expired.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum M2 {
    /// Accepts any token.
    Accepts,
    /// Accepts tokens of the authority's current key.
    Verifies,
    /// Responds with 401 and `error="invalid_token"`.
    Rejects,
}

/// What happened to the requests.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) sent: u64,
    /// Whose token had expired on arrival, by the clock of M2.
    pub(super) expired: u64,
    /// That waited for a mint.
    pub(super) waited: u64,
    /// Answered with 401.
    pub(super) rejected: u64,
}

/// The clocks of the authority and of M2 are always the same. M1 has one of its own.
pub(super) struct Site {
    inner: Arc<Inner>,
    client: BoxService<Request<()>, Response<()>, Infallible>,
    uri: Uri,
    pub(super) token: ServiceToken,
}

struct Inner {
    verifier: Verifier,
    authority: TestAuthority,
    m1_clock: Clock,
    validity: Duration,
    answer: Mutex<Answer>,
    m2: Mutex<M2>,
    attempts: AtomicU64,
    minted: AtomicU64,
    counts: Mutex<Counts>,
    /// The last token that reached M2, and its `exp`.
    last: Mutex<(String, u64)>,
}

impl Site {
    /// A site whose M1 has minted its first token, with this lifetime.
    pub(super) fn new(validity: Duration, policy: RenewalPolicy) -> Self {
        let authority = TestAuthority::offline();
        let m1_clock = Clock::driven(authority.clock().shared().unix_now());
        let inner = Arc::new(Inner {
            verifier: authority.verifier(),
            authority,
            m1_clock: m1_clock.clone(),
            validity,
            answer: Answer::Up.into(),
            m2: M2::Accepts.into(),
            attempts: 0.into(),
            minted: 0.into(),
            counts: Mutex::default(),
            last: Mutex::default(),
        });
        let first = FirstToken::Minted(inner.sign(Answer::Up).ok().unwrap());
        let token = renewal::renewable(first, policy, Minter(inner.clone()), None, m1_clock);
        let called = inner.clone();
        let m2 = service_fn(move |request| {
            let called = called.clone();
            async move { called.respond(request).await }
        });
        let client = BoxService::new(AddServiceTokenLayer::new(token.clone()).layer(m2));
        let uri = Uri::from_static("https://billing.internal/charge");
        Self { inner, client, uri, token }
    }

    pub(super) fn set_answer(&self, answer: Answer) {
        *self.inner.answer.lock().unwrap() = answer;
    }

    pub(super) fn set_m2(&self, m2: M2) {
        *self.inner.m2.lock().unwrap() = m2;
    }

    /// The authority restarts with a new key, and M2 no longer knows the old one.
    pub(super) fn replace_keys(&self) {
        self.inner.authority.rotate();
        self.inner.authority.withdraw();
    }

    /// Sets the clock of M1 forwards or backwards.
    pub(super) fn shift_m1_clock(&self, seconds: i64) {
        self.inner.m1_clock.shift(seconds);
    }

    /// Sets each wall clock forwards or backwards.
    pub(super) fn shift_every_clock(&self, seconds: i64) {
        self.inner.m1_clock.shift(seconds);
        self.inner.authority.clock().shared().shift(seconds);
    }

    pub(super) fn counts(&self) -> Counts {
        *self.inner.counts.lock().unwrap()
    }

    /// How often the renewal asked the authority.
    pub(super) fn attempts(&self) -> u64 {
        self.inner.attempts.load(Ordering::Relaxed)
    }

    /// The tokens of the renewal.
    pub(super) fn minted(&self) -> u64 {
        self.inner.minted.load(Ordering::Relaxed)
    }

    /// Sends a request from M1 to M2 through the client layer.
    pub(super) async fn send(&mut self) -> StatusCode {
        let start = Instant::now();
        let mut request = Request::new(());
        *request.uri_mut() = self.uri.clone();
        let response = self.client.ready().await.unwrap().call(request).await.unwrap();
        let status = response.status();
        let mut counts = self.inner.counts.lock().unwrap();
        counts.sent += 1;
        counts.waited += u64::from(start.elapsed() > Duration::ZERO);
        counts.rejected += u64::from(status == StatusCode::UNAUTHORIZED);
        status
    }
}

impl Inner {
    /// M2's response.
    async fn respond(&self, request: Request<()>) -> Result<Response<()>, Infallible> {
        let jwt = request.headers()[AUTHORIZATION].to_str().unwrap();
        let jwt = jwt.strip_prefix("Bearer ").unwrap();
        let has_expired = self.expires_at(jwt) <= self.authority.clock().shared().unix_now();
        self.counts.lock().unwrap().expired += u64::from(has_expired);
        let m2 = *self.m2.lock().unwrap();
        let is_accepted = match m2 {
            M2::Accepts => true,
            M2::Verifies => self.verifier.verify(jwt).await.is_ok(),
            M2::Rejects => false,
        };
        let mut response = Response::new(());
        if has_expired || !is_accepted {
            *response.status_mut() = StatusCode::UNAUTHORIZED;
            let challenge = "Bearer error=\"invalid_token\"".parse().unwrap();
            response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        }
        Ok(response)
    }

    fn expires_at(&self, jwt: &str) -> u64 {
        let mut last = self.last.lock().unwrap();
        if last.0 != jwt {
            let payload = BASE64_URL_SAFE_NO_PAD.decode(jwt.split('.').nth(1).unwrap()).unwrap();
            let claims: Value = serde_json::from_slice(&payload).unwrap();
            *last = (jwt.to_owned(), claims["exp"].as_u64().unwrap());
        }
        last.1
    }

    /// A token, checked like one that came over HTTP.
    fn sign(&self, answer: Answer) -> Result<TokenValue, MintError> {
        let token = self.authority.token().validity(self.validity);
        let jwt = match answer {
            Answer::Expired => token.expired().sign(),
            Answer::Garbage => "<html>It works!</html>".to_owned(),
            Answer::Markerless => token.without_marker().sign(),
            _ => token.sign(),
        };
        TokenValue::minted(&jwt, CORE, self.authority.issuer(), None, &self.m1_clock)
    }
}

struct Minter(Arc<Inner>);

impl Mint for Minter {
    async fn mint(&self, deadline: Instant) -> Result<TokenValue, MintError> {
        self.0.attempts.fetch_add(1, Ordering::Relaxed);
        let answer = *self.0.answer.lock().unwrap();
        match answer {
            Answer::Hanging => sleep_until(deadline).await,
            Answer::Slow => sleep(Duration::from_secs(4)).await,
            Answer::VerySlow => sleep(Duration::from_secs(8)).await,
            _ => sleep(ROUND_TRIP).await,
        }
        if let Answer::Down | Answer::Hanging = answer {
            let source = SourceError::new("no answer");
            return Err(MintError::Unreachable { core: CORE.to_owned(), source });
        }
        let token = self.0.sign(answer)?;
        self.0.minted.fetch_add(1, Ordering::Relaxed);
        Ok(token)
    }

    fn timeout(&self) -> Duration {
        Duration::from_secs(10)
    }
}
