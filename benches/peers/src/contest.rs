//! Runs all cases in one process, with one provider installed. A case has several rounds, and in
//! each round every contestant has one turn, so that other load on the machine affects all of them.

use std::collections::BTreeMap;
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde::{Deserialize, Serialize};
use tokio::task::unconstrained;

use crate::app::App;
use crate::authority::{Fixture, Result};
use crate::contestants::{self, NONE, NONE_07, PEERS, Provider, THIS};
use crate::measure::{Calls, Credential, bearer};

pub const HIT: &str = "cached token";
pub const NEW: &str = "new token";
pub const CASES: [&str; 6] = [HIT, NEW, "no token", "garbage", "unknown kid", "bad signature"];

#[derive(Clone, Copy, Serialize)]
pub struct Effort {
    pub rounds: usize,
    /// The approximate length of a turn, in milliseconds.
    pub turn_ms: u64,
}

/// The result of one contestant in one case.
#[derive(Clone, Serialize, Deserialize)]
pub struct Figure {
    /// The median over all turns of the mean time per call.
    pub ns: f64,
    /// The lower and the upper quartile of these means.
    pub quartiles_ns: [f64; 2],
    /// `ns` minus that of the bare handler.
    pub over_ns: f64,
    /// The status of the first response.
    pub status: u16,
    /// The status that a verifier should send.
    pub expected: u16,
    pub calls: usize,
    /// Calls with another status than `status`.
    pub unexpected: usize,
    /// Key fetches of the contestant during the case.
    pub fetches: u64,
}

/// By contestant and case.
pub type Figures = BTreeMap<String, BTreeMap<String, Figure>>;

/// With aws-lc-rs all contestants, with another provider only those that use it.
fn contestants_with(provider: Provider) -> Vec<&'static str> {
    let peers = PEERS
        .into_iter()
        .filter(|peer| provider == Provider::AwsLc || contestants::takes_a_provider(peer));
    [NONE, NONE_07, THIS].into_iter().chain(peers).collect()
}

/// Returns the figures, and for each contestant that could not be built the reason.
pub async fn run(
    provider: Provider,
    fixture: &Fixture,
    effort: Effort,
) -> Result<(Figures, BTreeMap<String, String>)> {
    let mut apps = Vec::new();
    let mut absent = BTreeMap::new();
    for name in contestants_with(provider) {
        match contestants::build(name, fixture).await {
            Ok(app) => apps.push((name, app)),
            Err(reason) => drop(absent.insert(name.to_owned(), reason.to_string())),
        }
    }
    let mut figures = Figures::new();
    for case in CASES {
        eprintln!("{}: {case}", provider.name());
        for (name, figure) in run_case(case, &mut apps, fixture, effort).await? {
            figures.entry(name.to_owned()).or_default().insert(case.to_owned(), figure);
        }
    }
    let bares = figures.clone();
    for (name, cases) in &mut figures {
        for (case, figure) in cases {
            figure.over_ns = figure.ns - bares[contestants::bare(name)][case].ns;
        }
    }
    Ok((figures, absent))
}

fn credentials(case: &str, fixture: &Fixture) -> Vec<Credential> {
    let all = |tokens: &[String]| tokens.iter().map(|token| bearer(token)).collect();
    match case {
        HIT => vec![bearer(&fixture.known)],
        NEW => all(&fixture.new),
        "no token" => vec![None],
        "garbage" => vec![Some(HeaderValue::from_static("Bearer garbage"))],
        "unknown kid" => all(&fixture.unknown_kid),
        _ => vec![bearer(&fixture.bad_signature)],
    }
}

async fn run_case(
    case: &str,
    apps: &mut [(&'static str, App)],
    fixture: &Fixture,
    effort: Effort,
) -> Result<Vec<(&'static str, Figure)>> {
    let credentials = credentials(case, fixture);
    let max_calls = if case == NEW { credentials.len() } else { usize::MAX };
    let good = case == HIT || case == NEW;
    let mut turns = Vec::new();
    for (name, app) in &mut *apps {
        let fetches = fixture.fetches(name).await?;
        let status = app.driver.status(credentials[0].clone()).await;
        // The first turn warms up, the second estimates the number of calls per turn.
        turn(app, &credentials, 64, status).await;
        let calls = turn(app, &credentials, 64, status).await;
        let count = (u128::from(effort.turn_ms) * 1_000_000 * calls.count as u128
            / calls.taken.as_nanos().max(1)) as usize;
        turns.push(Turns {
            status,
            fetches,
            count: count.clamp(64, max_calls),
            done: Vec::with_capacity(effort.rounds),
        });
    }
    for round in 0..effort.rounds {
        for place in 0..apps.len() {
            let place = (place + round) % apps.len();
            let ((_, app), turns) = (&mut apps[place], &mut turns[place]);
            if case == NEW {
                app.driver.renew();
            }
            turns.done.push(turn(app, &credentials, turns.count, turns.status).await);
        }
    }
    let mut figures = Vec::new();
    for ((name, _), turns) in apps.iter().zip(turns) {
        let expected = if good || contestants::bare(name) == *name {
            StatusCode::OK
        } else {
            StatusCode::UNAUTHORIZED
        };
        let fetches = fixture.fetches(name).await? - turns.fetches;
        figures.push((*name, turns.figure(expected, fetches)));
    }
    Ok(figures)
}

/// The turns of one contestant in one case.
struct Turns {
    status: StatusCode,
    fetches: u64,
    count: usize,
    done: Vec<Calls>,
}

impl Turns {
    fn figure(&self, expected: StatusCode, fetches: u64) -> Figure {
        let mut means: Vec<_> =
            self.done.iter().map(|turn| turn.taken.as_nanos() as f64 / turn.count as f64).collect();
        means.sort_by(f64::total_cmp);
        let at = |part: f64| means[(part * (means.len() - 1) as f64).round() as usize];
        Figure {
            ns: at(0.5),
            quartiles_ns: [at(0.25), at(0.75)],
            over_ns: 0.0,
            status: self.status.as_u16(),
            expected: expected.as_u16(),
            calls: self.done.iter().map(|turn| turn.count).sum(),
            unexpected: self.done.iter().map(|turn| turn.unexpected).sum(),
            fetches,
        }
    }
}

async fn turn(
    app: &mut App,
    credentials: &[Credential],
    count: usize,
    status: StatusCode,
) -> Calls {
    // Lets the contestants' background tasks run between turns.
    tokio::time::sleep(Duration::from_millis(1)).await;
    // Without tokio's cooperative budget: in a server each connection has its own, but here one
    // task makes all calls and must not be made to yield.
    unconstrained(app.driver.calls(credentials, count, status)).await
}
