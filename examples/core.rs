//! The embedded core as a server, at which the official SuperTokens SDKs and this crate can mint.
//!
//! ```text
//! cargo run --example core -- --listen 127.0.0.1:3567 --api-key key-one-0123456789abcdef
//! ```
//!
//! Exit codes: 0 after a graceful stop (SIGTERM or Ctrl-C), 1 if the server cannot run, 2 if the
//! command line or `SUPERTOKENS_API_KEYS` is invalid.

use std::env;
use std::error::Error;
use std::ffi::OsString;
use std::io::{self, IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use tokio::net::TcpListener;
use tower_m2m::EmbeddedCore;
use tower_m2m::embedded_core::BuildError;

use support::chain;

mod support;

const USAGE: &str = "\
usage: core [--listen ADDRESS] [--data DIR] [--api-key KEY]... [--allow-open] [--base-path PATH]
            [--rotate-every SECONDS] [--access-token-validity SECONDS]

  --listen ADDRESS        IP address and port to listen on (127.0.0.1:3567)
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

environment:
  SUPERTOKENS_API_KEYS    api keys, separated by commas, as a SuperTokens core's `api_keys`. Unlike --api-key, they do
                          not appear in the list of processes";

/// Why the program fails.
enum Failure {
    /// The command line or `SUPERTOKENS_API_KEYS` is invalid: exit code 2.
    Usage(String),
    /// The server cannot run: exit code 1.
    Server(String),
}

struct Options {
    listen: SocketAddr,
    data_folder: Option<PathBuf>,
    api_keys: Vec<String>,
    allow_open: bool,
    base_path: Option<String>,
    rotate_every: Option<Duration>,
    access_token_validity: Option<Duration>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    let result = match options(lexopt::Parser::from_env()) {
        Ok(Some(options)) => run(options).await,
        Ok(None) => print_line(USAGE),
        Err(err) => Err(Failure::Usage(err.to_string())),
    };
    let (code, text) = match result {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(reason)) => (2, format!("core: {reason}\n{USAGE}")),
        Err(Failure::Server(reason)) => (1, format!("core: {reason}")),
    };
    // With stderr closed, the exit code alone reports the failure.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(code)
}

/// Parses the command line. `None` if it asks for help.
fn options(mut parser: lexopt::Parser) -> Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 3567)),
        data_folder: None,
        api_keys: api_keys_of_environment()?,
        allow_open: false,
        base_path: None,
        rotate_every: None,
        access_token_validity: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => {
                let address = parser.value()?.string()?;
                options.listen = address
                    .parse()
                    .map_err(|_| format!("--listen {address:?} is not an IP address and port"))?;
            }
            Long("api-key") => {
                // Not lexopt's error: it would print the key.
                let key =
                    parser.value()?.into_string().map_err(|_| "--api-key is not valid UTF-8")?;
                options.api_keys.push(key);
            }
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
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Some(options))
}

fn seconds(flag: &str, value: OsString) -> Result<Duration, Box<dyn Error>> {
    let text = value.string()?;
    let seconds =
        text.parse().map_err(|_| format!("{flag} {text:?} is not a number of seconds"))?;
    Ok(Duration::from_secs(seconds))
}

/// An empty variable means no api keys. An empty key among others is passed on, and the core
/// rejects it.
fn api_keys_of_environment() -> Result<Vec<String>, Box<dyn Error>> {
    match env::var("SUPERTOKENS_API_KEYS") {
        Ok(keys) if keys.trim().is_empty() => Ok(Vec::new()),
        Ok(keys) => Ok(keys.split(',').map(|key| key.trim().to_owned()).collect()),
        Err(env::VarError::NotPresent) => Ok(Vec::new()),
        // Not the `VarError`: it would print the keys.
        Err(env::VarError::NotUnicode(_)) => Err("SUPERTOKENS_API_KEYS is not valid UTF-8".into()),
    }
}

async fn run(options: Options) -> Result<(), Failure> {
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
        | BuildError::DataFolderInUse { .. } => Failure::Server(chain(&err)),
        _ => Failure::Usage(chain(&err)),
    })?;
    let exposed = |err| {
        Failure::Usage(format!(
            "{err}; give --api-key or SUPERTOKENS_API_KEYS, or --allow-open to let everyone mint"
        ))
    };
    core.check_exposure(options.listen).map_err(exposed)?;

    let cannot_listen =
        |err| Failure::Server(format!("cannot listen on {}: {err}", options.listen));
    let listener = TcpListener::bind(options.listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let stop =
        stop_signal().map_err(|err| Failure::Server(format!("cannot wait for signals: {err}")))?;
    print_line(&format!("listening on http://{address}"))?;
    core.serve(listener, stop).await.map_err(|err| Failure::Server(chain(&err)))
}

/// Prints a line on stdout and flushes it, for a reader behind a pipe.
fn print_line(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let result = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    result.map_err(|err| Failure::Server(format!("cannot write to stdout: {err}")))
}

/// Resolves on SIGTERM or Ctrl-C. The handlers are installed by this call, so that a signal sent
/// after the `listening on` line stops the server gracefully.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

#[cfg(not(unix))]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    Ok(async {
        // Without a handler, Ctrl-C terminates the process.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}
