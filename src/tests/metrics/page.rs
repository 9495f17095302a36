//! The tables of `operate.md`.

use std::collections::{BTreeMap, BTreeSet};

use crate::rejection::RejectionReason;

pub(super) const TEXT: &str = include_str!("../../docs/operate.md");

pub(super) struct Page {
    pub(super) metrics: BTreeMap<String, Row>,
    /// Label, the metric or the start of the names of several, and the values.
    values: Vec<(String, String, Values)>,
}

pub(super) struct Row {
    pub(super) kind: String,
    pub(super) labels: BTreeSet<String>,
}

enum Values {
    Listed(BTreeSet<String>),
    /// The page describes the values.
    Described,
}

impl Page {
    pub(super) fn read() -> Self {
        let rows = TEXT.lines().filter(|line| line.starts_with("| `"));
        let (mut metrics, mut values) = (BTreeMap::new(), Vec::new());
        for row in rows {
            let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
            match *cells {
                [name, kind, labels, _] if name.starts_with("`tower_m2m_") => {
                    let row = Row { kind: kind.to_owned(), labels: in_backticks(labels) };
                    let is_new = metrics.insert(name.replace('`', ""), row).is_none();
                    assert!(is_new, "{name} has two rows");
                }
                [label, metric, list] if metric.starts_with("`tower_m2m_") => {
                    values.push((
                        label.replace('`', ""),
                        metric.replace('`', ""),
                        Values::read(list),
                    ));
                }
                _ => {}
            }
        }
        Self { metrics, values }
    }

    /// Whether a label of a metric may have this value. Panics unless one row has the label.
    pub(super) fn allows(&self, metric: &str, label: &str, value: &str) -> bool {
        let is_of = |pattern: &str| match pattern.strip_suffix('*') {
            Some(start) => metric.starts_with(start),
            None => metric == pattern,
        };
        let mut rows =
            self.values.iter().filter(|(name, pattern, _)| name == label && is_of(pattern));
        let (Some((.., values)), None) = (rows.next(), rows.next()) else {
            panic!("the label {label} of {metric} has no row, or several");
        };
        match values {
            Values::Listed(values) => values.contains(value),
            Values::Described => true,
        }
    }
}

impl Values {
    fn read(list: &str) -> Self {
        if list.contains("RejectionReason") {
            let reasons =
                RejectionReason::ALL.iter().map(|reason| snake_case(&format!("{reason:?}")));
            return Self::Listed(reasons.chain(["none".to_owned()]).collect());
        }
        match list.starts_with('`') {
            true => Self::Listed(in_backticks(list)),
            false => Self::Described,
        }
    }
}

fn in_backticks(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn snake_case(name: &str) -> String {
    let word = |c: char| match c.is_ascii_uppercase() {
        true => format!("_{}", c.to_ascii_lowercase()),
        false => c.to_string(),
    };
    name.chars().map(word).collect::<String>().trim_start_matches('_').to_owned()
}
