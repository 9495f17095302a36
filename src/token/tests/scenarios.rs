//! Runs the scenarios of `tests/renewal/scenarios.json`, in virtual time.

use std::fs;
use std::path::Path;

use tokio::runtime::Builder;

use super::scenario::Scenario;

#[test]
fn renewal_scenarios_end_as_expected() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/renewal/scenarios.json");
    if !path.is_file() {
        eprintln!("no {} (the published package omits it), test skipped", path.display());
        return;
    }
    let scenarios: Vec<Scenario> = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let (mut runs, mut sent, mut waited, mut failures) = (0, 0, 0, Vec::new());
    for run in scenarios.iter().flat_map(Scenario::runs) {
        fastrand::seed(runs);
        let runtime =
            Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
        match runtime.block_on(run.run()) {
            Ok(counts) => (sent, waited) = (sent + counts.sent, waited + counts.waited),
            Err(failure) => failures.push(failure),
        }
        runs += 1;
    }
    eprintln!(
        "{} scenarios, {runs} runs, {sent} requests, {waited} waited, {} failures",
        scenarios.len(),
        failures.len()
    );
    assert!(failures.is_empty(), "{} of {runs} runs:\n{}", failures.len(), failures.join("\n"));
    assert!(runs >= 300 && waited > 100, "{runs} runs, {waited} requests waited");
}
