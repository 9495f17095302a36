//! Reads and runs the scenarios of `tests/renewal/scenarios.json`. Its `README.md` describes the
//! format.

use std::time::Duration;

use serde::Deserialize;
use tokio::time::{Instant, sleep, sleep_until};

use super::site::{Answer, Counts, Site};
use crate::token::schedule::RenewalPolicy;

const DAY: f64 = 86_400.0;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Scenario {
    name: String,
    lifetimes: Vec<String>,
    events: Vec<Event>,
    until: String,
    expected: Expected,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct Event {
    at: String,
    /// The scenario is run once with each of them.
    each_of: Vec<Change>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Change {
    Nothing,
    Authority(Answer),
    M1Clock(String),
    EveryClock(String),
    Suspended(String),
}

/// The least and the most, of each run.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Expected {
    #[serde(default)]
    expired: (u64, u64),
    waited: (u64, u64),
    attempts: (u64, u64),
    /// Part of the last error at the end. `None`: there is none.
    last_error: Option<String>,
}

/// One run of a scenario: with one lifetime and one change for each event.
pub(super) struct Run<'a> {
    pub(super) name: String,
    scenario: &'a Scenario,
    units: Units,
    /// In order of time, with the seconds from the expiry of the first token.
    changes: Vec<(f64, &'a Change)>,
}

/// The units of times that depend on the lifetime, in seconds.
#[derive(Clone, Copy)]
struct Units {
    lifetime: f64,
    window: f64,
}

impl Units {
    fn new(lifetime: &str) -> Self {
        let lifetime = Self { lifetime: f64::NAN, window: f64::NAN }.seconds(lifetime);
        let most = match lifetime {
            short if short <= 1200.0 => 300.0,
            medium if medium <= 5400.0 => 900.0,
            _ => 3600.0,
        };
        Self { lifetime, window: f64::min(lifetime / 2.0, most) }
    }

    /// A sum of times, such as `1 L - 1.2 W` or `-30 s`.
    fn seconds(self, text: &str) -> f64 {
        let (mut sum, mut number) = (0.0, 1.0);
        for word in text.split_whitespace() {
            let unit = match word {
                "+" => continue,
                "-" => {
                    number = -1.0;
                    continue;
                }
                "s" => 1.0,
                "min" => 60.0,
                "h" => 3600.0,
                "d" => DAY,
                "y" => 365.0 * DAY,
                "L" => self.lifetime,
                "W" => self.window,
                _ => {
                    number *= word.parse::<f64>().unwrap_or_else(|_| panic!("time {text:?}"));
                    continue;
                }
            };
            sum += number * unit;
            number = 1.0;
        }
        sum
    }
}

impl Scenario {
    pub(super) fn runs(&self) -> Vec<Run<'_>> {
        let mut runs = Vec::new();
        for lifetime in &self.lifetimes {
            let (name, units) = (format!("{}: {lifetime}", self.name), Units::new(lifetime));
            let mut of_lifetime = vec![Run { name, scenario: self, units, changes: Vec::new() }];
            for event in &self.events {
                of_lifetime = of_lifetime
                    .iter()
                    .flat_map(|run| event.each_of.iter().map(|change| run.with(&event.at, change)))
                    .collect();
            }
            runs.append(&mut of_lifetime);
        }
        runs
    }
}

impl<'a> Run<'a> {
    fn with(&self, at: &str, change: &'a Change) -> Self {
        let name = format!("{}, {at} {change:?}", self.name);
        let mut changes = self.changes.clone();
        changes.push((self.units.seconds(at), change));
        Self { name, changes, ..*self }
    }

    /// Returns what happened to the requests, or what differs from the expected.
    pub(super) async fn run(&self) -> Result<Counts, String> {
        let Units { lifetime, window } = self.units;
        let mut site = Site::new(Duration::from_secs_f64(lifetime), RenewalPolicy::BeforeExpiry);
        sleep(Duration::from_secs_f64((lifetime - 2.0 * window).min(DAY))).await;
        let start = Instant::now();
        let at = |seconds: f64| start + Duration::from_secs_f64(seconds + 2.0 * window);

        let end = self.units.seconds(&self.scenario.until);
        let interval = (window / 60.0).max(0.25);
        let mut next = -2.0 * window;
        let mut changes = self.changes.iter().peekable();
        while next < end {
            // A change, and at once a request.
            if let Some((when, change)) = changes.next_if(|(when, _)| *when <= next) {
                sleep_until(at(*when)).await;
                self.apply(change, &site);
            } else {
                sleep_until(at(next)).await;
                next += interval;
            }
            site.send().await;
        }
        assert!(changes.next().is_none(), "{}: a change after the end", self.name);
        self.compare(&site)
    }

    fn apply(&self, change: &Change, site: &Site) {
        let seconds = |text: &str| self.units.seconds(text) as i64;
        match change {
            Change::Nothing => {}
            Change::Authority(answer) => site.set_answer(*answer),
            Change::M1Clock(by) => site.shift_m1_clock(seconds(by)),
            Change::EveryClock(by) | Change::Suspended(by) => site.shift_every_clock(seconds(by)),
        }
    }

    fn compare(&self, site: &Site) -> Result<Counts, String> {
        let (expected, counts) = (&self.scenario.expected, site.counts());
        let mut differences = Vec::new();
        for (what, count, (least, most)) in [
            ("expired", counts.expired, expected.expired),
            ("waited", counts.waited, expected.waited),
            ("attempts", site.attempts(), expected.attempts),
        ] {
            if !(least..=most).contains(&count) {
                differences.push(format!("{what}: {count}, expected {least} to {most}"));
            }
        }
        let last_error = site.token.health().last_error.map(|err| format!("{err}: {err:?}"));
        let is_expected = match (&last_error, &expected.last_error) {
            (Some(error), Some(part)) => error.contains(part),
            (error, part) => error.is_none() && part.is_none(),
        };
        if !is_expected {
            differences.push(format!("last error: {last_error:?}"));
        }
        match &*differences {
            [] => Ok(counts),
            _ => Err(format!("{}: {}", self.name, differences.join("; "))),
        }
    }
}
