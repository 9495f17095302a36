//! M2, the called microservice: an axum server that admits only microservices.
//!
//! ```text
//! cargo run --example m2 -- --listen 127.0.0.1:4002 --jwks http://127.0.0.1:3567/.well-known/jwks.json
//! ```
//!
//! | route | who may call it | answers |
//! |---|---|---|
//! | `GET /whoami`, `POST /whoami` | microservices | the caller's claims as JSON |
//! | `GET /health`, `GET /livez` | everyone | `ok` |
//! | `GET /readyz` | everyone | `ok`, or 503 while M2 has no usable keys |
//! | `GET /metrics` | everyone | the metrics in Prometheus' text format, for `examples/dashboard.json` |

use std::process::ExitCode;

use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use tower_m2m::{
    DenyList, KeySource, LocalJwks, RemoteJwks, ServiceClaims, ServiceToken, TokenFile, Verifier,
    VerifyServiceTokenLayer,
};
use tracing_subscriber::filter::LevelFilter;

use marker::Marker;
use prometheus::Prometheus;
use support::{Stop, chain, exit_code, log_to_stderr, print};

#[path = "support/http_server.rs"]
mod http_server;
#[path = "support/marker.rs"]
mod marker;
#[path = "support/prometheus.rs"]
mod prometheus;
#[path = "support/server.rs"]
mod server;
mod support;

const USAGE: &str = "\
usage: m2 --listen ADDRESS (--jwks URL | --discover ISSUER) [--jwks-token-file FILE] [--allow-plain-http] [options]
       m2 --listen ADDRESS --jwks-file FILE [options]

Serves the routes below until SIGTERM or Ctrl-C. `/whoami` admits only requests with a valid token of a service.

  --listen ADDRESS       host name or IP address and port to listen on, for example 127.0.0.1:4002
  --jwks URL             the JWKS endpoint of the authority
  --discover ISSUER      read the URL of the JWKS endpoint from the issuer's metadata (OpenID Connect discovery, RFC 8414)
  --jwks-token-file FILE a file with the token that the JWKS endpoint requires
  --jwks-file FILE       a file with the keys, as a JWK Set or in PEM, which is read again every 10 s
  --allow-plain-http     allow an http URL beyond loopback

options:
  --issuer ISS           accept only tokens with this `iss`
  --audience AUD         accept only tokens with this `aud`
  --marker CLAIM=VALUE   the claim that only service tokens have (source=microservice). CLAIM may be a JSON array, the
                         path to a nested claim; VALUE may be JSON: service=[\"orders\",\"refunds\"],
                         scope={\"scope\":\"charge\"}
  --deny-list FILE       a JSON file with the tokens to refuse, which is read again every 10 s:
                         [{\"claim\":{\"path\":\"jti\",\"expected\":\"0b4ce6a7\"}}]
  --help                 print this help

routes:
  GET, POST /whoami      microservices alone: the caller's claims as JSON
  GET /health, /livez    everyone: ok
  GET /readyz            everyone: ok, or 503 while there are no usable keys
  GET /metrics           everyone: the metrics in Prometheus' text format

environment:
  RUST_LOG               what to log on stderr, for example debug or warn,tower_m2m=debug (info)";

#[derive(Default)]
struct Flags {
    listen: String,
    jwks: Option<String>,
    discover: Option<String>,
    jwks_token_file: Option<String>,
    jwks_file: Option<String>,
    issuer: Option<String>,
    audience: Option<String>,
    marker: Marker,
    deny_list: Option<String>,
    allow_plain_http: bool,
}

/// Parses the command line. `None` if it asks for help.
fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut flags = Flags::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("listen") => flags.listen = parser.value()?.string()?,
            Long("jwks") => flags.jwks = Some(parser.value()?.string()?),
            Long("discover") => flags.discover = Some(parser.value()?.string()?),
            Long("jwks-token-file") => flags.jwks_token_file = Some(parser.value()?.string()?),
            Long("jwks-file") => flags.jwks_file = Some(parser.value()?.string()?),
            Long("issuer") => flags.issuer = Some(parser.value()?.string()?),
            Long("audience") => flags.audience = Some(parser.value()?.string()?),
            Long("marker") => flags.marker = Marker::parse(&parser.value()?.string()?)?,
            Long("deny-list") => flags.deny_list = Some(parser.value()?.string()?),
            Long("allow-plain-http") => flags.allow_plain_http = true,
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    if flags.listen.is_empty() {
        return Err("--listen is missing".into());
    }
    Ok(Some(flags))
}

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr(LevelFilter::INFO);
    exit_code("m2", USAGE, run().await)
}

async fn run() -> Result<ExitCode, Stop> {
    let Some(flags) = flags().map_err(Stop::command_line)? else {
        return print(USAGE).map(|()| ExitCode::SUCCESS);
    };
    // Before anything records: a metric that is made without a recorder stays without one.
    let prometheus = Prometheus::default();
    metrics::set_global_recorder(prometheus.clone())
        .map_err(|_| Stop::Failed("a metrics recorder is installed already".to_owned()))?;
    tower_m2m::metrics::describe();
    let addresses = server::resolve(&flags.listen).await?;
    let (keys, remote) = keys(&flags).await?;
    let mut verifier = flags.marker.require(Verifier::new(keys));
    if let Some(issuer) = flags.issuer {
        verifier = verifier.issuer(issuer);
    }
    if let Some(audience) = flags.audience {
        verifier = verifier.audience(audience);
    }
    if let Some(file) = flags.deny_list {
        let denied = DenyList::new();
        denied.watch_file(file)?;
        verifier = verifier.deny_list(denied);
    }
    let app = Router::new()
        .route("/whoami", get(whoami).post(whoami))
        .route_layer(VerifyServiceTokenLayer::new(verifier))
        // Added after the layer: public.
        .route("/health", get(|| async { "ok\n" }))
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz).with_state(remote.clone()))
        .route("/metrics", get(metrics_text).with_state(prometheus));

    let (listener, stop) = server::listen(&addresses).await?;

    // Fetches the keys before the first request. A request without usable keys gets 503.
    if let Some(jwks) = remote {
        tokio::spawn(async move {
            if let Err(err) = jwks.ready().await {
                tracing::warn!(error = chain(&err), "key set not loaded");
            }
        });
    }

    http_server::serve(listener, app, stop).await;
    Ok(ExitCode::SUCCESS)
}

/// The keys of the authority, and the same ones if M2 fetches them.
async fn keys(flags: &Flags) -> Result<(KeySource, Option<RemoteJwks>), Stop> {
    let mut jwks = match (&flags.jwks, &flags.discover, &flags.jwks_file) {
        (Some(url), None, None) => RemoteJwks::builder(url),
        (None, Some(issuer), None) => RemoteJwks::discover(issuer),
        (None, None, Some(_)) if flags.jwks_token_file.is_some() => {
            return Err(Stop::Usage("--jwks-token-file needs --jwks or --discover".to_owned()));
        }
        (None, None, Some(file)) => return Ok((LocalJwks::watch_file(file)?.into(), None)),
        _ => {
            return Err(Stop::Usage("give one of --jwks, --discover and --jwks-file".to_owned()));
        }
    };
    if flags.allow_plain_http {
        jwks = jwks.allow_plain_http();
    }
    if let Some(file) = &flags.jwks_token_file {
        jwks = jwks.bearer_token(ServiceToken::from_source(TokenFile::new(file)).await?);
    }
    let jwks = jwks.build().map_err(|err| Stop::Usage(chain(&err)))?;
    Ok((jwks.clone().into(), Some(jwks)))
}

async fn whoami(caller: ServiceClaims) -> Result<Json<Value>, StatusCode> {
    caller.deserialize().map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

async fn metrics_text(State(prometheus): State<Prometheus>) -> impl IntoResponse {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], prometheus.render())
}

/// M2 is ready while it has usable keys, also through an outage of the endpoint. It does not start
/// without those of a file.
async fn readyz(State(jwks): State<Option<RemoteJwks>>) -> (StatusCode, &'static str) {
    match jwks.is_none_or(|jwks| jwks.is_ready()) {
        true => (StatusCode::OK, "ok\n"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "no usable keys\n"),
    }
}
