//! [`TestAuthority`]: an authority in the process of a test.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use tower_service::Service;

use super::clock::TestClock;
use super::endpoint::{self, Answer, Endpoint};
use super::keys::{Keys, SIGNS, new_kid};
use super::loopback_server::LoopbackServer;
use super::token_builder::TokenBuilder;
use crate::embedded_core::EmbeddedCore;
use crate::jwks::{KeySource, LocalJwks, RemoteJwks, RemoteJwksBuilder};
use crate::token::SuperTokensCore;
use crate::verify::Verifier;

const ISSUER: &str = "https://authority.test";

/// An authority for tests. It signs good and bad tokens, and lists its keys.
///
/// [`start`](Self::start) serves a key set and an [embedded core](crate::EmbeddedCore) on loopback;
/// [`offline`](Self::offline) needs neither sockets nor a runtime. Cheap to clone. Each authority has
/// its own keys: a token of one has an unknown key at the verifier of another.
///
/// ```
/// use tower_m2m::testing::TestAuthority;
/// use tower_m2m::{AddServiceTokenLayer, Verifier};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let authority = TestAuthority::start().await;
///
/// // M2: a token that the authority has signed.
/// let verifier = authority.verifier().audience("billing");
/// let token = authority.token().claim("service", "orders").audience("billing").sign();
/// assert!(verifier.verify(&token).await.is_ok());
///
/// // A new key, which the verifier fetches with the first token that names it.
/// authority.rotate();
/// let token = authority.token().audience("billing").sign();
/// assert!(verifier.verify(&token).await.is_ok());
/// assert_eq!(authority.fetches(), 2);
///
/// // M1: a token that its core has minted, which renews itself.
/// let request = authority.core().service_token(authority.issuer());
/// let layer = AddServiceTokenLayer::new(request.audience("billing").mint().await?);
/// # Ok(())
/// # }
/// ```
///
/// Its verifiers, key caches and minted tokens follow its [`clock`](Self::clock), which tests move.
/// The server stops with the last clone; verifiers and tokens do not keep it alive.
#[derive(Clone)]
pub struct TestAuthority(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    issuer: Arc<str>,
    clock: TestClock,
    keys: Keys,
    /// `None` if it is offline.
    served: Option<Arc<Served>>,
}

struct Served {
    server: LoopbackServer,
    endpoint: Endpoint,
    core: EmbeddedCore,
}

impl TestAuthority {
    /// Starts an authority with sockets on loopback:
    ///
    /// - `GET /.well-known/jwks.json` lists its keys and those of its core; see
    ///   [`jwks_url`](Self::jwks_url);
    /// - `POST /recipe/jwt` and the other [routes](crate::embedded_core#routes) are those of an
    ///   embedded core; see [`core`](Self::core).
    ///
    /// Do not pause tokio's time in such a test: it would jump to the next timeout while the test
    /// waits for a socket. Advance the [`clock`](Self::clock) instead.
    ///
    /// The server runs on the current runtime and stops with it. Each `#[tokio::test]` function has
    /// a runtime of its own, so such functions cannot share an authority with sockets.
    ///
    /// The first call in a process generates the RSA keys of the core, which takes up to a second.
    /// Later ones share them. cargo-nextest runs each test in a process of its own.
    ///
    /// # Panics
    ///
    /// If no port on loopback can be bound, or outside a tokio runtime.
    pub async fn start() -> Self {
        let clock = TestClock::new();
        let core = EmbeddedCore::with_process_keys(clock.shared()).await.expect("an RSA key");
        let keys = Keys::new(jwks_in(&core.jwks().await));
        let (endpoint, route) = Endpoint::new(keys.clone());
        let server = LoopbackServer::start(route.fallback_service(core.router())).await;
        Self::new(clock, keys, Some(Arc::new(Served { server, endpoint, core })))
    }

    /// An authority for tests of M2 that needs neither sockets nor a runtime. Its verifiers use its
    /// [`local_jwks`](Self::local_jwks).
    ///
    /// Methods that concern the endpoint or the core panic, except [`core_at`](Self::core_at).
    #[must_use]
    pub fn offline() -> Self {
        Self::new(TestClock::new(), Keys::new(Vec::new()), None)
    }

    fn new(clock: TestClock, keys: Keys, served: Option<Arc<Served>>) -> Self {
        Self(Arc::new(Inner { issuer: ISSUER.into(), clock, keys, served }))
    }

    /// The same authority with another `iss` in its tokens, for tests with
    /// [several](Verifier::or) authorities.
    ///
    /// ```
    /// # use tower_m2m::testing::TestAuthority;
    /// let [old, new] = ["https://old.test", "https://new.test"]
    ///     .map(|issuer| TestAuthority::offline().with_issuer(issuer));
    /// assert!(old.verifier().or(new.verifier()).is_ok());
    /// ```
    #[must_use]
    pub fn with_issuer(self, issuer: impl Into<String>) -> Self {
        Self(Arc::new(Inner { issuer: issuer.into().into(), ..Inner::clone(&self.0) }))
    }

    /// The `iss` of its tokens. Default: `https://authority.test`. Pass it to
    /// [`service_token`](SuperTokensCore::service_token) for a token of its [`core`](Self::core).
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.0.issuer
    }

    /// The clock of this authority and of everything that it makes.
    #[must_use]
    pub fn clock(&self) -> &TestClock {
        &self.0.clock
    }

    /// A verifier with the keys, the issuer and the clock of this authority, but no audience. The
    /// keys are a new [`remote_jwks`](Self::remote_jwks), or the [`local_jwks`](Self::local_jwks) of
    /// an offline authority.
    pub fn verifier(&self) -> Verifier {
        match self.0.served {
            Some(_) => self.verifier_with(self.remote_jwks()),
            None => self.verifier_with(self.local_jwks()),
        }
    }

    /// A verifier with the issuer and the clock of this authority, and with these keys, such as a
    /// [`RemoteJwks`] with your own options.
    pub fn verifier_with(&self, keys: impl Into<KeySource>) -> Verifier {
        self.0.clock.verifier(keys).issuer(self.issuer())
    }

    /// Builds a token of this authority, which is good unless a defect is added.
    pub fn token(&self) -> TokenBuilder {
        TokenBuilder::new(self.0.keys.clone(), self.issuer(), self.0.clock.unix_now())
    }

    /// Signs any two texts as header and claims with the current key, for tokens that
    /// [`token`](Self::token) cannot build.
    ///
    /// ```
    /// use tower_m2m::RejectionReason;
    /// use tower_m2m::testing::TestAuthority;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let authority = TestAuthority::offline();
    /// let token = authority.sign_parts(r#"{"alg":"EdDSA"}"#, r#"{"exp":1,"exp":2}"#);
    /// let rejection = authority.verifier().verify(&token).await.unwrap_err();
    /// assert_eq!(rejection.reason(), RejectionReason::MalformedClaims);
    /// # }
    /// ```
    #[must_use]
    pub fn sign_parts(&self, header: &str, claims: &str) -> String {
        self.0.keys.with_current(|key| key.sign_parts(header, claims).expect(SIGNS))
    }

    /// Signs any text as claims with the current key, under the header of a
    /// [`token`](Self::token).
    ///
    /// ```
    /// use tower_m2m::RejectionReason;
    /// use tower_m2m::testing::TestAuthority;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let authority = TestAuthority::offline();
    /// let token = authority.sign_claims(r#"["no", "object"]"#);
    /// let rejection = authority.verifier().verify(&token).await.unwrap_err();
    /// assert_eq!(rejection.reason(), RejectionReason::MalformedClaims);
    /// # }
    /// ```
    #[must_use]
    pub fn sign_claims(&self, claims: impl fmt::Display) -> String {
        self.token().sign_text(&claims.to_string())
    }

    /// Signs any text as the first two parts of a token with the current key, and appends a dot and
    /// the signature. For tests of the encoding of those parts.
    #[must_use]
    pub fn sign_input(&self, input: impl Into<String>) -> String {
        self.0.keys.with_current(|key| key.sign_input(input.into()).expect(SIGNS))
    }

    /// The `kid` of the current key.
    #[must_use]
    pub fn kid(&self) -> String {
        self.0.keys.with_current(|key| key.kid().to_owned())
    }

    /// The current key as a public JWK, an EdDSA key.
    #[must_use]
    pub fn jwk(&self) -> String {
        self.0.keys.with_current(|key| key.public_jwk().to_owned())
    }

    /// The listed keys as a JWK Set.
    #[must_use]
    pub fn jwks(&self) -> String {
        self.0.keys.to_json()
    }

    /// Signs with a new key from now on. The previous key stays listed.
    pub fn rotate(&self) {
        self.rotate_to(new_kid());
    }

    /// [Rotates](Self::rotate) to a new key with this `kid`. With the `kid` of a listed key, the new
    /// key replaces it in the list: an authority that reuses a `kid`.
    pub fn rotate_to(&self, kid: impl Into<String>) {
        self.0.keys.rotate(kid.into());
    }

    /// Lists only the current key and those of the core from now on.
    ///
    /// [`local_jwks`](Self::local_jwks) drops the other keys at once.
    /// [`remote_jwks`](Self::remote_jwks) accepts them [for a while](crate::jwks#unlisted-keys).
    /// [`RemoteJwks::refresh`] drops them. So does an advance of the clock by 25 h: the whole key set
    /// is then stale, and a token waits for a fetch. Give the token of such a test a longer
    /// [`validity`](TokenBuilder::validity), or it is rejected because it has expired.
    pub fn withdraw(&self) {
        self.0.keys.withdraw();
    }

    /// The listed keys as a local set. [`rotate`](Self::rotate) and [`withdraw`](Self::withdraw)
    /// change it.
    #[must_use]
    pub fn local_jwks(&self) -> LocalJwks {
        self.0.keys.local_jwks()
    }

    /// A new key cache for the JWKS endpoint, with the options of
    /// [`jwks_builder`](Self::jwks_builder).
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    #[must_use]
    pub fn remote_jwks(&self) -> RemoteJwks {
        self.jwks_builder().build().expect("a URL on loopback")
    }

    /// The options of a key cache for the JWKS endpoint, on the clock of this authority. Unlike in
    /// production, fetches for unknown keys have no limit, so that a test can rotate often. Set
    /// [`cooldown`](RemoteJwksBuilder::cooldown) to test the limit.
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    pub fn jwks_builder(&self) -> RemoteJwksBuilder {
        let least = Duration::from_nanos(1);
        RemoteJwks::builder(self.jwks_url()).on_clock(self.0.clock.shared()).cooldown(least)
    }

    /// The URL of the JWKS endpoint.
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("{}{}", self.served().server.url(), endpoint::PATH)
    }

    /// The URL of the embedded core, which needs no api key.
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    #[must_use]
    pub fn core_url(&self) -> String {
        self.served().server.url().to_owned()
    }

    /// The embedded core. Tokens that are minted there renew by the clock of this authority.
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    pub fn core(&self) -> SuperTokensCore {
        self.core_at(self.core_url())
    }

    /// A core at another URL, such as that of a mock server. Tokens that are minted there renew by
    /// the clock of this authority, which may be offline.
    ///
    /// # Panics
    ///
    /// If the URL cannot be used.
    pub fn core_at(&self, url: impl AsRef<str>) -> SuperTokensCore {
        let core = SuperTokensCore::new(url).expect("the URL of a core");
        core.on_clock(self.0.clock.shared())
    }

    /// Mints a token with this payload, signed by the embedded core with RS256 and valid for 1 h.
    /// Unlike a [`ServiceTokenRequest`](crate::ServiceTokenRequest), this adds no marker, and it
    /// uses no socket.
    ///
    /// ```
    /// use serde_json::json;
    /// use tower_m2m::RejectionReason;
    /// use tower_m2m::testing::TestAuthority;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let authority = TestAuthority::start().await;
    /// let session = authority.mint_payload(json!({"sub": "user-1"})).await;
    /// let rejection = authority.verifier().verify(&session).await.unwrap_err();
    /// assert_eq!(rejection.reason(), RejectionReason::NotMicroservice);
    /// # }
    /// ```
    ///
    /// # Panics
    ///
    /// If the authority is offline, or the core refuses the payload.
    pub async fn mint_payload(&self, payload: Value) -> String {
        let body = json!({
            "payload": payload,
            "validity": 3600,
            "algorithm": "RS256",
            "jwksDomain": self.issuer(),
        });
        let request = Request::post("/recipe/jwt").body(Body::from(body.to_string()));
        let request = request.expect("a valid request");
        let Ok(response) = self.served().core.router().call(request).await;
        assert_eq!(response.status(), StatusCode::OK, "the core refuses the payload");
        let body = to_bytes(response.into_body(), usize::MAX).await.expect("a body in memory");
        let response: Value = serde_json::from_slice(&body).expect("the core responds with JSON");
        response["jwt"].as_str().expect("a token").to_owned()
    }

    /// The JWKS endpoint responds with its keys again, also to the fetches that it holds.
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    pub fn answer_with_keys(&self) {
        self.served().endpoint.answer(Answer::Keys);
    }

    /// The JWKS endpoint responds with this status and no body, from the next fetch on.
    ///
    /// # Panics
    ///
    /// If the authority is offline, or `status` is not within 100 to 999.
    pub fn answer_with(&self, status: u16) {
        let status = StatusCode::from_u16(status).expect("a status");
        self.served().endpoint.answer(Answer::Status(status));
    }

    /// The JWKS endpoint responds with this text instead of its keys, from the next fetch on.
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    pub fn answer_with_text(&self, text: impl Into<String>) {
        self.served().endpoint.answer(Answer::Text(text.into()));
    }

    /// The JWKS endpoint holds each fetch until one of the methods above is called, or the
    /// [`timeout`](RemoteJwksBuilder::timeout) of the key cache has passed: 5 s of tokio's clock by
    /// default, which the clock of this authority does not move.
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    pub fn hang(&self) {
        self.served().endpoint.answer(Answer::Hang);
    }

    /// The number of fetches that have arrived at the JWKS endpoint, answered or not.
    ///
    /// # Panics
    ///
    /// If the authority is offline.
    #[must_use]
    pub fn fetches(&self) -> usize {
        self.served().endpoint.fetches()
    }

    /// Waits until at least this many fetches have arrived.
    ///
    /// # Panics
    ///
    /// If the authority is offline, or the fetches do not arrive within 20 s.
    pub async fn wait_for_fetches(&self, count: usize) {
        self.served().endpoint.wait_for_fetches(count).await;
    }

    /// Waits until a client has aborted a fetch that [hangs](Self::hang).
    ///
    /// # Panics
    ///
    /// If the authority is offline, or no fetch is aborted within 20 s.
    pub async fn aborted(&self) {
        self.served().endpoint.aborted().await;
    }

    fn served(&self) -> &Served {
        self.0.served.as_deref().expect("an offline authority has no endpoint and no core")
    }
}

/// Prints the URL and the `kid` of the current key.
impl fmt::Debug for TestAuthority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TestAuthority")
            .field("url", &self.0.served.as_ref().map(|served| served.server.url()))
            .field("kid", &self.kid())
            .finish_non_exhaustive()
    }
}

/// The elements of a JWK Set.
fn jwks_in(set: &str) -> Vec<String> {
    let set: Value = serde_json::from_str(set).expect("the core lists its keys as JSON");
    set["keys"].as_array().expect("a JWK Set").iter().map(Value::to_string).collect()
}
