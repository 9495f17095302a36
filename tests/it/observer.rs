//! A `tracing` subscriber that reads the state of every handle on each event. It deadlocks if the
//! crate logs an event while it holds a lock.

use std::cell::Cell;
use std::convert::Infallible;
use std::pin::pin;
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context, Waker};
use std::time::{Duration, UNIX_EPOCH};

use axum::Router;
use axum::body::Body;
use axum::routing::get;
use http::header::WWW_AUTHENTICATE;
use http::{HeaderMap, Request, Response};
use serde_json::json;
use tokio::sync::Notify;
use tower::{Layer, Service, ServiceExt, service_fn};
use tower_m2m::{
    AddServiceTokenLayer, MintError, RemoteJwks, ServiceClaims, ServiceToken, SuperTokensCore,
    Verifier, VerifyServiceTokenLayer,
};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context as LayerContext, SubscriberExt};

use crate::support::{
    DeadPort, Endpoint, ISSUER, Inner, Script, Signer, TIMEOUT, bearer, key_set, now, subscribe,
};

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

fn minted(jwt: &str) -> Script {
    Script::Keys(json!({"status": "OK", "jwt": jwt}).to_string())
}

/// A called service that rejects every token as invalid.
async fn reject(_: Request<()>) -> Result<Response<()>, Infallible> {
    let response =
        Response::builder().status(401).header(WWW_AUTHENTICATE, r#"Bearer error="invalid_token""#);
    Ok(response.body(()).unwrap())
}

async fn rotate_keys_and_fail_fetches(observer: &Observer) {
    let (old, new) = (Signer::new("old"), Signer::new("new"));
    let endpoint = Endpoint::start(Script::Keys(key_set(&[&old]))).await;
    let jwks = RemoteJwks::new(&endpoint.url).unwrap();
    let verifier = Verifier::new(jwks.clone());
    let service = VerifyServiceTokenLayer::new(verifier.clone()).layer(Inner::default());
    let tokens = [old.good(), new.good(), Signer::new("unknown").good()];
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
    endpoint.set(Script::Status(500));
    jwks.refresh().await.unwrap_err();
    jwks.refresh().await.unwrap_err();
    let duplicate = [Signer::new("same").jwk(), Signer::new("same").jwk()].join(",");
    let keys = format!(r#"{{"keys":[{{"kty":"oct"}},{duplicate},{}]}}"#, new.jwk());
    endpoint.set(Script::Keys(keys));
    jwks.refresh().await.unwrap();
    assert_eq!(service.clone().oneshot(bearer(&new.good())).await.unwrap().status(), 200);
    assert_eq!(service.oneshot(bearer(&old.good())).await.unwrap().status(), 401);
}

async fn renew_reject_and_expire_tokens(observer: &Observer) {
    let signer = Signer::new("k");
    let fixed = ServiceToken::from_jwt(signer.good()).unwrap();
    observer.read_on_each_event(&fixed);
    let layer = AddServiceTokenLayer::new(fixed).layer(service_fn(reject));
    layer.oneshot(Request::new(())).await.unwrap();

    let core = Endpoint::start(Script::Status(500)).await;
    let hosts = format!("{};{}", DeadPort::new().url(), core.url);
    let hosts = SuperTokensCore::new(hosts).unwrap();
    let token = loop {
        let request = hosts.service_token(ISSUER).validity(Duration::from_secs(3));
        let (token, ()) = tokio::join!(request.mint(), async {
            observer.wait_for("mint failed, retrying").await;
            let short = json!({"exp": now() + 3, "source": "microservice", "iss": ISSUER});
            core.set(minted(&signer.claims(short)));
        });
        match token {
            Ok(token) => break token,
            // On a slow machine the token expires before it is read.
            Err(err) => assert!(matches!(err, MintError::UnusableToken { .. }), "{err}"),
        }
    };
    observer.read_on_each_event(&token);
    core.set(Script::Status(500));
    observer.wait_for("service token renewal failed").await;
    observer.wait_for("service token renewal failed again").await;
    // The observer reads the expired token first, and tracing drops an event within an event.
    let has_expired = || token.expires_at().unwrap() <= UNIX_EPOCH + Duration::from_secs(now());
    while !has_expired() {
        observer.0.recorded.notified().await;
    }
    core.set(minted(&signer.good()));
    observer.wait_for("service token renewed").await;

    let before = token.header_value();
    core.set(minted(&Signer::new("k").good()));
    let layer = AddServiceTokenLayer::new(token.clone());
    layer.clone().layer(service_fn(reject)).oneshot(Request::new(())).await.unwrap();
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
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            rotate_keys_and_fail_fetches(&shared).await;
            renew_reject_and_expire_tokens(&shared).await;
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
        "service token rejected, minting a new one",
        "service token rejected",
        "request without authority, service token not added",
        "ServiceClaims extracted without VerifyServiceTokenLayer",
    ];
    for message in expected {
        assert!(messages.iter().any(|seen| seen == message), "not logged: {message}");
    }
}
