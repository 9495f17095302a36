//! The programs that run cases, and the table that they print.

use std::fmt::Display;
use std::io;
use std::process::ExitCode;
use std::time::Duration;

use tokio::time::{Instant, timeout};
use tracing_subscriber::filter::LevelFilter;

use crate::support::{Stop, exit_code, has_colour, log_to_stderr, print};

/// Maximum duration of a program. The demo takes about 8 s; a slow machine may need longer.
const TIMEOUT: Duration = Duration::from_secs(60);

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// The width of the first column, unless a program has longer cases.
const CASE: usize = 26;

/// The width of the columns with a status, unless a program has longer ones.
const STATUS: usize = "expected".len();

/// Runs the cases of the example `name`, which takes no arguments. The exit code is 1 if a row was
/// not as expected. `rows` is what the last line calls them.
pub(crate) async fn run_program(
    name: &str,
    usage: &str,
    rows: &'static str,
    run_cases: impl AsyncFnOnce(&mut Table) -> Result<(), Stop>,
) -> ExitCode {
    log_to_stderr(LevelFilter::OFF);
    let run = async {
        if asks_for_help().map_err(Stop::command_line)? {
            return print(usage).map(|()| ExitCode::SUCCESS);
        }
        run_table(rows, run_cases).await
    };
    exit_code(name, usage, run.await)
}

async fn run_table(
    rows: &'static str,
    run_cases: impl AsyncFnOnce(&mut Table) -> Result<(), Stop>,
) -> Result<ExitCode, Stop> {
    let mut table = Table::new(rows);
    timeout(TIMEOUT, run_cases(&mut table))
        .await
        .map_err(|_| Stop::Failed(format!("not finished after {} s", TIMEOUT.as_secs())))??;
    let is_success = table.summary()?;
    Ok(if is_success { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn asks_for_help() -> Result<bool, lexopt::Error> {
    use lexopt::prelude::*;
    match lexopt::Parser::from_env().next()? {
        None => Ok(false),
        Some(Short('h') | Long("help")) => Ok(true),
        Some(arg) => Err(arg.unexpected()),
    }
}

/// What a program saw: a status, and what the last column says about it. `None` if there is nothing
/// to compare with the expected text.
pub(crate) struct Seen {
    pub(crate) status: String,
    pub(crate) description: Option<String>,
}

/// Prints each case as soon as its response is received.
pub(crate) struct Table {
    started: Instant,
    has_colour: bool,
    case: usize,
    status: usize,
    rows: &'static str,
    count: usize,
    as_expected: usize,
}

impl Table {
    pub(crate) fn new(rows: &'static str) -> Self {
        let has_colour = has_colour(&io::stdout());
        Self {
            started: Instant::now(),
            has_colour,
            case: CASE,
            status: STATUS,
            rows,
            count: 0,
            as_expected: 0,
        }
    }

    /// Widens the columns, for cases of up to `case` and statuses of up to `status` characters.
    #[allow(dead_code)] // not every program has long ones
    pub(crate) fn widen(&mut self, case: usize, status: usize) {
        (self.case, self.status) = (case, status);
    }

    /// Prints the head of the table. `first` and `last` name the columns that differ between
    /// programs.
    pub(crate) fn head(&self, first: &str, last: &str) -> Result<(), Stop> {
        let Self { case, status, .. } = *self;
        let head = format!("  {first:case$}  {:status$}  {:status$}  {last}", "expected", "seen");
        print(self.coloured(BOLD, head))
    }

    /// Says what the next rows are about.
    #[allow(dead_code)] // not every program has sections
    pub(crate) fn section(&self, title: &str) -> Result<(), Stop> {
        print(self.coloured(BOLD, title))
    }

    /// Says what the program waits for.
    #[allow(dead_code)] // not every program waits
    pub(crate) fn wait(&self, what: &str) -> Result<(), Stop> {
        print(self.coloured(DIM, format_args!("… {what}")))
    }

    /// Prints a row. It is as expected if this status was seen and, if there is a description, this
    /// one.
    pub(crate) fn row(
        &mut self,
        case: &str,
        expected: impl Display,
        reason: &str,
        seen: &Seen,
    ) -> Result<(), Stop> {
        let expected = expected.to_string();
        let description = seen.description.as_deref();
        let is_reason = description.is_none_or(|description| description == reason);
        let is_as_expected = seen.status == expected && is_reason;
        self.count += 1;
        self.as_expected += usize::from(is_as_expected);
        let (mark, colour) = if is_as_expected { ("✓", GREEN) } else { ("✗", RED) };
        let reason = match description {
            Some(description) if !is_reason => format!("{description} (expected: {reason})"),
            None if !is_as_expected => format!("none (expected: {reason})"),
            _ => reason.to_owned(),
        };
        let mark = self.coloured(colour, mark);
        let Self { case: case_width, status: width, .. } = *self;
        let status = self.coloured(colour, format_args!("{:width$}", seen.status));
        print(format_args!("{mark} {case:case_width$}  {expected:width$}  {status}  {reason}"))
    }

    /// Prints the last line. Returns whether all rows were as expected.
    pub(crate) fn summary(&self) -> Result<bool, Stop> {
        let Self { rows, count, as_expected, .. } = *self;
        let is_success = as_expected == count;
        let colour = if is_success { GREEN } else { RED };
        let seconds = self.started.elapsed().as_secs_f64();
        let text = format!("{as_expected} of {count} {rows} as expected, in {seconds:.1} s");
        print(self.coloured(colour, text))?;
        Ok(is_success)
    }

    fn coloured(&self, code: &str, text: impl Display) -> String {
        if self.has_colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected status, the status that was seen, and its description.
    type Row = (u16, u16, Option<&'static str>);

    async fn exit_code_of(rows: &[Row]) -> Option<ExitCode> {
        let run_rows = async |table: &mut Table| {
            for &(expected, status, description) in rows {
                let status = status.to_string();
                let description = description.map(str::to_owned);
                table.row("case", expected, "reason", &Seen { status, description })?;
            }
            Ok(())
        };
        run_table("cases", run_rows).await.ok()
    }

    #[tokio::test]
    async fn exit_code_is_1_if_one_row_differs() {
        let good = (200, 200, None);
        for rows in [vec![], vec![good], vec![good, (401, 401, Some("reason"))]] {
            assert_eq!(exit_code_of(&rows).await, Some(ExitCode::SUCCESS), "{rows:?}");
        }
        for different in [
            (200, 401, None),
            (401, 200, None),
            (401, 401, Some("another reason")),
            (401, 503, Some("reason")),
        ] {
            for rows in [[different, good], [good, different]] {
                assert_eq!(exit_code_of(&rows).await, Some(ExitCode::FAILURE), "{rows:?}");
            }
        }
    }
}
