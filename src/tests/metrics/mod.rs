//! What an operator sees, as a contract: the page `operate.md`, the constants, `describe` and what
//! the crate records name the same metrics, with the same kinds and labels.

mod drive;
mod log_lines;
mod page;
mod recorder;
mod waiting;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use drive::drive;
use page::Page;
use recorder::Seen;
use tokio::runtime::Builder;

use crate::testing::{TestAuthority, renewed};

/// The public constants of `src/metrics.rs`: those of metrics, and those of labels.
fn constants() -> (BTreeSet<String>, BTreeSet<String>) {
    let lines = include_str!("../../metrics.rs").lines();
    let values = lines.filter_map(|line| {
        let (_, value) = line.trim().strip_prefix("pub const ")?.split_once(": &str = \"")?;
        value.strip_suffix("\";").map(str::to_owned)
    });
    values.partition(|value| value.starts_with("tower_m2m_"))
}

#[test]
fn page_and_constants_name_the_same_metrics() {
    let page = Page::read();
    let (metrics, labels) = constants();
    assert!(metrics.len() > 10 && labels.len() > 5, "{metrics:?} {labels:?}");
    assert_eq!(page.metrics.keys().cloned().collect::<BTreeSet<_>>(), metrics);
    let of_page: BTreeSet<_> = page.metrics.values().flat_map(|row| row.labels.clone()).collect();
    assert_eq!(of_page, labels);
}

#[test]
fn describe_describes_each_metric_of_the_page() {
    let seen = Seen::default();
    metrics::with_local_recorder(&seen, crate::metrics::describe);
    let described = seen.described();
    let page = Page::read();
    let kinds: BTreeMap<_, _> =
        page.metrics.iter().map(|(name, row)| (name.clone(), row.kind.clone())).collect();
    assert_eq!(
        described
            .iter()
            .map(|(name, it)| (name.clone(), it.kind.to_owned()))
            .collect::<BTreeMap<_, _>>(),
        kinds
    );
    for (name, it) in described {
        let unit = if name.ends_with("_seconds") { "Seconds" } else { "Count" };
        assert_eq!(it.unit, unit, "{name}");
        assert!(it.description.ends_with('.'), "{name}: {}", it.description);
    }
}

#[test]
fn each_metric_of_the_page_is_recorded_and_no_other() {
    let seen = Seen::default();
    drive(&seen);
    let page = Page::read();
    let recorded = seen.recorded();
    let names = |named: &mut dyn Iterator<Item = &String>| named.cloned().collect::<BTreeSet<_>>();
    assert_eq!(names(&mut recorded.keys()), names(&mut page.metrics.keys()));
    for (name, metric) in &recorded {
        let row = &page.metrics[name];
        assert_eq!(metric.kind, row.kind, "{name}");
        assert!(metric.has_changed, "{name} keeps its first value");
        for series in &metric.series {
            let labels: BTreeSet<_> = series.keys().cloned().collect();
            assert_eq!(labels, row.labels, "{name}");
            for (label, value) in series {
                let is_listed = page.allows(name, label, value);
                assert!(is_listed, "{name}{{{label}=\"{value}\"}} is not on the page");
            }
        }
    }
    // What `drive` has done, by one label.
    let rows: [(_, _, &[&str]); 9] = [
        ("tower_m2m_requests_total", "outcome", &["admitted", "anonymous", "refused"]),
        ("tower_m2m_requests_total", "protocol", &["grpc", "http"]),
        ("tower_m2m_requests_total", "enforced", &["false", "true"]),
        ("tower_m2m_token_cache_total", "result", &["hit", "miss"]),
        ("tower_m2m_mints_total", "cause", &["due", "rejected", "start_up"]),
        ("tower_m2m_mints_total", "outcome", &["permanent", "success"]),
        ("tower_m2m_token_expires_timestamp_seconds", "audience", &["billing", "inventory"]),
        ("tower_m2m_token_rejected_total", "target", &["https://billing.internal", "other"]),
        ("tower_m2m_deny_list_hits_total", "reason", &["caller_denied", "token_revoked"]),
    ];
    for (name, label, expected) in rows {
        let values: BTreeSet<_> = recorded[name].series.iter().map(|it| &*it[label]).collect();
        assert_eq!(Vec::from_iter(values), expected, "{name} {label}");
    }
}

#[test]
fn label_of_a_token_that_holds_the_api_key_is_withheld() {
    const API_KEY: &str = "Ab3cdE5fgh6Ijklm7n";
    let seen = Seen::default();
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    metrics::with_local_recorder(&seen, || {
        runtime.block_on(async {
            let authority = TestAuthority::start().await;
            let core = authority.core().api_key(API_KEY);
            let request = core.service_token(authority.issuer()).audience(format!("a {API_KEY}"));
            let request = request.validity(Duration::from_secs(3600));
            let verifier = authority.verifier();
            for request in [request.clone(), request.verify_with(&verifier)] {
                let token = request.mint().await.unwrap();
                let sent = token.header_value();
                token.report_rejected(&sent);
                renewed(&token, &sent).await;
            }
        });
    });
    let series = &seen.recorded()["tower_m2m_token_expires_timestamp_seconds"].series;
    let values: Vec<_> = series.iter().flat_map(BTreeMap::values).collect();
    assert_eq!(values, ["(text withheld: it may hold a secret or a token)"]);
}
