//! The table that the demo prints.

use std::fmt::Display;
use std::io;

use tokio::time::Instant;

use crate::support::{Stop, has_colour, print};

const BOLD: &str = "1";
const DIM: &str = "2";
const RED: &str = "31";
const GREEN: &str = "32";

/// The width of the first column.
const CASE: usize = 26;

/// What M2 answered: the status, and the `error_description` if it refused the token.
pub(crate) struct Seen {
    pub(crate) status: u16,
    pub(crate) description: Option<String>,
}

/// Prints each case as soon as its response is received.
pub(crate) struct Table {
    started: Instant,
    has_colour: bool,
    cases: usize,
    as_expected: usize,
}

impl Table {
    pub(crate) fn new() -> Self {
        let has_colour = has_colour(&io::stdout());
        Self { started: Instant::now(), has_colour, cases: 0, as_expected: 0 }
    }

    pub(crate) fn head(&self) -> Result<(), Stop> {
        print(self.coloured(BOLD, format_args!("  {:CASE$}  expected  seen  reason", "case")))
    }

    /// Says what the demo waits for.
    pub(crate) fn wait(&self, what: &str) -> Result<(), Stop> {
        print(self.coloured(DIM, format_args!("… {what}")))
    }

    /// Prints a case. It is as expected if M2 answered with this status and, if its response has an
    /// `error_description`, with this reason.
    pub(crate) fn row(
        &mut self,
        case: &str,
        expected: u16,
        reason: &str,
        seen: &Seen,
    ) -> Result<(), Stop> {
        let description = seen.description.as_deref();
        let is_reason = description.is_none_or(|description| description == reason);
        let is_as_expected = seen.status == expected && is_reason;
        self.cases += 1;
        self.as_expected += usize::from(is_as_expected);
        let (mark, colour) = if is_as_expected { ("✓", GREEN) } else { ("✗", RED) };
        let reason = match description {
            Some(description) if !is_reason => format!("{description} (expected: {reason})"),
            None if !is_as_expected => format!("none (expected: {reason})"),
            _ => reason.to_owned(),
        };
        let mark = self.coloured(colour, mark);
        let status = self.coloured(colour, format_args!("{:>4}", seen.status));
        print(format_args!("{mark} {case:CASE$}  {expected:>8}  {status}  {reason}"))
    }

    /// Prints the last line. Returns whether all cases were as expected.
    pub(crate) fn summary(&self) -> Result<bool, Stop> {
        let Self { cases, as_expected, .. } = *self;
        let is_success = as_expected == cases;
        let colour = if is_success { GREEN } else { RED };
        let seconds = self.started.elapsed().as_secs_f64();
        let text = format!("{as_expected} of {cases} cases as expected, in {seconds:.1} s");
        print(self.coloured(colour, text))?;
        Ok(is_success)
    }

    fn coloured(&self, code: &str, text: impl Display) -> String {
        if self.has_colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_string() }
    }
}
