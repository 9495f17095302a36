//! The figures and the machine of one run, as text and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::contest::{CASES, Effort, Figure, Figures, HIT};
use crate::contestants::{self, NONE, NONE_07, PEERS, Provider, THIS};

#[derive(Serialize, Deserialize)]
pub struct Machine {
    pub date: String,
    pub rustc: String,
    pub cpu: String,
    pub cores: usize,
}

impl Machine {
    pub fn this() -> Self {
        let rustc = Command::new("rustc").arg("--version").output().ok();
        let rustc =
            rustc.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default();
        let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
        let cpu = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
        Self {
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            rustc: rustc.trim().to_owned(),
            cpu: cpu.map_or("unknown", |(_, model)| model.trim()).to_owned(),
            cores: std::thread::available_parallelism().map_or(1, Into::into),
        }
    }
}

#[derive(Serialize)]
pub struct Row {
    contestant: &'static str,
    version: String,
    axum: &'static str,
    backend: &'static str,
    /// Whether the backend is not the contestant's default.
    chosen_backend: bool,
    /// The time for the cached token, relative to the first row of this crate.
    ratio: Option<f64>,
    cases: BTreeMap<String, Figure>,
    /// Why the contestant has no figures.
    absent: Option<String>,
}

#[derive(Serialize)]
pub struct Report {
    machine: Machine,
    effort: Effort,
    rows: Vec<Row>,
}

impl Report {
    pub fn new(effort: Effort) -> Self {
        Self { machine: Machine::this(), effort, rows: Vec::new() }
    }

    /// Adds the figures of one process. Contestants that use no provider are added only once, from
    /// the process with aws-lc-rs.
    pub fn add(
        &mut self,
        provider: Provider,
        mut figures: Figures,
        mut absent: BTreeMap<String, String>,
    ) {
        let over = |cases: Option<&BTreeMap<String, Figure>>| Some(cases?.get(HIT)?.over_ns);
        let first = self.rows.iter().find(|row| row.contestant == THIS).map(|row| &row.cases);
        let this = over(first.or(figures.get(THIS)));
        for contestant in [NONE, NONE_07, THIS].into_iter().chain(PEERS) {
            let choice = contestants::takes_a_provider(contestant);
            if provider != Provider::AwsLc && !choice {
                continue;
            }
            let (cases, absent) = (figures.remove(contestant), absent.remove(contestant));
            let is_bare = contestants::bare(contestant) == contestant;
            self.rows.push(Row {
                contestant,
                version: version(contestant),
                axum: if contestants::bare(contestant) == NONE { "0.8" } else { "0.7" },
                backend: contestants::backend(contestant, provider),
                chosen_backend: choice && provider == Provider::AwsLc,
                ratio: over(cases.as_ref())
                    .zip(this)
                    .map(|(contestant, this)| contestant / this)
                    .filter(|_| !is_bare),
                cases: cases.unwrap_or_default(),
                absent,
            });
        }
    }

    pub fn text(&self) -> String {
        let Machine { date, rustc, cpu, cores } = &self.machine;
        let mut text = format!("{date}\n{rustc}\n{cpu}, {cores} cores\n\n");
        let mut notes = Vec::new();
        let heads =
            ["contestant", "version", "axum", "backend"].into_iter().chain(CASES).chain(["ratio"]);
        line(&mut text, heads.map(str::to_owned));
        for row in &self.rows {
            let bare = contestants::bare(row.contestant) == row.contestant;
            let backend = if row.chosen_backend {
                format!("{}, chosen", row.backend)
            } else {
                row.backend.to_owned()
            };
            let first =
                [row.contestant.to_owned(), row.version.clone(), row.axum.to_owned(), backend];
            let cases = CASES.map(|case| match row.cases.get(case) {
                Some(figure) => {
                    notes.extend(note(row, case, figure));
                    time(if bare { figure.ns } else { figure.over_ns })
                }
                None => "-".to_owned(),
            });
            let ratio = row.ratio.map_or_else(String::new, |ratio| format!("{ratio:.1}"));
            line(&mut text, first.into_iter().chain(cases).chain([ratio]));
            notes.extend(row.absent.as_ref().map(|reason| format!("{}: {reason}", row.contestant)));
        }
        let Effort { rounds, turn_ms } = self.effort;
        let _ = write!(
            text,
            "\nmedians of {rounds} turns of {turn_ms} ms, minus the bare handler (except in `none`)"
        );
        text.push_str("; ratio: for the cached token\n");
        for note in notes {
            let _ = writeln!(text, "- {note}");
        }
        text
    }
}

/// Describes unexpected statuses and key fetches.
fn note(row: &Row, case: &str, figure: &Figure) -> Option<String> {
    let mut note = String::new();
    if figure.status != figure.expected {
        let _ = write!(note, " status {} instead of {}", figure.status, figure.expected);
    }
    if figure.unexpected > 0 {
        let _ = write!(note, " another status for {} of {} calls", figure.unexpected, figure.calls);
    }
    if figure.fetches > 0 {
        let rate = figure.fetches as f64 * 1000.0 / figure.calls as f64;
        let _ = write!(
            note,
            " {} key fetches in {} calls, {rate:.3} per 1000",
            figure.fetches, figure.calls
        );
    }
    (!note.is_empty()).then(|| format!("{} ({}), {case}:{note}", row.contestant, row.backend))
}

fn line(text: &mut String, cells: impl Iterator<Item = String>) {
    for (cell, width) in cells.zip([29, 8, 5, 18, 14, 12, 12, 12, 12, 14, 8]) {
        let _ = write!(text, "{cell:<width$}");
    }
    text.truncate(text.trim_end().len());
    text.push('\n');
}

fn time(ns: f64) -> String {
    match ns {
        ns if ns < 999.5 => format!("{ns:.0} ns"),
        ns if ns < 9995.0 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 99_950.0 => format!("{:.1} µs", ns / 1e3),
        ns => format!("{:.0} µs", ns / 1e3),
    }
}

/// The version of a contestant in `Cargo.lock`.
pub fn version(contestant: &str) -> String {
    let locked = include_str!("../Cargo.lock").split("[[package]]").find_map(|package| {
        let (name, rest) =
            package.trim().strip_prefix("name = \"")?.split_once("\"\nversion = \"")?;
        (name == contestant).then(|| rest.split('"').next())?
    });
    locked.unwrap_or_default().to_owned()
}
