//! M2, the called microservice: an axum server that admits only microservices.
//!
//! `GET /health` is public. `GET /whoami` and `POST /whoami` respond with the caller's claims as
//! JSON.
#![allow(clippy::print_stdout)] // prints its address

use std::process::ExitCode;

use axum::routing::get;
use axum::{Json, Router};
use serde_json::Value;
use tokio::net::TcpListener;
use tower_m2m::{RemoteJwks, ServiceClaims, Verifier, VerifyServiceTokenLayer};

use support::chain;

mod support;

const USAGE: &str = "usage: m2 --listen ADDR --jwks URL [--issuer ISS] [--allow-plain-http]

  --listen ADDR        address and port to listen on, for example 127.0.0.1:4002
  --jwks URL           the JWKS endpoint of the authority
  --issuer ISS         accept only tokens with this `iss`
  --allow-plain-http   allow an http URL beyond loopback";

#[derive(Default)]
struct Flags {
    listen: String,
    jwks: String,
    issuer: Option<String>,
    allow_plain_http: bool,
}

fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut flags = Flags::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("listen") => flags.listen = parser.value()?.string()?,
            Long("jwks") => flags.jwks = parser.value()?.string()?,
            Long("issuer") => flags.issuer = Some(parser.value()?.string()?),
            Long("allow-plain-http") => flags.allow_plain_http = true,
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    for (name, value) in [("--listen", &flags.listen), ("--jwks", &flags.jwks)] {
        if value.is_empty() {
            return Err(format!("{name} is missing").into());
        }
    }
    Ok(Some(flags))
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = match flags() {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("m2: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(flags).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("m2: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> Result<(), Box<dyn std::error::Error>> {
    let mut jwks = RemoteJwks::builder(&flags.jwks);
    if flags.allow_plain_http {
        jwks = jwks.allow_plain_http();
    }
    let jwks = jwks.build()?;
    let mut verifier = Verifier::new(jwks.clone());
    if let Some(issuer) = flags.issuer {
        verifier = verifier.issuer(issuer);
    }
    let app = Router::new()
        .route("/whoami", get(whoami).post(whoami))
        .route_layer(VerifyServiceTokenLayer::new(verifier))
        .route("/health", get(|| async { "ok\n" })); // added after the layer: public

    let listener = TcpListener::bind(&flags.listen)
        .await
        .map_err(|err| format!("cannot listen on {}: {err}", flags.listen))?;
    println!("listening on http://{}", listener.local_addr()?);

    // Fetches the keys before the first request. A request without usable keys gets 503.
    tokio::spawn(async move {
        if let Err(error) = jwks.ready().await {
            tracing::warn!(%error, "key set not loaded");
        }
    });
    axum::serve(listener, app).with_graceful_shutdown(stop_signal()).await?;
    Ok(())
}

async fn whoami(caller: ServiceClaims) -> Result<Json<Value>, axum::http::StatusCode> {
    caller.deserialize().map(Json).map_err(|_| axum::http::StatusCode::INTERNAL_SERVER_ERROR)
}

/// Resolves on Ctrl-C and, on Unix, on SIGTERM.
async fn stop_signal() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Ok(mut terminate) = signal(SignalKind::terminate()) {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = tokio::signal::ctrl_c() => {}
            }
            return;
        }
    }
    let _ = tokio::signal::ctrl_c().await;
}
