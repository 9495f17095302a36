//! Exit codes, output and logs of the examples.

use std::env;
use std::error::Error;
use std::fmt::Display;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process::ExitCode;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// Why an example ends early.
pub(crate) enum Stop {
    /// The command line or an environment variable is invalid. Exit code 2, with the usage.
    Usage(String),
    /// Exit code 1.
    Failed(String),
    /// The reader of stdout is gone, as in `demo | head -1`. Exit code 141 without a message, as of
    /// a program that SIGPIPE ends.
    ClosedPipe,
}

impl Stop {
    /// An invalid command line. The error shows no values, because one may be a token or an api
    /// key.
    pub(crate) fn command_line(err: lexopt::Error) -> Self {
        use lexopt::Error as Invalid;
        Self::Usage(match err {
            Invalid::UnexpectedArgument(_) => "unexpected argument".to_owned(),
            Invalid::UnexpectedValue { option, .. } => format!("{option} takes no value"),
            Invalid::NonUnicodeValue(_) => "an argument is not valid UTF-8".to_owned(),
            err => err.to_string(),
        })
    }
}

/// Every other error ends an example with exit code 1.
impl<E: Error + 'static> From<E> for Stop {
    fn from(err: E) -> Self {
        Self::Failed(chain(&err))
    }
}

/// Prints why the example `name` ended early, in the last line of stderr, and returns its exit
/// code.
pub(crate) fn exit_code(name: &str, usage: &str, result: Result<ExitCode, Stop>) -> ExitCode {
    let (code, text) = match result {
        Ok(code) => return code,
        Err(Stop::Usage(reason)) => (2, format!("{usage}\n\n{name}: {reason}\n")),
        Err(Stop::Failed(reason)) => (1, format!("{name}: {reason}\n")),
        Err(Stop::ClosedPipe) => (141, String::new()),
    };
    // With stderr closed, the exit code alone reports the failure.
    let _ = io::stderr().write_all(text.as_bytes());
    ExitCode::from(code)
}

/// Prints a line on stdout and flushes it, so that the reader of a pipe gets it at once. Not
/// `println!`: it panics if the reader is gone.
pub(crate) fn print(line: impl Display) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    match writeln!(stdout, "{line}").and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(err) if err.kind() == ErrorKind::BrokenPipe => Err(Stop::ClosedPipe),
        Err(err) => Err(Stop::Failed(format!("cannot write to stdout: {err}"))),
    }
}

/// Logs to stderr what `RUST_LOG` selects, such as `debug` or `warn,tower_m2m=debug`. Without the
/// variable, events up to `default`.
pub(crate) fn log_to_stderr(default: LevelFilter) {
    let filter = env::var("RUST_LOG").unwrap_or_default();
    let filter = match filter.trim() {
        "" => Targets::new().with_default(default),
        // Not `EnvFilter`, which needs a regex engine to select spans by their fields.
        filter => filter.parse().unwrap_or_else(|err| {
            let _ = writeln!(io::stderr(), "ignoring RUST_LOG: {err}");
            Targets::new().with_default(default)
        }),
    };
    // Not `tracing_subscriber::fmt()`, which panics if it cannot write to stderr.
    let events = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_ansi(has_colour(&io::stderr()));
    tracing_subscriber::registry().with(events).with(filter).init();
}

/// Whether to write colours to a stream: on a terminal, unless `NO_COLOR` is set
/// (<https://no-color.org>).
pub(crate) fn has_colour(stream: &impl IsTerminal) -> bool {
    let is_unwanted = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    stream.is_terminal() && !is_unwanted
}

/// Formats an error and its sources on one line.
pub(crate) fn chain(err: &dyn Error) -> String {
    let sources = std::iter::successors(err.source(), |err| (*err).source());
    sources.fold(err.to_string(), |text, source| format!("{text}: {source}"))
}
