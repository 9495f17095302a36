//! A service (M2) whose deny list is in Redis, so that one command stops a caller at all instances.
//!
//! ```text
//! redis-server &
//! redis-cli HSET deny-list base '[]'
//! REDIS_URL=redis://127.0.0.1 JWKS_URL=https://api.example.com/auth/jwt/jwks.json \
//!     AUDIENCE=billing LISTEN=127.0.0.1:4002 cargo run
//!
//! # Stop the caller `orders`, everywhere and at once:
//! redis-cli HSET deny-list ticket-4711 '[{"claim": {"path": "service", "expected": "orders"}}]'
//! redis-cli PUBLISH deny-list changed
//!
//! # Let it in again:
//! redis-cli HDEL deny-list ticket-4711
//! redis-cli PUBLISH deny-list changed
//! ```
//!
//! # What is in Redis
//!
//! - The hash `deny-list` has any number of fields. The name of a field says why it is there, and its
//!   value is a JSON array of [entries](tower_m2m::DenyEntry#json). All fields together are the
//!   list.
//! - A message on the channel `deny-list`, whatever its text, says that the hash has changed.
//!
//! Redis has no empty hash: if the last field is removed, the hash is gone, as it is after Redis has
//! lost its data. So a missing hash is an error, and an empty list needs a field with the value
//! `[]`, such as `base` above. Redis must store its data (`appendonly yes`).
//!
//! Each user that may write the hash can lock out every caller: give M2 a user that may only read,
//! `ACL SETUSER m2 on >secret ~deny-list &deny-list +hgetall +subscribe +ping`.
//!
//! # How it is read
//!
//! [`Feed::start`] subscribes to the channel and then reads the whole hash, so no change between the
//! two is missed. It is read again after each message, and every 10 s in case a message was lost.
//! [`DenyList::replace`] puts the entries in force for the next request, cached tokens included.
//!
//! | what fails | effect |
//! |---|---|
//! | Redis at the start, or a bad value | `Feed::start` returns an error; the service does not start without its list |
//! | Redis later | the last list stays in force; it is connected to again every second, and read |
//! | a value that is not JSON or no entry, or the hash is missing | as if Redis had failed; the log and `/health` say why |
//!
//! Other stores look the same: NATS and etcd have a watch in the place of the channel.

use std::error::Error;
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::routing::{get, post};
use futures_util::StreamExt;
use redis::aio::{MultiplexedConnection, PubSubStream};
use redis::{AsyncCommands, Client};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};
use tower_m2m::{DenyEntry, DenyList, ServiceClaims, Verifier, VerifyServiceTokenLayer};

/// The hash and the channel.
pub const NAME: &str = "deny-list";

/// The longest time for a connection and for a read.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The time between two attempts to connect.
const RETRY: Duration = Duration::from_secs(1);

type BoxError = Box<dyn Error + Send + Sync>;

/// Keeps a [`DenyList`] equal to the hash in Redis until it is dropped.
#[derive(Debug)]
pub struct Feed {
    denied: DenyList,
    status: watch::Receiver<Status>,
    task: AbortHandle,
}

/// What the feed has done.
#[derive(Clone, Debug, Default)]
pub struct Status {
    /// How often the hash was read and put in force.
    pub reads: u64,
    /// Why the list is out of date. `None` if it is not.
    pub error: Option<String>,
}

impl Feed {
    /// Reads the hash, and again after each message and after each `interval`.
    pub async fn start(url: &str, interval: Duration) -> Result<Self, BoxError> {
        let client = Client::open(url)?;
        let mut redis = Redis::connect(&client).await?;
        let denied = DenyList::new();
        denied.replace(redis.entries().await?);
        let (sender, status) = watch::channel(Status { reads: 1, error: None });
        let task = tokio::spawn(follow(client, redis, interval, denied.clone(), sender));
        Ok(Self { denied, status, task: task.abort_handle() })
    }

    /// The list, for [`Verifier::deny_list`].
    pub fn deny_list(&self) -> DenyList {
        self.denied.clone()
    }

    /// Its state, and its later changes.
    pub fn status(&self) -> watch::Receiver<Status> {
        self.status.clone()
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Follows the hash until the task is aborted. After an error the list stays as it is.
async fn follow(
    client: Client,
    redis: Redis,
    interval: Duration,
    denied: DenyList,
    status: watch::Sender<Status>,
) {
    let mut connected = Some(redis);
    loop {
        let redis = match connected.take() {
            Some(redis) => Ok(redis),
            None => Redis::connect(&client).await,
        };
        let error = match redis {
            Ok(redis) => apply_changes(redis, interval, &denied, &status).await,
            Err(error) => error,
        };
        let text = error.to_string();
        let is_new = status
            .send_if_modified(|status| status.error.replace(text.clone()).as_ref() != Some(&text));
        if is_new {
            tracing::warn!(error = text, "deny list is out of date");
        }
        sleep(RETRY).await;
    }
}

/// Reads the hash now, after each message and after each interval, until that fails.
async fn apply_changes(
    mut redis: Redis,
    interval: Duration,
    denied: &DenyList,
    status: &watch::Sender<Status>,
) -> BoxError {
    loop {
        match redis.entries().await {
            Ok(entries) => denied.replace(entries),
            Err(error) => return error,
        }
        let mut has_recovered = false;
        status.send_modify(|status| {
            status.reads += 1;
            has_recovered = status.error.take().is_some();
        });
        if has_recovered {
            tracing::info!("deny list is up to date again");
        }
        tokio::select! {
            is_open = redis.changed() => if !is_open { return "the connection was closed".into() },
            () = sleep(interval) => {}
        }
    }
}

/// A connection that reads, and one that is subscribed to the channel.
struct Redis {
    reader: MultiplexedConnection,
    messages: PubSubStream,
}

impl Redis {
    /// Subscribes before anything is read, so that no change after a read is missed.
    async fn connect(client: &Client) -> Result<Self, BoxError> {
        let connect = async {
            let (mut sink, messages) = client.get_async_pubsub().await?.split();
            sink.subscribe(NAME).await?;
            let reader = client.get_multiplexed_async_connection().await?;
            Ok::<_, BoxError>(Self { reader, messages })
        };
        timeout(TIMEOUT, connect).await?
    }

    /// The entries in all fields of the hash.
    async fn entries(&mut self) -> Result<Vec<DenyEntry>, BoxError> {
        let fields: Vec<(String, String)> = timeout(TIMEOUT, self.reader.hgetall(NAME)).await??;
        if fields.is_empty() {
            return Err(
                format!("there is no hash `{NAME}`; an empty list is a field with []").into()
            );
        }
        let mut entries = Vec::new();
        for (field, value) in fields {
            let list: Vec<DenyEntry> =
                serde_json::from_str(&value).map_err(|err| format!("field {field:?}: {err}"))?;
            entries.extend(list);
        }
        Ok(entries)
    }

    /// Waits for a message. Returns false if the connection was closed.
    async fn changed(&mut self) -> bool {
        self.messages.next().await.is_some()
    }
}

/// The routes: `/charge` for services that are not denied, and `/health` for the operator.
pub fn app(verifier: Verifier, feed: &Feed) -> Router {
    let layer = VerifyServiceTokenLayer::new(verifier.deny_list(feed.deny_list()));
    let state = (feed.deny_list(), feed.status());
    Router::new()
        .route("/charge", post(charge))
        .route_layer(layer)
        .route("/health", get(health).with_state(state))
}

async fn charge(caller: ServiceClaims) -> String {
    format!("charged for {}", caller.service().unwrap_or("a service"))
}

/// The number of entries and the time since they were last read.
async fn health(State((denied, status)): State<(DenyList, watch::Receiver<Status>)>) -> String {
    let (health, error) = (denied.health(), status.borrow().error.clone());
    let age = health.age.unwrap_or_default().as_secs();
    format!(
        "{} entries, {age} s old, error: {}\n",
        health.entries,
        error.as_deref().unwrap_or("none")
    )
}
