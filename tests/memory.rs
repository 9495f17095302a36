//! The memory use of the token cache. The test is a separate binary, because it measures the whole
//! process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used)] // clippy's `allow-unwrap-in-tests` does not cover helper functions
#![allow(clippy::print_stdout)] // prints the measurements

use std::alloc::System;
use std::ops::Range;
use std::sync::{Arc, Barrier, Mutex, mpsc};
use std::thread;

use cap::Cap;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{Verifier, VerifyServiceTokenLayer};

/// Counts the bytes that all threads have allocated.
#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

/// Runs one test at a time.
static SERIAL: Mutex<()> = Mutex::new(());

const THREADS: usize = 64;

/// The number of small tokens that each thread has to itself: more than the thread's first cache
/// level can hold.
const OWN: usize = 300;

/// The number of tokens of each shape, which are divided among the threads. Together the tokens of
/// all shapes are more than the second cache level can hold.
const DIVIDED: usize = 1_500;

/// Claims of an ordinary shape (0), or of a shape that takes much memory for its length.
fn claims(number: usize, shape: usize) -> String {
    let marker = if number.is_multiple_of(10) { "" } else { r#""source":"microservice","# };
    let rest = match shape {
        0 => format!(
            r#""iss":"https://api.example.com","service":"orders","padding":"{}""#,
            "p".repeat(200)
        ),
        1 => format!(r#""x":[{}]"#, ["[[[]]]"; 20].join(",")),
        6 => format!(r#""x":[{}]"#, ["[[[[[]]]]]"; 100].join(",")),
        2 => format!(r#""x":[{}]"#, [r#"{"":{"":1}}"#; 60].join(",")),
        3 => (0..150).map(|at| format!(r#""{at}":1"#)).collect::<Vec<_>>().join(","),
        4 => format!(r#""x":"{}""#, "p".repeat(5500)),
        _ => format!(r#""x":[{}]"#, [r#""x""#; 400].join(",")),
    };
    format!(r#"{{"exp":4953600000,{marker}"number":{number},{rest}}}"#)
}

/// The resident memory of the process in KiB.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

struct Tokens {
    own: Vec<Vec<String>>,
    divided: Vec<String>,
}

/// Threads that run jobs until the pool is dropped.
struct Pool {
    jobs: Vec<mpsc::Sender<Box<dyn FnOnce() + Send>>>,
}

impl Pool {
    fn new() -> Self {
        let jobs = (0..THREADS).map(|_| {
            let (sender, jobs) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
            thread::spawn(move || jobs.into_iter().for_each(|job| job()));
            sender
        });
        Self { jobs: jobs.collect() }
    }

    /// Runs the job once on every thread and waits for all of them.
    fn run(&self, job: impl Fn(usize) + Send + Sync + 'static) {
        let (job, done) = (Arc::new(job), Arc::new(Barrier::new(THREADS + 1)));
        for (number, jobs) in self.jobs.iter().enumerate() {
            let (job, done) = (Arc::clone(&job), Arc::clone(&done));
            let work = Box::new(move || {
                job(number);
                drop(job);
                done.wait();
            });
            jobs.send(work).unwrap();
        }
        done.wait();
    }

    /// Each thread verifies its own tokens three times, so that both cache levels hold them. Then
    /// the threads verify the divided tokens, which evict the own tokens from the second level.
    fn verify(&self, tokens: &Arc<Tokens>, verifier: &Verifier) {
        let verify = move |verifier: &Verifier, token: &str| {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
            drop(runtime.block_on(verifier.verify(token)));
        };
        {
            let (tokens, verifier) = (Arc::clone(tokens), verifier.clone());
            self.run(move |thread| {
                let own = tokens.own[thread].iter();
                own.for_each(|token| (0..3).for_each(|_| verify(&verifier, token)));
            });
        }
        let (tokens, verifier) = (Arc::clone(tokens), verifier.clone());
        self.run(move |thread| {
            let divided = tokens.divided.iter().skip(thread).step_by(THREADS);
            divided.for_each(|token| verify(&verifier, token));
        });
    }
}

/// The bound that `Verifier::cache_capacity` documents is 4.5 KiB for each of 4 096 tokens and 0.5
/// MiB for each thread. Resident memory may be twice that, because an allocator leaves gaps between
/// objects of many sizes.
#[test]
fn cache_filled_by_64_threads_stays_within_its_bound() {
    let _serial = SERIAL.lock().unwrap();
    let bound = 4096 * 9 / 2 + 512 * THREADS;
    let (authority, pool) = (TestAuthority::offline(), Pool::new());
    let header = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, authority.kid());
    let sign = |shape: usize, number: usize| authority.sign_parts(&header, &claims(number, shape));
    let own = |thread: usize| {
        (0..OWN).map(|number| sign(number % 2, (thread * OWN + number) * 10 + 1)).collect()
    };
    let of_shape = |shape: usize| (0..DIVIDED).map(move |number| (shape, number));
    let tokens = Arc::new(Tokens {
        own: (0..THREADS).map(own).collect(),
        divided: (0..7).flat_map(of_shape).map(|(shape, number)| sign(shape, number)).collect(),
    });
    // A run without a cache allocates the threads' stacks and the allocator's arenas beforehand.
    pool.verify(&tokens, &Verifier::new(authority.local_jwks()).cache_capacity(0));
    let before = (ALLOCATOR.allocated(), resident());
    let verifier = Verifier::new(authority.local_jwks());
    pool.verify(&tokens, &verifier);
    let allocated = (ALLOCATOR.allocated() - before.0) / 1024;
    let taken = resident().saturating_sub(before.1);
    println!("{allocated} KiB allocated, {taken} KiB resident, {bound} KiB allowed");
    assert!(allocated <= bound, "{allocated} KiB allocated, {bound} KiB allowed");
    assert!(taken <= 2 * bound, "{taken} KiB resident, {} KiB allowed", 2 * bound);
    assert!(allocated > bound / 2, "{allocated} KiB allocated: the cache is not full");

    // Dropping the verifier on any thread frees the caches of all threads.
    drop(verifier);
    let left = ALLOCATOR.allocated().saturating_sub(before.0) / 1024;
    assert!(left < 256, "{left} KiB still allocated");
}

/// The table in the docs of `Verifier::cache_capacity`.
#[test]
fn small_cache_takes_what_the_docs_say() {
    let _serial = SERIAL.lock().unwrap();
    let authority = TestAuthority::offline();
    let header = format!(r#"{{"alg":"EdDSA","kid":"{}"}}"#, authority.kid());
    // An ordinary token of a core, as long as with a signature of RS256.
    let tokens = |range: Range<usize>| -> Vec<String> {
        range.map(|number| authority.sign_parts(&header, &claims(number * 10 + 1, 0))).collect()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    let verify = |verifier: &Verifier, tokens: &[String]| {
        for token in tokens {
            runtime.block_on(verifier.verify(token)).unwrap();
        }
    };
    let (warm_up, first, rest) = (tokens(0..1), tokens(1..2), tokens(2..1002));
    verify(&Verifier::new(authority.local_jwks()), &warm_up);
    let jwks = authority.local_jwks();
    let mut last = ALLOCATOR.allocated();
    let mut grown = || {
        let now = ALLOCATOR.allocated();
        now.saturating_sub(std::mem::replace(&mut last, now))
    };
    let verifier = Verifier::new(jwks).issuer("https://api.example.com");
    let layer = VerifyServiceTokenLayer::new(verifier.clone());
    let of_layer = grown();
    verify(&verifier, &first);
    let of_first = grown();
    verify(&verifier, &rest);
    let of_caller = grown() / rest.len();
    // Again, into the cache of this thread.
    verify(&verifier, &rest);
    let of_near = grown();
    println!("{of_layer} B layer, {of_first} B thread, {of_caller} B caller, {of_near} B again");
    assert!(of_layer <= 18 * 1024 && of_first <= 5 * 1024 && of_caller <= 2 * 1024);
    assert!(of_near <= 1000 * 64, "a thread refers to the shared entries");
    drop(layer);
}
