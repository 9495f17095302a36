//! The embedded core as a server, at which the official SuperTokens SDKs and this crate can mint.
//!
//! ```text
//! cargo run --example core -- --listen 127.0.0.1:3567 --api-key key-one-0123456789abcdef
//! ```
//!
//! Exit codes: 0 after a graceful stop (SIGTERM or Ctrl-C), 1 if the server cannot run, 2 if the
//! command line or `SUPERTOKENS_API_KEYS` is invalid.

use std::env::{self, VarError};
use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use tower_m2m::EmbeddedCore;
use tower_m2m::embedded_core::BuildError;
use tracing_subscriber::filter::LevelFilter;

use support::{Stop, chain, exit_code, log_to_stderr, print};

#[path = "support/server.rs"]
mod server;
mod support;

const USAGE: &str = "\
usage: core [--listen ADDRESS] [--data DIR] [--api-key KEY]... [--allow-open] [--base-path PATH]
            [--rotate-every SECONDS] [--access-token-validity SECONDS]

Mints tokens as a SuperTokens core does, and serves the keys that verify them, until SIGTERM or Ctrl-C.

  --listen ADDRESS        host name or IP address and port to listen on (127.0.0.1:3567)
  --data DIR              store the keys in this folder, which is created if it is missing; without it the keys are
                          lost when the process exits, and every token becomes invalid
  --api-key KEY           accept this api key, in addition to those of SUPERTOKENS_API_KEYS; may be repeated
  --allow-open            without an api key, listen beyond loopback and accept any Host and Origin: everyone who
                          can reach the core can mint
  --base-path PATH        path prefix of all routes
  --rotate-every SECONDS  how long a dynamic key signs (604800)
  --access-token-validity SECONDS
                          intended validity of tokens that a dynamic key signs (3600, or --rotate-every if that is
                          shorter); a replaced dynamic key stays listed for twice this time
  --help                  print this help

routes:
  POST /recipe/jwt            everyone, or the holders of an api key if the core has one: a token
  GET /.well-known/jwks.json  everyone: the keys, as a JWK Set

environment:
  SUPERTOKENS_API_KEYS    api keys, separated by commas, as a SuperTokens core's `api_keys`. Unlike --api-key, they do
                          not appear in the list of processes
  RUST_LOG                what to log on stderr, for example debug or warn,tower_m2m=debug (info)";

struct Options {
    listen: String,
    data_folder: Option<PathBuf>,
    api_keys: Vec<String>,
    allow_open: bool,
    base_path: Option<String>,
    rotate_every: Option<Duration>,
    access_token_validity: Option<Duration>,
}

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr(LevelFilter::INFO);
    exit_code("core", USAGE, run().await)
}

/// Parses the command line. `None` if it asks for help.
fn options() -> Result<Option<Options>, lexopt::Error> {
    let mut options = Options {
        listen: "127.0.0.1:3567".to_owned(),
        data_folder: None,
        api_keys: api_keys_of_environment()?,
        allow_open: false,
        base_path: None,
        rotate_every: None,
        access_token_validity: None,
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => options.listen = parser.value()?.string()?,
            Long("api-key") => options.api_keys.push(parser.value()?.string()?),
            Long("data") => options.data_folder = Some(parser.value()?.into()),
            Long("base-path") => options.base_path = Some(parser.value()?.string()?),
            Long("allow-open") => options.allow_open = true,
            Long("rotate-every") => {
                options.rotate_every = Some(seconds("--rotate-every", parser.value()?)?)
            }
            Long("access-token-validity") => {
                options.access_token_validity =
                    Some(seconds("--access-token-validity", parser.value()?)?);
            }
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected()),
        }
    }
    Ok(Some(options))
}

fn seconds(flag: &str, value: OsString) -> Result<Duration, lexopt::Error> {
    let text = value.string()?;
    let seconds =
        text.parse().map_err(|_| format!("{flag} {text:?} is not a number of seconds"))?;
    Ok(Duration::from_secs(seconds))
}

/// An empty variable means no api keys. An empty key among others is passed on, and the core
/// rejects it.
fn api_keys_of_environment() -> Result<Vec<String>, lexopt::Error> {
    match env::var("SUPERTOKENS_API_KEYS") {
        Ok(keys) if keys.trim().is_empty() => Ok(Vec::new()),
        Ok(keys) => Ok(keys.split(',').map(|key| key.trim().to_owned()).collect()),
        Err(VarError::NotPresent) => Ok(Vec::new()),
        // Not the `VarError`: it would print the keys.
        Err(VarError::NotUnicode(_)) => Err("SUPERTOKENS_API_KEYS is not valid UTF-8".into()),
    }
}

async fn run() -> Result<ExitCode, Stop> {
    let Some(options) = options().map_err(Stop::command_line)? else {
        return print(USAGE).map(|()| ExitCode::SUCCESS);
    };
    let mut builder = EmbeddedCore::builder();
    for key in options.api_keys {
        builder = builder.api_key(key);
    }
    if options.allow_open {
        builder = builder.allow_open();
    }
    if let Some(path) = options.data_folder {
        builder = builder.data_folder(path);
    }
    if let Some(path) = options.base_path {
        builder = builder.base_path(path);
    }
    if let Some(interval) = options.rotate_every {
        // Replaced keys stay listed for twice the validity. With the default of 1 h, fast rotation
        // would list very many keys.
        builder = builder
            .rotate_every(interval)
            .access_token_validity(interval.min(Duration::from_secs(3600)));
    }
    if let Some(validity) = options.access_token_validity {
        builder = builder.access_token_validity(validity);
    }
    let core = builder.build().await.map_err(|err| match err {
        BuildError::KeyGeneration
        | BuildError::KeyFile { .. }
        | BuildError::DataFolder { .. }
        | BuildError::DataFolderInUse { .. } => Stop::Failed(chain(&err)),
        _ => Stop::Usage(chain(&err)),
    })?;
    let addresses = server::resolve(&options.listen).await?;
    for address in &addresses {
        core.check_exposure(*address).map_err(|_| {
            Stop::Usage(format!(
                "--listen {address} is beyond loopback, where everyone could mint: give --api-key or \
                 SUPERTOKENS_API_KEYS, or --allow-open to allow it"
            ))
        })?;
    }
    let (listener, stop) = server::listen(&addresses).await?;
    core.serve(listener, stop).await?;
    Ok(ExitCode::SUCCESS)
}
