//! The embedded core as a server: what official SuperTokens SDKs, and this crate, can mint against.
//!
//! ```text
//! cargo run --example core -- --listen 127.0.0.1:3567 --api-key key-one-0123456789abcdef
//! ```
//!
//! Exit codes: 0 after a graceful stop (SIGTERM or Ctrl-C), 1 when it cannot run, 2 when it was called wrongly.

use std::{
    error::Error,
    io::{self, IsTerminal as _, Write as _},
    net::SocketAddr,
    process::ExitCode,
    time::Duration,
};

use lexopt::prelude::*;
use tokio::net::TcpListener;
use tower_m2m::{ConfigError, EmbeddedCore};

const USAGE: &str = "\
usage: core [--listen ADDRESS] [--api-key KEY]... [--allow-open] [--rotate-every SECONDS]

  --listen ADDRESS        IP address and port to listen on (127.0.0.1:3567)
  --api-key KEY           admit callers with this api key; may be repeated
  --allow-open            listen beyond loopback without an api key: whoever reaches the core can mint
  --rotate-every SECONDS  how long a dynamic key signs (604800); it stays listed for 2 h longer, or for twice
                          this where that is shorter
  --help                  print this";

/// Why the program ends other than by a signal, and so with which exit code.
enum Failure {
    /// 2: another call is needed.
    Usage(String),
    /// 1: the call was fine, the machine was not.
    Running(String),
}

struct Options {
    listen: SocketAddr,
    api_keys: Vec<String>,
    allow_open: bool,
    rotate_every: Option<Duration>,
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(io::stderr).with_ansi(io::stderr().is_terminal()).init();
    let ended = match options(lexopt::Parser::from_env()) {
        Ok(Some(options)) => run(options).await,
        Ok(None) => say(USAGE),
        Err(err) => Err(Failure::Usage(err.to_string())),
    };
    let (code, text) = match ended {
        Ok(()) => return ExitCode::SUCCESS,
        Err(Failure::Usage(reason)) => (2, format!("core: {reason}\n{USAGE}")),
        Err(Failure::Running(reason)) => (1, format!("core: {reason}")),
    };
    // A closed stderr leaves the exit code to tell.
    let _ = writeln!(io::stderr(), "{text}");
    ExitCode::from(code)
}

/// What the command line asks for; nothing if that is help.
fn options(mut parser: lexopt::Parser) -> Result<Option<Options>, Box<dyn Error>> {
    let mut options = Options {
        listen: SocketAddr::from(([127, 0, 0, 1], 3567)),
        api_keys: Vec::new(),
        allow_open: false,
        rotate_every: None,
    };
    while let Some(argument) = parser.next()? {
        match argument {
            Long("listen") => {
                let address = parser.value()?.string()?;
                options.listen =
                    address.parse().map_err(|_| format!("--listen {address:?} is no IP address and port"))?;
            }
            Long("api-key") => {
                // Not lexopt's own error, which would print the key.
                let key = parser.value()?.into_string().map_err(|_| "--api-key is not valid UTF-8")?;
                options.api_keys.push(key);
            }
            Long("allow-open") => options.allow_open = true,
            Long("rotate-every") => {
                let seconds = parser.value()?.string()?;
                let parsed =
                    seconds.parse().map_err(|_| format!("--rotate-every {seconds:?} is no number of seconds"))?;
                options.rotate_every = Some(Duration::from_secs(parsed));
            }
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(argument.unexpected().into()),
        }
    }
    Ok(Some(options))
}

async fn run(options: Options) -> Result<(), Failure> {
    let mut builder = EmbeddedCore::builder();
    for key in options.api_keys {
        builder = builder.api_key(key);
    }
    if options.allow_open {
        builder = builder.allow_open();
    }
    if let Some(interval) = options.rotate_every {
        // Old keys stay listed for twice this longer: with an hour, fast rotation would list more keys than is useful.
        builder = builder.rotate_every(interval).access_token_validity(interval.min(Duration::from_secs(3600)));
    }
    let core = builder.build().await.map_err(|err| match err {
        ConfigError::KeyGeneration => Failure::Running(err.to_string()),
        _ => Failure::Usage(err.to_string()),
    })?;
    let open = |err| Failure::Usage(format!("{err}; give --api-key, or --allow-open to let everyone mint"));
    core.check_exposure(options.listen).map_err(open)?;

    let cannot_listen = |err| Failure::Running(format!("cannot listen on {}: {err}", options.listen));
    let listener = TcpListener::bind(options.listen).await.map_err(cannot_listen)?;
    let address = listener.local_addr().map_err(cannot_listen)?;
    let stop = stop_signal().map_err(|err| Failure::Running(format!("cannot wait for signals: {err}")))?;
    say(&format!("listening on http://{address}"))?;
    core.serve(listener, stop).await.map_err(|err| Failure::Running(err.to_string()))
}

/// One line on stdout, at once.
fn say(line: &str) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let said = writeln!(stdout, "{line}").and_then(|()| stdout.flush());
    said.map_err(|err| Failure::Running(format!("cannot write to stdout: {err}")))
}

/// Ends at the first SIGTERM or Ctrl-C. Listening for both begins here, before anyone is told that the core is ready.
#[cfg(unix)]
fn stop_signal() -> io::Result<impl Future<Output = ()> + Send + 'static> {
    use tokio::signal::unix::{SignalKind, signal};

    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
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
        // Without a handler the system ends the program by itself.
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending().await
        }
    })
}
