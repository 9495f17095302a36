//! The queries of the dashboard and of the docs, against the metrics of `m2`.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tempfile::tempdir;

use super::*;

const DASHBOARD: &str = include_str!("../../../examples/dashboard.json");
const OPERATE: &str = include_str!("../../../src/docs/operate.md");
const OBSERVE: &str = include_str!("../../../src/docs/observe.md");

const AGGREGATIONS: [&str; 3] = ["sum", "min", "max"];
const FUNCTIONS: [&str; 3] = ["rate", "increase", "time"];
const OPERATORS: [&str; 3] = ["and", "or", "unless"];

/// The labels of each metric.
type Metrics = BTreeMap<String, BTreeSet<String>>;

/// The metrics in Prometheus' text format.
fn parse(text: &str) -> Metrics {
    let mut metrics = Metrics::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, value) = line.rsplit_once(' ').expect(line);
        value.parse::<f64>().expect(line);
        let (name, labels) = series.split_once('{').unwrap_or((series, ""));
        let mut labels = labels.trim_end_matches('}');
        let known = metrics.entry(name.to_owned()).or_default();
        while let Some((label, rest)) = labels.split_once("=\"") {
            known.insert(label.trim_start_matches(',').to_owned());
            labels = rest.split_once('"').expect(line).1;
        }
    }
    metrics
}

/// Checks that a query names only metrics, labels and functions that exist, and returns its metrics.
fn check(query: &str, metrics: &Metrics) -> Result<BTreeSet<String>, String> {
    let mut named = BTreeSet::new();
    let mut grouped = Vec::new();
    let mut rest = query;
    while let Some(start) = rest.find(|c: char| c.is_ascii_alphabetic() || "_[\"".contains(c)) {
        rest = &rest[start..];
        // A range, such as `[5m]`.
        if let Some(range) = rest.strip_prefix('[') {
            rest = range.split_once(']').ok_or("a range without end")?.1;
            continue;
        }
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = rest.find(|c| !is_name(c)).unwrap_or(rest.len());
        let (name, after) = rest.split_at(end);
        if name.is_empty() {
            return Err(format!("a text outside a selector: {rest}"));
        }
        rest = after.trim_start();
        if matches!(name, "by" | "without") {
            let (labels, after) = rest
                .strip_prefix('(')
                .and_then(|rest| rest.split_once(')'))
                .ok_or("a grouping without labels")?;
            grouped.extend(labels.split(',').map(|label| label.trim().to_owned()));
            rest = after;
        } else if AGGREGATIONS.contains(&name) || OPERATORS.contains(&name) {
        } else if rest.starts_with('(') {
            if !FUNCTIONS.contains(&name) {
                return Err(format!("unknown function {name}"));
            }
        } else {
            let labels = metrics.get(name).ok_or_else(|| format!("unknown metric {name}"))?;
            named.insert(name.to_owned());
            if let Some(selector) = rest.strip_prefix('{') {
                let (selector, after) = selector.split_once('}').ok_or("no end of a selector")?;
                check_selector(selector, name, labels)?;
                rest = after;
            }
        }
    }
    match grouped.iter().find(|label| !named.iter().any(|name| metrics[name].contains(*label))) {
        Some(label) => Err(format!("unknown label {label}")),
        None if named.is_empty() => Err("no metric".to_owned()),
        None => Ok(named),
    }
}

/// Checks the labels of a selector, and that the docs list their values.
fn check_selector(selector: &str, name: &str, labels: &BTreeSet<String>) -> Result<(), String> {
    for matcher in selector.split(", ") {
        let (label, value) = matcher.split_once('=').ok_or("a matcher without =")?;
        let label = label.trim_end_matches('!');
        if !labels.contains(label) {
            return Err(format!("{name} has no label {label}"));
        }
        let values = value.trim_matches(|c| "~\"".contains(c)).split('|');
        for value in values.filter(|value| !value.is_empty()) {
            let listed = format!("`{value}`");
            if !OPERATE.contains(&listed) && !OBSERVE.contains(&listed) {
                return Err(format!("unknown value {value}"));
            }
        }
    }
    Ok(())
}

/// What a running `m2` exposes after requests of every kind that the dashboard shows.
async fn metrics_of_m2() -> Metrics {
    let authority = TestAuthority::start().await;
    let folder = tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let (token_file, denied) = (path("token"), path("denied.json"));
    fs::write(&token_file, authority.token().audience("kubernetes").sign()).unwrap();
    fs::write(&denied, r#"[{"claim": {"path": "jti", "expected": "leaked"}}]"#).unwrap();
    // The first fetch reports the token of M2 as rejected.
    authority.answer_with(401);
    let flags = ["--jwks-token-file", &token_file, "--deny-list", &denied];
    let m2 = m2(&authority.jwks_url(), &flags);
    authority.wait_for_fetches(1).await;
    authority.answer_with_keys();
    // The retry, for which the first request waits if it is not answered yet.
    authority.wait_for_fetches(2).await;

    let good = authority.token().sign();
    let client = reqwest::Client::new();
    let send = async |token: &str| {
        let request = client.get(format!("{}/whoami", m2.url));
        request.bearer_auth(token).send().await.unwrap().status().as_u16()
    };
    // Cached after the first request.
    assert_eq!(send(&good).await, 200);
    assert_eq!(send(&good).await, 200);
    assert_eq!(m2.status("/whoami").await, 401);
    // The limit allows two fetches.
    for number in 0..4 {
        let token = authority.token().kid(format!("unknown-{number}")).sign();
        assert_eq!(send(&token).await, 401);
    }
    assert_eq!(send(&authority.token().claim("jti", "leaked").sign()).await, 401);

    let response = client.get(format!("{}/metrics", m2.url)).send().await.unwrap();
    assert_eq!(response.status(), 200);
    let content_type = response.headers()["content-type"].to_str().unwrap().to_owned();
    assert_eq!(content_type, "text/plain; version=0.0.4; charset=utf-8");
    let text = response.text().await.unwrap();
    assert!(text.contains("# HELP tower_m2m_requests_total Requests by"), "{text}");
    assert!(!text.contains(&good), "{text}");
    parse(&text)
}

/// The values of the members `name` of a JSON value, at any depth.
fn members<'v>(value: &'v Value, name: &str, found: &mut Vec<&'v Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.get(name));
            object.values().for_each(|value| members(value, name, found));
        }
        Value::Array(array) => array.iter().for_each(|value| members(value, name, found)),
        _ => {}
    }
}

#[tokio::test]
async fn queries_of_dashboard_and_docs_match_metrics_of_m2() {
    let metrics = metrics_of_m2().await;
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let (mut targets, mut shown) = (Vec::new(), BTreeSet::new());
    members(&dashboard, "targets", &mut targets);
    for target in targets.iter().flat_map(|targets| targets.as_array().unwrap()) {
        let [query, legend] = ["expr", "legendFormat"].map(|name| target[name].as_str().unwrap());
        match check(query, &metrics) {
            Ok(named) => shown.extend(named),
            Err(error) => panic!("{query}: {error}"),
        }
        for label in legend.split("{{").skip(1) {
            let label = label.split_once("}}").unwrap().0;
            let by = query.split_once("by (").unwrap().1.split_once(')').unwrap().0;
            assert!(by.split(", ").any(|it| it == label), "{query} does not keep {label}");
        }
    }
    let exposed: BTreeSet<_> = metrics.keys().cloned().collect();
    assert_eq!(shown, exposed, "the dashboard and m2");

    let mut alerts = 0;
    for block in [OPERATE, OBSERVE].iter().flat_map(|page| page.split("```").skip(1).step_by(2)) {
        let (language, query) = block.split_once('\n').unwrap();
        if query.contains("tower_m2m_") && matches!(language, "promql" | "text") {
            check(query, &metrics).unwrap_or_else(|error| panic!("{query}: {error}"));
            alerts += usize::from(language == "promql");
        }
    }
    assert_eq!(alerts, 7);
}

#[test]
fn query_with_an_unknown_name_is_refused() {
    let metrics = parse(
        "# TYPE a_total counter\na_total{outcome=\"x, {y\",reason=\"none\"} 1\nb_seconds 2.5\n",
    );
    let rows = [
        ("sum by (outcome) (rate(a_total{reason=\"none\"}[5m])) > 0", Ok(())),
        ("b_seconds - time() < 23 * 3600", Ok(())),
        ("sum(a_total{outcome!=\"success\"}) unless b_seconds", Ok(())),
        ("sum(rate(a_totals[5m]))", Err("unknown metric a_totals")),
        ("sum by (outcom) (a_total)", Err("unknown label outcom")),
        ("sum without (outcome) (a_total)", Ok(())),
        ("sum without (outcom) (a_total)", Err("unknown label outcom")),
        ("a_total{outcom=\"none\"}", Err("a_total has no label outcom")),
        ("a_total{outcom!=\"\"}", Err("a_total has no label outcom")),
        ("b_seconds{reason=\"none\"}", Err("b_seconds has no label reason")),
        ("a_total{reason=~\"none|nones\"}", Err("unknown value nones")),
        ("summ(a_total)", Err("unknown function summ")),
        ("sum(1)", Err("no metric")),
    ];
    for (query, expected) in rows {
        let checked = check(query, &metrics).map(drop);
        assert_eq!(checked, expected.map_err(str::to_owned), "{query}");
    }
}
