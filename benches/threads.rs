//! How requests on different threads slow down each other: `cargo bench --bench threads`.
//!
//! - `cached tokens` measures the throughput of one thread and of two, each with its own requests
//!   and credentials. The rows `bare service` and `layer per thread` share nothing between the
//!   threads, so they show the limit of the machine, which is below 2 × if both processors are
//!   hardware threads of one core. In the row `layer with counter` both threads increment the same
//!   counter of a recorder.
//! - `flood` measures the latency of cached tokens on one thread, each call by itself, while
//!   another thread sends tokens that each need a signature check.
//! - `refresh` measures cached tokens while a fetch is in flight.
//!
//! The figures are medians of all rounds. The bench needs two idle cores.
#![allow(clippy::print_stdout, clippy::disallowed_types)] // prints its result; needs real time

mod support;

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request};
use tower::Layer;
use tower_m2m::testing::{TestAuthority, bearer};
use tower_m2m::{RemoteJwks, Verifier, VerifyServiceTokenLayer};

use support::{
    AtomicRecorder, CALLERS, ImmediateService, RS256, call, copy_of, noop_service, request,
    verifier, verifying_service,
};

/// Requests per measurement. They are constructed in advance, so that the measurement includes only
/// the calls.
const BATCH: usize = 250;
const ROUNDS: usize = 200;

fn main() {
    // Cargo passes `--bench`; arguments without a dash select the benches to run.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()))
    };
    if runs("cached tokens") {
        println!(
            "cached tokens: ns per call with one thread and with two; throughput of two over one"
        );
        for callers in [1, 100] {
            let credentials = &CALLERS.1[..callers];
            scaling("bare service", callers, noop_service, credentials);
            scaling(
                "layer per thread",
                callers,
                || verifying_service(verifier(&CALLERS.0)),
                credentials,
            );
            let layer = VerifyServiceTokenLayer::new(verifier(&CALLERS.0));
            scaling("shared layer", callers, || layer.layer(noop_service()), credentials);
            // A layer uses the recorder of its first request.
            let layer = VerifyServiceTokenLayer::new(verifier(&CALLERS.0));
            metrics::with_local_recorder(&AtomicRecorder, || {
                call(&mut layer.layer(noop_service()), request(Some(credentials[0].clone())));
            });
            scaling("layer with counter", callers, || layer.layer(noop_service()), credentials);
        }
    }
    if runs("flood") {
        flood();
    }
    if runs("refresh") {
        refresh();
    }
}

/// Compares the throughput of one thread with that of two.
fn scaling<S: ImmediateService + Send>(
    what: &str,
    callers: usize,
    service: impl Fn() -> S + Sync,
    credentials: &[HeaderValue],
) {
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    let (warming, ready) = (Mutex::new(()), AtomicUsize::new(0));
    let batches = |with_another: bool, times: &mut Vec<f64>| {
        let mut service = service();
        // Each thread has its own copies, as if it read them from its own connections.
        let credentials: Vec<_> = credentials.iter().map(copy_of).collect();
        // One thread at a time: a second concurrent signature check would be queued, but `call`
        // requires an immediate response.
        let warming = warming.lock().expect("no thread panics");
        for credential in &credentials {
            call(&mut service, request(Some(copy_of(credential))));
        }
        drop(warming);
        for round in 0..=ROUNDS {
            let requests = requests(&credentials, round);
            if with_another {
                // Spins, so that both threads start within a few nanoseconds.
                ready.fetch_add(1, Ordering::AcqRel);
                while ready.load(Ordering::Acquire) < 2 * (round + 1) {
                    std::hint::spin_loop();
                }
            }
            let time = time(&mut service, requests);
            if round > 0 {
                times.push(time);
            }
        }
    };
    for _ in 0..10 {
        ready.store(0, Ordering::Release);
        std::thread::scope(|scope| {
            scope.spawn(|| batches(false, &mut alone)).join().expect("no thread panics")
        });
        let mut others = Vec::new();
        std::thread::scope(|scope| {
            scope.spawn(|| batches(true, &mut others));
            batches(true, &mut together);
        });
        together.append(&mut others);
    }
    let (alone, together) = (median(&mut alone), median(&mut together));
    println!(
        "  {what:18} {callers:>3} callers {alone:>6.0} {together:>6.0}   {:.2} x",
        2.0 * alone / together
    );
}

fn requests(credentials: &[HeaderValue], round: usize) -> Vec<Request<()>> {
    (0..BATCH)
        .map(|n| request(Some(copy_of(&credentials[(round + n) % credentials.len()]))))
        .collect()
}

/// The time in nanoseconds per call.
fn time(service: &mut impl ImmediateService, requests: Vec<Request<()>>) -> f64 {
    let start = Instant::now();
    for request in requests {
        call(service, request);
    }
    start.elapsed().as_nanos() as f64 / BATCH as f64
}

fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

/// Latency of cached tokens on one thread while another thread floods the server.
fn flood() {
    // The capacity is far below the number of end users' tokens, so that each of them is evicted
    // before it is sent again.
    let layer = VerifyServiceTokenLayer::new(verifier(&RS256.jwks).cache_capacity(16));
    let cached = bearer(&RS256.service);
    let users: Vec<_> = RS256.users.iter().map(bearer).collect();
    let forged: Vec<_> = RS256.users.iter().map(|token| bearer(forge(token))).collect();

    println!(
        "flood: cached tokens, ns per call: p50 and p99; p99 relative to that without a flood"
    );
    let mut idle = 0.0;
    // Cached tokens are among the floods to show how much two busy cores slow down each other with
    // any load.
    let floods: [(&str, Option<&[HeaderValue]>); 4] = [
        ("no flood", None),
        ("cached tokens", Some(std::slice::from_ref(&cached))),
        ("end users' tokens", Some(&users)),
        ("forged signatures", Some(&forged)),
    ];
    for (what, flood) in floods {
        let is_over = AtomicBool::new(false);
        let mut latencies = Vec::new();
        let mut sent = 0_u64;
        std::thread::scope(|scope| {
            if let Some(flood) = flood {
                let (layer, is_over, sent) = (&layer, &is_over, &mut sent);
                scope.spawn(move || {
                    let mut service = layer.layer(noop_service());
                    while !is_over.load(Ordering::Relaxed) {
                        for credential in flood {
                            call(&mut service, request(Some(copy_of(credential))));
                            *sent += 1;
                        }
                    }
                });
            }
            let mut service = layer.layer(noop_service());
            let start = Instant::now();
            while start.elapsed() < Duration::from_secs(3) {
                for request in requests(std::slice::from_ref(&cached), 0) {
                    let start = Instant::now();
                    call(&mut service, request);
                    latencies.push(start.elapsed().as_nanos() as f64);
                }
            }
            is_over.store(true, Ordering::Relaxed);
        });
        let (p50, p99) = (percentile(&mut latencies, 50), percentile(&mut latencies, 99));
        if flood.is_none() {
            idle = p99;
        }
        println!("  {what:17} {p50:>6.0} {p99:>6.0}   {:.2} x   {} sent", p99 / idle, sent);
    }
}

/// Replaces the first half of the signature.
fn forge(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').expect("a token");
    format!("{signed}.{}{}", "A".repeat(signature.len() / 2), &signature[signature.len() / 2..])
}

/// Measures cached tokens while a fetch waits for a response that is never sent.
fn refresh() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let authority = runtime.block_on(TestAuthority::start());
    let jwks = RemoteJwks::new(authority.jwks_url()).expect("a URL");
    runtime.block_on(jwks.ready()).expect("keys");

    // This authority lists the key of the token: the cores of all authorities share their RSA keys.
    let credential = [bearer(&RS256.service)];
    let mut service = verifying_service(Verifier::new(jwks.clone()));
    let mut rounds = || {
        let mut times: Vec<_> = (0..10 * ROUNDS)
            .map(|round| time(&mut service, requests(&credential, round)))
            .collect();
        median(&mut times)
    };
    let before = runtime.block_on(async { rounds() });
    authority.hang();
    let fetch = runtime.spawn(async move { jwks.refresh().await });
    runtime.block_on(authority.wait_for_fetches(2));
    let during = runtime.block_on(async { rounds() });
    assert!(!fetch.is_finished(), "the fetch is still in flight");
    println!(
        "refresh: a cached token, ns per call: {before:.0} before, {during:.0} while a fetch is in flight"
    );
}
