//! The feed with a real `redis-server`, which must be installed.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::http::Request;
use axum::http::header::AUTHORIZATION;
use deny_list_redis::{Feed, NAME, Status, app};
use redis::aio::MultiplexedConnection;
use redis::{AsyncCommands, Client};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::{Child, Command};
use tokio::sync::watch;
use tokio::time::timeout;
use tower::ServiceExt;
use tower_m2m::testing::TestAuthority;

/// Longer than any test: only messages cause a read.
const NEVER: Duration = Duration::from_secs(3600);

/// Only ends a hang.
const DEADLINE: Duration = Duration::from_secs(30);

const DENIED: &str = r#"[{"claim": {"path": "service", "expected": "orders"}}]"#;

/// A Redis without persistence. Stopped on drop.
///
/// On a Unix socket, because redis-server cannot choose a free port: one that a test finds free may
/// be taken before the server listens on it.
struct Server {
    folder: TempDir,
    process: Child,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = Self::run(&socket(&folder)).await;
        Self { folder, process }
    }

    async fn run(socket: &Path) -> Child {
        let mut process = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no", "--unixsocket"])
            .arg(socket)
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("redis-server is installed");
        let mut lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let ready = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                if line.contains("ready to accept connections at") {
                    return;
                }
            }
            panic!("redis-server does not start");
        };
        timeout(DEADLINE, ready).await.unwrap();
        process
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", socket(&self.folder).display())
    }

    async fn stop(&mut self) {
        self.process.kill().await.unwrap();
    }

    /// Starts it again on the same socket, without its data.
    async fn restart(&mut self) {
        self.process = Self::run(&socket(&self.folder)).await;
    }

    async fn connect(&self) -> MultiplexedConnection {
        let client = Client::open(self.url()).unwrap();
        client.get_multiplexed_async_connection().await.unwrap()
    }

    async fn set(&self, field: &str, value: &str) {
        let () = self.connect().await.hset(NAME, field, value).await.unwrap();
    }

    async fn delete(&self, field: &str) {
        let () = self.connect().await.hdel(NAME, field).await.unwrap();
    }

    async fn publish(&self) {
        let () = self.connect().await.publish(NAME, "changed").await.unwrap();
    }
}

fn socket(folder: &TempDir) -> PathBuf {
    folder.path().join("redis.sock")
}

/// A service with its feed, and the token of the caller `orders`.
struct Service {
    app: Router,
    token: String,
    feed: Feed,
}

impl Service {
    async fn start(redis: &Server, interval: Duration) -> Self {
        Self::start_with(&redis.url(), interval).await
    }

    async fn start_with(url: &str, interval: Duration) -> Self {
        let authority = TestAuthority::offline();
        let feed = Feed::start(url, interval).await.unwrap();
        let app = app(authority.verifier().audience("billing"), &feed);
        let token = authority.token().claim("service", "orders").audience("billing").sign();
        Self { app, token, feed }
    }

    /// The status of the response to `orders`.
    async fn call(&self) -> u16 {
        let request =
            Request::post("/charge").header(AUTHORIZATION, format!("Bearer {}", self.token));
        let request = request.body(Body::empty()).unwrap();
        self.app.clone().oneshot(request).await.unwrap().status().as_u16()
    }

    async fn wait_for(&self, condition: impl FnMut(&Status) -> bool) -> Status {
        let mut status: watch::Receiver<Status> = self.feed.status();
        let status = timeout(DEADLINE, status.wait_for(condition)).await;
        status.expect("the feed is late").unwrap().clone()
    }

    /// Waits until the hash was read once more after `change`.
    async fn after(&self, change: impl Future<Output = ()>) {
        // The first read after the start needs no message.
        let before = self.wait_for(|status| status.reads >= 2).await.reads;
        change.await;
        self.wait_for(|status| status.reads > before).await;
    }
}

#[tokio::test]
async fn cached_token_is_stopped_by_the_next_request_and_lifted() {
    let redis = Server::start().await;
    redis.set("base", "[]").await;
    let service = Service::start(&redis, NEVER).await;
    for _ in 0..2 {
        assert_eq!([service.call().await, service.call().await], [200, 200]);
        service
            .after(async {
                redis.set("ticket-1", DENIED).await;
                redis.publish().await;
            })
            .await;
        assert_eq!([service.call().await, service.call().await], [403, 403]);
        service
            .after(async {
                redis.delete("ticket-1").await;
                redis.publish().await;
            })
            .await;
    }
    assert_eq!(service.call().await, 200);
}

#[tokio::test]
async fn entry_at_the_start_is_in_force() {
    let redis = Server::start().await;
    redis.set("ticket-1", DENIED).await;
    assert_eq!(Service::start(&redis, NEVER).await.call().await, 403);
}

#[tokio::test]
async fn lost_message_is_made_up_for_after_the_interval() {
    let redis = Server::start().await;
    redis.set("base", "[]").await;
    let service = Service::start(&redis, Duration::from_millis(50)).await;
    assert_eq!(service.call().await, 200);
    redis.set("ticket-1", DENIED).await;
    let reads = service.feed.status().borrow().reads;
    // The first of these reads may have started before the change.
    service.wait_for(|status| status.reads >= reads + 2).await;
    assert_eq!(service.call().await, 403);
}

#[tokio::test]
async fn list_outlasts_an_outage_and_the_loss_of_its_data() {
    let mut redis = Server::start().await;
    redis.set("ticket-1", DENIED).await;
    let service = Service::start(&redis, NEVER).await;
    redis.stop().await;
    service.wait_for(|status| status.error.is_some()).await;
    assert_eq!(service.call().await, 403);

    redis.restart().await;
    let lost = |status: &Status| {
        status.error.as_ref().is_some_and(|error| error.starts_with("there is no hash"))
    };
    service.wait_for(lost).await;
    assert_eq!(service.call().await, 403);

    redis.set("base", "[]").await;
    service.wait_for(|status| status.error.is_none()).await;
    assert_eq!(service.call().await, 200);
}

#[tokio::test]
async fn bad_value_keeps_the_list_in_force() {
    let redis = Server::start().await;
    redis.set("ticket-1", DENIED).await;
    let service = Service::start(&redis, NEVER).await;
    redis.set("ticket-2", r#"[{"service": "orders"}]"#).await;
    redis.delete("ticket-1").await;
    redis.publish().await;
    let status = service.wait_for(|status| status.error.is_some()).await;
    assert!(status.error.unwrap().starts_with("field \"ticket-2\": unknown field `service`"));
    assert_eq!(service.call().await, 403);
}

/// With the rights in the docs of the library.
#[tokio::test]
async fn user_that_may_only_read_suffices() {
    let redis = Server::start().await;
    redis.set("base", "[]").await;
    let rules = ["on", ">secret", "~deny-list", "&deny-list", "+hgetall", "+subscribe", "+ping"];
    let mut set_user = redis::cmd("ACL");
    set_user.arg("SETUSER").arg("m2").arg(&rules);
    let () = set_user.query_async(&mut redis.connect().await).await.unwrap();
    let url = format!("{}?user=m2&pass=secret", redis.url());
    let service = Service::start_with(&url, NEVER).await;
    service
        .after(async {
            redis.set("ticket-1", DENIED).await;
            redis.publish().await;
        })
        .await;
    assert_eq!(service.call().await, 403);
}

#[tokio::test]
async fn service_does_not_start_without_its_list() {
    let mut redis = Server::start().await;
    let start = |redis: &Server| {
        let url = redis.url();
        async move { Feed::start(&url, NEVER).await.map(drop).map_err(|err| err.to_string()) }
    };
    assert!(start(&redis).await.unwrap_err().starts_with("there is no hash"));
    redis.set("base", "{}").await;
    assert!(start(&redis).await.unwrap_err().starts_with("field \"base\""));
    redis.stop().await;
    start(&redis).await.unwrap_err();
}
