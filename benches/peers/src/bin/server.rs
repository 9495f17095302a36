//! An axum server with one route behind one contestant. `whole-server` runs it under load.

use std::fs::OpenOptions;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;

use peers::app::Routes;
use peers::authority::{Authority, Fixture, Result};
use peers::contestants::{self, NONE, PEERS, Provider, THIS};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

const USAGE: &str = "usage: server --layer NAME --token-file FILE --forged-token-file FILE
              [--provider aws-lc-rs|RustCrypto]

  --layer NAME       layer around `GET /`: none, tower-m2m, or the name of a peer
  --token-file FILE  file to which a valid token is written
  --forged-token-file FILE
                     file to which a forged token is written: known `kid`, bad signature
  --provider NAME    jsonwebtoken's crypto provider; aws-lc-rs by default

Prints one line, `listening on http://ADDR`. Exits when stdin is closed or on SIGTERM.";

struct Flags {
    layer: String,
    token_file: String,
    forged_token_file: String,
    provider: Provider,
}

fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut flags = Flags {
        layer: String::new(),
        token_file: String::new(),
        forged_token_file: String::new(),
        provider: Provider::AwsLc,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("layer") => flags.layer = parser.value()?.string()?,
            Long("token-file") => flags.token_file = parser.value()?.string()?,
            Long("forged-token-file") => flags.forged_token_file = parser.value()?.string()?,
            Long("provider") => flags.provider = parser.value()?.parse()?,
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    if ![NONE, THIS].iter().chain(&PEERS).any(|name| *name == flags.layer) {
        return Err(format!("--layer must be one of {NONE}, {THIS}, {}", PEERS.join(", ")).into());
    }
    if flags.token_file.is_empty() || flags.forged_token_file.is_empty() {
        return Err("--token-file and --forged-token-file are required".into());
    }
    Ok(Some(flags))
}

fn main() -> Result<()> {
    let Some(flags) = flags()? else {
        println!("{USAGE}");
        return Ok(());
    };
    flags.provider.install();
    let authority = Authority::start(0)?;
    write_token(&flags.token_file, &authority.fixture.known)?;
    write_token(&flags.forged_token_file, &authority.fixture.bad_signature)?;
    tokio::runtime::Runtime::new()?.block_on(serve(&flags.layer, &authority.fixture))
}

/// Writes a file that only its owner can read.
fn write_token(path: &str, token: &str) -> Result<()> {
    let mut file =
        OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    Ok(file.write_all(token.as_bytes())?)
}

async fn serve(layer: &str, fixture: &Fixture) -> Result<()> {
    let routes = contestants::build(layer, fixture).await?.routes;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("listening on http://{}", listener.local_addr()?);
    match routes {
        Routes::Axum08(routes) => drop(tokio::spawn(axum::serve(listener, routes).into_future())),
        Routes::Axum07(routes) => {
            drop(tokio::spawn(axum_07::serve(listener, routes).into_future()))
        }
    }
    let mut terminate = signal(SignalKind::terminate())?;
    let mut rest = Vec::new();
    tokio::select! {
        _ = terminate.recv() => {}
        _ = async { tokio::io::stdin().read_to_end(&mut rest).await } => {}
    }
    // Dropping the runtime would wait for the thread that reads stdin.
    std::process::exit(0)
}
