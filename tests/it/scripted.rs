//! A core on a loopback socket that sends the responses of a test's script.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tower_m2m::{MintError, ServiceToken, ServiceTokenRequest};

use crate::manual_clock::ManualClock;
use crate::support::{ISSUER, Logs, TIMEOUT, encode, now};

pub(crate) const API_KEY: &str = "key-7f3a9d-0123456789abcdef";
/// The signature part of every token of [`ScriptedCore`].
pub(crate) const SIGNATURE: &str = "c2VjcmV0LXNpZ25hdHVyZQ";

/// One step of a script. The last step repeats.
#[derive(Clone)]
pub(crate) enum Step {
    /// A raw HTTP response.
    Text(String),
    /// A response with a new token, which has these claims and the request's number.
    Token(Value),
    /// No response; the connection stays open.
    Silence,
}

pub(crate) struct ScriptedCore {
    pub(crate) url: String,
    requests: watch::Sender<Vec<String>>,
    task: JoinHandle<()>,
}

impl ScriptedCore {
    pub(crate) async fn start(script: impl Into<Vec<Step>>) -> Self {
        Self::start_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), script)
    }

    pub(crate) fn start_on(listener: TcpListener, script: impl Into<Vec<Step>>) -> Self {
        let script = script.into();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = watch::Sender::<Vec<String>>::default();
        let seen = requests.clone();
        let task = tokio::spawn(async move {
            let mut held = Vec::new();
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let request = read(&mut stream).await;
                seen.send_modify(|seen| seen.push(request));
                let count = seen.borrow().len();
                let text = match &script[(count - 1).min(script.len() - 1)] {
                    Step::Text(text) => text.clone(),
                    Step::Token(claims) => ok(&jwt("s-1", claims, count)),
                    Step::Silence => {
                        held.push(stream);
                        continue;
                    }
                };
                let _ = stream.write_all(text.as_bytes()).await;
            }
        });
        Self { url, requests, task }
    }

    /// All requests so far, each with its head and its body.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.borrow().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.requests.borrow().len()
    }

    /// Waits until at least this many requests have arrived.
    pub(crate) async fn received(&self, count: usize) {
        let mut requests = self.requests.subscribe();
        let wait = requests.wait_for(|requests| requests.len() >= count);
        timeout(TIMEOUT, wait).await.expect("no request has arrived").unwrap();
    }
}

impl Drop for ScriptedCore {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Mints a token, and advances the clock by `step` whenever the mint waits for its next attempt.
pub(crate) async fn mint_in_steps(
    request: ServiceTokenRequest,
    clock: &ManualClock,
    step: Duration,
) -> Result<ServiceToken, MintError> {
    let logs = Logs::of_this_thread();
    let advancing = async {
        for attempts in 1..100 {
            // The target of every event of a mint that waits.
            logs.wait_for_times("tower_m2m::token::retry", attempts).await;
            clock.advance(step).await;
        }
    };
    tokio::select! {
        minted = request.mint() => minted,
        () = advancing => panic!("the mint is retried without end"),
    }
}

/// A response with a service token.
pub(crate) fn good() -> Step {
    Step::Token(json!({ "source": "microservice" }))
}

/// A response with a service token whose header has this `kid`.
pub(crate) fn signed_by(kid: &str) -> Step {
    token_response(&jwt(kid, &json!({ "source": "microservice" }), 0))
}

/// A response with this token.
pub(crate) fn token_response(jwt: &str) -> Step {
    Step::Text(ok(jwt))
}

pub(crate) fn status(status: u16, headers: &str, body: &str) -> Step {
    let length = body.len();
    Step::Text(format!(
        "HTTP/1.1 {status} x\r\nconnection: close\r\ncontent-type: text/html;charset=UTF-8\r\n{headers}content-length: \
         {length}\r\n\r\n{body}"
    ))
}

fn ok(jwt: &str) -> String {
    let body = json!({ "status": "OK", "jwt": jwt }).to_string();
    let length = body.len();
    format!(
        "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json;charset=UTF-8\r\ncontent-length: \
         {length}\r\n\r\n{body}"
    )
}

/// A token with the claims `iat`, `exp`, `iss` and `n`, the number of the request. `claims`
/// overrides them; an integer `exp` in `claims` is an offset from now in seconds.
fn jwt(kid: &str, claims: &Value, number: usize) -> String {
    // The crate checks the token against the wall clock.
    let now = now();
    let mut all = json!({ "iat": now, "exp": now + 3600, "iss": ISSUER, "n": number });
    for (name, value) in claims.as_object().unwrap() {
        all[name] = match (name.as_str(), value.as_i64()) {
            ("exp", Some(from_now)) => json!(now.saturating_add_signed(from_now)),
            _ => value.clone(),
        };
    }
    format!(
        "{}.{}.{SIGNATURE}",
        encode(format!(r#"{{"kid":"{kid}","typ":"JWT","alg":"RS256"}}"#)),
        encode(all.to_string())
    )
}

async fn read(stream: &mut TcpStream) -> String {
    let mut text = Vec::new();
    loop {
        let so_far = String::from_utf8_lossy(&text).to_ascii_lowercase();
        if let Some((head, body)) = so_far.split_once("\r\n\r\n") {
            let length =
                head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
            if body.len() >= length.unwrap_or(0) {
                return String::from_utf8(text).unwrap();
            }
        }
        if stream.read_buf(&mut text).await.unwrap() == 0 {
            return String::from_utf8(text).unwrap();
        }
    }
}
