//! A `tracing` subscriber that reads the state of every handle on each event. It deadlocks if the
//! crate logs an event while it holds a lock.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Request, Response};
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    AddServiceTokenLayer, ServiceClaims, ServiceToken, Verifier, VerifyServiceTokenLayer,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};

use crate::manual_clock::ManualClock;
use crate::scripted::{ScriptedCore, status, token_response};
use crate::support::{DeadPort, Inner, TIMEOUT, bearer, subscribe};

const HOUR: Duration = Duration::from_secs(3600);

/// The longest delay between two attempts to mint.
const MAX_DELAY: Duration = Duration::from_secs(5);

type Callback = Arc<dyn Fn() + Send + Sync>;

/// Records the message of each event of this crate, then runs every callback.
#[derive(Clone, Default)]
struct Observer(Arc<Shared>);

#[derive(Default)]
struct Shared {
    callbacks: Mutex<Vec<Callback>>,
    messages: Mutex<Vec<String>>,
    recorded: Notify,
}

thread_local! {
    static IS_RUNNING_CALLBACKS: Cell<bool> = const { Cell::new(false) };
}

impl<S: Subscriber> tracing_subscriber::Layer<S> for Observer {
    fn on_event(&self, event: &Event<'_>, _: LayerContext<'_, S>) {
        if !event.metadata().target().starts_with("tower_m2m") {
            return;
        }
        let mut message = Message(String::new());
        event.record(&mut message);
        self.0.messages.lock().unwrap().push(message.0);
        self.0.recorded.notify_one();
        // A callback that logs must not run itself again.
        if !IS_RUNNING_CALLBACKS.replace(true) {
            let callbacks = self.0.callbacks.lock().unwrap().clone();
            callbacks.iter().for_each(|callback| callback());
            IS_RUNNING_CALLBACKS.set(false);
        }
    }
}

struct Message(String);

impl Visit for Message {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        if field.name() == "message" {
            self.0 = format!("{value:?}");
        }
    }
}

impl Observer {
    fn on_each_event(&self, callback: impl Fn() + Send + Sync + 'static) {
        self.0.callbacks.lock().unwrap().push(Arc::new(callback));
    }

    fn read_on_each_event(&self, token: &ServiceToken) {
        let token = token.clone();
        let client = AddServiceTokenLayer::new(token.clone()).layer(Inner::default());
        self.on_each_event(move || {
            let _ = (
                token.health(),
                token.expires_at(),
                token.header_value(),
                format!("{token:?} {client:?}"),
            );
            token.apply(&mut HeaderMap::new());
            poll_once(client.clone().call(Request::new(())));
        });
    }

    /// Waits until the message of a logged event contains `text`.
    async fn wait_for(&self, text: &str) {
        while !self.0.messages.lock().unwrap().iter().any(|message| message.contains(text)) {
            self.0.recorded.notified().await;
        }
    }
}

/// Polls the future once: a subscriber is not async, so it cannot await it.
fn poll_once(future: impl Future) {
    let _ = pin!(future).poll(&mut Context::from_waker(Waker::noop()));
}

/// A called service that rejects every token as invalid.
async fn reject(_: Request<()>) -> Result<Response<()>, Infallible> {
    let response =
        Response::builder().status(401).header(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#);
    Ok(response.body(()).unwrap())
}

async fn rotate_keys_and_fail_fetches(observer: &Observer, authority: &TestAuthority) {
    let new = TestAuthority::offline();
    let jwks = authority.jwks_builder().cooldown(Duration::from_secs(30)).build().unwrap();
    let verifier = Verifier::new(jwks.clone());
    let service = VerifyServiceTokenLayer::new(verifier.clone()).layer(Inner::default());
    let (old_token, new_token) = (authority.token().sign(), new.token().sign());
    let tokens = [old_token.clone(), new_token.clone(), authority.token().unknown_key().sign()];
    {
        let (jwks, verifier, service) = (jwks.clone(), verifier.clone(), service.clone());
        observer.on_each_event(move || {
            let _ = (jwks.health(), jwks.to_json(), format!("{jwks:?} {verifier:?} {service:?}"));
            poll_once(jwks.ready());
            for token in &tokens {
                poll_once(verifier.verify(token));
                poll_once(service.clone().call(bearer(token)));
            }
        });
    }
    jwks.ready().await.unwrap();
    authority.answer_with(500);
    jwks.refresh().await.unwrap_err();
    jwks.refresh().await.unwrap_err();
    let duplicates: [String; 2] = std::array::from_fn(|_| {
        let other = TestAuthority::offline();
        other.rotate_to("same");
        other.jwk()
    });
    let keys = format!(r#"{{"keys":[{{"kty":"oct"}},{},{}]}}"#, duplicates.join(","), new.jwk());
    authority.answer_with_text(keys);
    // The second fetch skips the same keys.
    for _ in 0..2 {
        jwks.refresh().await.unwrap();
    }
    assert_eq!(service.clone().oneshot(bearer(&new_token)).await.unwrap().status(), 200);
    assert_eq!(service.oneshot(bearer(&old_token)).await.unwrap().status(), 401);
}

async fn renew_reject_and_expire_tokens(
    observer: &Observer,
    authority: &TestAuthority,
    clock: &ManualClock,
) {
    let fixed = ServiceToken::from_jwt(authority.token().sign()).unwrap();
    observer.read_on_each_event(&fixed);
    let layer = AddServiceTokenLayer::new(fixed).layer(service_fn(reject));
    layer.oneshot(Request::new(())).await.unwrap();

    let [minted, renewed, replaced] = [1, 4, 4].map(|hours| {
        let token = authority.token().validity(hours * HOUR);
        token_response(&token.sign())
    });
    let failed = || status(500, "", "");
    let core = ScriptedCore::start([failed(), minted, failed(), failed(), renewed, replaced]).await;
    let dead = DeadPort::new();
    let hosts = authority.core_at(format!("{};{}", dead.url(), core.url));
    let request = hosts.service_token(authority.issuer()).validity(HOUR);
    let (token, ()) = tokio::join!(request.mint(), async {
        observer.wait_for("mint failed, retrying").await;
        clock.advance(MAX_DELAY).await;
    });
    let token = token.unwrap();
    observer.read_on_each_event(&token);
    let pass_50_min_until = async |event| {
        clock.advance(50 * HOUR / 60).await;
        observer.wait_for(event).await;
    };
    pass_50_min_until("service token renewal failed").await;
    pass_50_min_until("service token renewal failed again").await;
    // The callbacks of the last event have read an expired token.
    assert!(token.expires_at().unwrap() < authority.clock().now());
    pass_50_min_until("service token renewed").await;

    let before = token.header_value();
    let layer = AddServiceTokenLayer::new(token.clone());
    layer.clone().layer(service_fn(reject)).oneshot(Request::new(())).await.unwrap();
    // Mints are a second apart.
    clock.advance(Duration::from_secs(1)).await;
    while token.header_value() == before {
        observer.0.recorded.notified().await;
    }
    let only_elsewhere = layer.only_to(["https://a.example"]).unwrap();
    only_elsewhere.layer(Inner::default()).oneshot(Request::new(())).await.unwrap();
    let no_layer = Router::new().route("/", get(|_: ServiceClaims| async {}));
    no_layer.oneshot(Request::new(Body::empty())).await.unwrap();
}

#[test]
fn subscriber_that_reads_every_handle_never_deadlocks() {
    let observer = Observer::default();
    let (done, finished) = mpsc::channel();
    let shared = observer.clone();
    // A separate thread, so that the test can time out if it deadlocks.
    let thread = std::thread::spawn(move || {
        let _guard = subscribe(tracing_subscriber::registry().with(shared.clone()));
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_all().start_paused(true).build().unwrap().block_on(async {
            let (clock, authority) = (ManualClock::new(), TestAuthority::start().await);
            rotate_keys_and_fail_fetches(&shared, &authority).await;
            renew_reject_and_expire_tokens(&shared, &authority, &clock).await;
        });
        shared.0.callbacks.lock().unwrap().clear();
        done.send(()).unwrap();
    });
    if let Err(mpsc::RecvTimeoutError::Timeout) = finished.recv_timeout(TIMEOUT) {
        panic!(
            "a deadlock, or a missing event; logged so far: {:?}",
            observer.0.messages.lock().unwrap()
        );
    }
    thread.join().unwrap();
    let messages = observer.0.messages.lock().unwrap();
    let expected = [
        "fetching key set",
        "key set fetch failed",
        "key set fetch failed again",
        "key set fetch recovered",
        "key skipped",
        "key skipped again",
        "key added",
        "key removed",
        "request refused",
        "requests refused",
        "core host failed, trying the next",
        "mint failed, retrying",
        "service token renewal failed",
        "service token renewal failed again",
        "service token renewed",
        "service token rejected, renewing it",
        "service token rejected",
        "request without authority, service token not added",
        "ServiceClaims extracted without VerifyServiceTokenLayer around it",
    ];
    for message in expected {
        assert!(messages.iter().any(|seen| seen == message), "not logged: {message}");
    }
}
