//! What threads do to one another's requests: `cargo bench --bench threads`.
//!
//! `known tokens` is throughput: rounds with one thread and with two, each thread on requests and
//! credentials of its own. What two threads do that share nothing, bare or with a layer for each,
//! is as much as the machine has: two processors that are one core's are not twice one. `flood` is
//! latency: one thread's known tokens, each call timed by itself, while another thread sends what
//! costs a signature check each. `refresh` times known tokens while a fetch is under way. Medians
//! of all rounds. Needs two free cores; the figures of a busy machine mean nothing.
#![allow(clippy::print_stdout, clippy::disallowed_types)] // a program, on real time

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use http::{HeaderValue, Request};
use tower::Layer;
use tower_m2m::{RemoteJwks, Verifier, VerifyServiceTokenLayer};

use support::{Answers, CALLERS, RS256, bearer, behind, call, nothing, own, request, verifier};

/// Requests that a thread sends between two looks at the clock, made beforehand: what is timed is
/// what may be contended.
const BATCH: usize = 250;
const ROUNDS: usize = 200;

fn main() {
    // Cargo passes `--bench`; whatever else is there names what to run.
    let wanted: Vec<String> =
        std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let runs = |name: &str| {
        wanted.is_empty() || wanted.iter().any(|wanted| name.contains(wanted.as_str()))
    };
    if runs("known tokens") {
        println!(
            "known tokens: ns a call, with one thread and with two; throughput of two over one"
        );
        for callers in [1, 100] {
            let credentials = &CALLERS.1[..callers];
            scaling("bare service", callers, nothing, credentials);
            scaling("a layer for each", callers, || behind(verifier(&CALLERS.0)), credentials);
            let layer = VerifyServiceTokenLayer::new(verifier(&CALLERS.0));
            scaling("one layer", callers, || layer.layer(nothing()), credentials);
        }
    }
    if runs("flood") {
        flood();
    }
    if runs("refresh") {
        refresh();
    }
}

/// Throughput of one and of two threads.
fn scaling<S: Answers + Send>(
    what: &str,
    callers: usize,
    service: impl Fn() -> S + Sync,
    credentials: &[HeaderValue],
) {
    let (mut alone, mut together) = (Vec::new(), Vec::new());
    let (warming, ready) = (Mutex::new(()), AtomicUsize::new(0));
    let batches = |with_another: bool, times: &mut Vec<f64>| {
        let mut service = service();
        // Each thread's own bytes, as they come off its own connections.
        let credentials: Vec<_> = credentials.iter().map(own).collect();
        // One thread after the other: of two signatures that are checked at once, one would wait.
        let warming = warming.lock().expect("no thread panics");
        for credential in &credentials {
            call(&mut service, request(Some(own(credential))));
        }
        drop(warming);
        for round in 0..=ROUNDS {
            let requests = requests(&credentials, round);
            if with_another {
                // Spun, so that both begin within a few nanoseconds.
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
            scope.spawn(|| batches(false, &mut alone)).join().expect("a thread ends")
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
        "  {what:17} {callers:>3} callers {alone:>6.0} {together:>6.0}   {:.2} x",
        2.0 * alone / together
    );
}

fn requests(credentials: &[HeaderValue], round: usize) -> Vec<Request<()>> {
    (0..BATCH).map(|n| request(Some(own(&credentials[(round + n) % credentials.len()])))).collect()
}

/// Nanoseconds a call.
fn time(service: &mut impl Answers, requests: Vec<Request<()>>) -> f64 {
    let begun = Instant::now();
    for request in requests {
        call(service, request);
    }
    begun.elapsed().as_nanos() as f64 / BATCH as f64
}

fn median(values: &mut [f64]) -> f64 {
    percentile(values, 50)
}

fn percentile(values: &mut [f64], percent: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values[(values.len() - 1) * percent / 100]
}

/// Latency of known tokens on one thread while another one floods.
fn flood() {
    // With next to no room for end users' tokens: none that is sent is remembered.
    let layer = VerifyServiceTokenLayer::new(verifier(&RS256.jwks).cache_capacity(16));
    let known = bearer(&RS256.service);
    let users: Vec<_> = RS256.users.iter().map(|token| bearer(token)).collect();
    let forged: Vec<_> = RS256.users.iter().map(|token| bearer(&forge(token))).collect();

    println!("flood: known tokens, ns a call, p50 and p99; p99 over that of an idle other core");
    let mut idle = 0.0;
    // Known tokens as well: what two busy cores do to one another whatever they run.
    let floods: [(&str, Option<&[HeaderValue]>); 4] = [
        ("no flood", None),
        ("known tokens", Some(std::slice::from_ref(&known))),
        ("end users' tokens", Some(&users)),
        ("forged signatures", Some(&forged)),
    ];
    for (what, flood) in floods {
        let ends = AtomicBool::new(false);
        let mut latencies = Vec::new();
        let mut sent = 0_u64;
        std::thread::scope(|scope| {
            if let Some(flood) = flood {
                let (layer, ends, sent) = (&layer, &ends, &mut sent);
                scope.spawn(move || {
                    let mut service = layer.layer(nothing());
                    while !ends.load(Ordering::Relaxed) {
                        for credential in flood {
                            call(&mut service, request(Some(own(credential))));
                            *sent += 1;
                        }
                    }
                });
            }
            let mut service = layer.layer(nothing());
            let begun = Instant::now();
            while begun.elapsed() < Duration::from_secs(3) {
                for request in requests(std::slice::from_ref(&known), 0) {
                    let begun = Instant::now();
                    call(&mut service, request);
                    latencies.push(begun.elapsed().as_nanos() as f64);
                }
            }
            ends.store(true, Ordering::Relaxed);
        });
        let (p50, p99) = (percentile(&mut latencies, 50), percentile(&mut latencies, 99));
        if flood.is_none() {
            idle = p99;
        }
        println!("  {what:17} {p50:>6.0} {p99:>6.0}   {:.2} x   {} sent", p99 / idle, sent);
    }
}

/// The token with another signature of the same length.
fn forge(token: &str) -> String {
    let (signed, signature) = token.rsplit_once('.').expect("a token");
    format!("{signed}.{}{}", "A".repeat(signature.len() / 2), &signature[signature.len() / 2..])
}

/// Known tokens while the key set is asked for again and the answer does not come.
fn refresh() {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let jwks =
        RemoteJwks::new(format!("http://{}/jwks.json", listener.local_addr().expect("an address")));
    let jwks = jwks.expect("a URL");
    let (under_way, fetch_begins) = mpsc::channel();
    std::thread::spawn(move || answer_once(&listener, &under_way));
    runtime.block_on(jwks.ready()).expect("keys");

    let credential = [bearer(&RS256.service)];
    let mut service = behind(Verifier::new(jwks.clone()));
    let mut rounds = || {
        let mut times: Vec<_> = (0..10 * ROUNDS)
            .map(|round| time(&mut service, requests(&credential, round)))
            .collect();
        median(&mut times)
    };
    let before = runtime.block_on(async { rounds() });
    let fetch = runtime.spawn(async move { jwks.refresh().await });
    fetch_begins.recv().expect("a second fetch");
    let meanwhile = runtime.block_on(async { rounds() });
    assert!(!fetch.is_finished(), "the fetch was under way");
    println!(
        "refresh: a known token, ns a call: {before:.0} before, {meanwhile:.0} while a fetch is under way"
    );
}

/// Answers the first request with the key set, and leaves the next one waiting.
fn answer_once(listener: &TcpListener, under_way: &mpsc::Sender<()>) {
    let (mut first, _) = listener.accept().expect("a connection");
    assert!(first.read(&mut [0; 4096]).expect("a request") > 0);
    let (jwks, length) = (&RS256.jwks, RS256.jwks.len());
    write!(first, "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{jwks}")
        .expect("sent");
    drop(first);
    let (mut unanswered, _) = listener.accept().expect("another connection");
    under_way.send(()).expect("it is waited for");
    // Until whoever asked gives up.
    let _ = std::io::copy(&mut unanswered, &mut std::io::sink());
}
