//! Compares the time per request of this crate and its peers:
//!
//! ```text
//! cargo run --release --manifest-path benches/peers/Cargo.toml --bin peers -- --out peers.json
//! ```
//!
//! All contestants get the same RS256 tokens of one embedded core, fetch the same key set over
//! loopback, and are called in this process through `poll_ready` and `call`, without sockets. A
//! layer wraps an axum handler, an extractor is an argument of the handler. The printed time is
//! that of the call minus that of the bare handler. It can be negative for a refused request, which
//! does not call the handler. The cached token is the same in every request. A new token is one
//! that the contestant has not seen. With an unknown kid, the requests name 1 024 different keys in
//! turn.
//!
//! A process can install one of jsonwebtoken's two providers, so two processes run one after the
//! other, with the same authority. The first also measures the contestants that use no provider.
//!
//! `bin/server.rs` is for measurements over sockets: see `whole-server`. `bin/behaviour.rs`
//! compares what the contestants answer. `../plot.py` turns the output into a table and a plot.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Write, stdin};
use std::process::{Command, Stdio};

use peers::authority::{Authority, Fixture, Result};
use peers::contest::{self, Effort, Figures};
use peers::contestants::Provider;
use peers::report::Report;

const USAGE: &str = "usage: peers [--out FILE] [--rounds N] [--turn MILLISECONDS]

  --out FILE    also write the figures to this file, as JSON
  --rounds N    turns of each contestant in each case; 51 by default
  --turn MS     approximate length of a turn; 10 ms by default";

/// Number of distinct tokens: more than a turn of the default length sends.
const NEW_TOKENS: usize = 1024;

struct Flags {
    out: Option<String>,
    effort: Effort,
    /// Set only for the child processes.
    provider: Option<Provider>,
}

fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut flags = Flags { out: None, effort: Effort { rounds: 51, turn_ms: 10 }, provider: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("out") => flags.out = Some(parser.value()?.string()?),
            Long("rounds") => flags.effort.rounds = parser.value()?.parse()?,
            Long("turn") => flags.effort.turn_ms = parser.value()?.parse()?,
            Long("provider") => flags.provider = Some(parser.value()?.parse()?),
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    Ok(Some(flags))
}

fn main() -> Result<()> {
    let Some(flags) = flags()? else {
        println!("{USAGE}");
        return Ok(());
    };
    match flags.provider {
        Some(provider) => contest(provider, flags.effort),
        None => run_contests(&flags),
    }
}

fn run_contests(flags: &Flags) -> Result<()> {
    let out = flags.out.as_ref().map(File::create).transpose()?;
    let authority = Authority::start(NEW_TOKENS)?;
    let mut report = Report::new(flags.effort);
    for provider in [Provider::AwsLc, Provider::RustCrypto] {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--provider", provider.name()])
            .args([
                "--rounds",
                &flags.effort.rounds.to_string(),
                "--turn",
                &flags.effort.turn_ms.to_string(),
            ])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        // Not as arguments: the list of processes would show the tokens.
        serde_json::to_writer(child.stdin.take().ok_or("no stdin")?, &authority.fixture)?;
        let output = child.wait_with_output()?;
        let (figures, absent) = serde_json::from_slice(&output.stdout)?;
        report.add(provider, figures, absent);
    }
    print!("{}", report.text());
    if let Some(mut out) = out {
        serde_json::to_writer_pretty(&out, &report)?;
        writeln!(out)?;
    }
    Ok(())
}

fn contest(provider: Provider, effort: Effort) -> Result<()> {
    provider.install();
    let fixture: Fixture = serde_json::from_reader(stdin())?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let outcome: (Figures, BTreeMap<_, _>) =
        runtime.block_on(contest::run(provider, &fixture, effort))?;
    serde_json::to_writer(std::io::stdout(), &outcome)?;
    Ok(())
}
