//! Cached tokens on several threads.

use std::cell::Cell;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use serde_json::json;
use tokio::runtime::Builder;

use super::super::entry::DenyEntry;
use super::super::last_check::LastCheck;
use super::super::list::DenyList;
use super::super::lists::DenyLists;
use super::super::token_facts::TokenFacts;
use crate::rejection::RejectionReason as R;
use crate::testing::TestAuthority;
use crate::verify::Verifier;

const THREADS: usize = 4;

fn fixture() -> (Verifier, [DenyList; 2], String) {
    let authority = TestAuthority::offline();
    let lists = [DenyList::new(), DenyList::new()];
    let [one, other] = lists.clone();
    let verifier = authority.verifier().deny_list(one).deny_list(other);
    (verifier, lists, authority.token().claim("jti", "t1").sign())
}

/// Waits if the token is new and another thread checks a signature.
fn verify(verifier: &Verifier, token: &str) -> Result<(), R> {
    let runtime = Builder::new_current_thread().build().unwrap();
    runtime.block_on(verifier.verify(token)).map(drop).map_err(|err| err.reason())
}

#[test]
fn change_applies_to_the_next_request_on_every_thread() {
    let (verifier, lists, token) = fixture();
    // In turn the main thread changes a list and the other threads verify.
    let turn = Barrier::new(THREADS + 1);
    // (name, the list that changes, whether it gets the entry, result)
    let rounds = [
        ("no entry", 0, false, Ok(())),
        ("in the first list", 0, true, Err(R::TokenRevoked)),
        ("lifted", 0, false, Ok(())),
        ("in the second list", 1, true, Err(R::TokenRevoked)),
        ("lifted again", 1, false, Ok(())),
    ];
    let seen = std::thread::scope(|scope| {
        let verify_in_turn = || {
            let mut results = Vec::new();
            for _ in &rounds {
                turn.wait();
                results.push([(); 3].map(|()| verify(&verifier, &token)));
                turn.wait();
            }
            results
        };
        let threads = [(); THREADS].map(|()| scope.spawn(verify_in_turn));
        for (_, list, has_entry, _) in &rounds {
            lists[*list].replace(has_entry.then(|| DenyEntry::claim("jti", "t1")));
            turn.wait();
            turn.wait();
            assert!(verifier.cached(token.as_bytes()).is_some());
        }
        threads.map(|thread| thread.join().unwrap())
    });
    for results in seen {
        for (results, (round, .., expected)) in results.iter().zip(&rounds) {
            assert_eq!(results, &[*expected; 3], "{round}");
        }
    }
}

/// Otherwise each request with a denied token would be compared with every entry.
#[test]
fn token_is_compared_once_after_each_change() {
    let list = DenyList::new();
    let mut lists = DenyLists::default();
    lists.add(list.clone());
    let claims = json!({"jti": "t1", "service": "orders"});
    let last_check = LastCheck::default();
    let compared = Cell::new(0);
    let check = || {
        last_check.check(&lists, || {
            compared.set(compared.get() + 1);
            TokenFacts { claims: claims.as_object(), issued_at: Some(1), kid: None }
        })
    };
    let jti = || DenyEntry::claim("jti", "t1");
    let caller = || DenyEntry::claim("service", "orders");
    let rounds = [
        (vec![], Ok(())),
        (vec![jti()], Err(R::TokenRevoked)),
        (vec![caller()], Err(R::CallerDenied)),
        (vec![jti(), caller()], Err(R::CallerDenied)),
        (vec![], Ok(())),
    ];
    for (round, (entries, expected)) in rounds.into_iter().enumerate() {
        list.replace(entries);
        assert_eq!([(); 3].map(|()| check()), [expected; 3], "{round}");
        assert_eq!(compared.get(), round + 1);
    }
}

/// With both levels of the cache and threads that verify while the lists change.
#[test]
fn change_during_requests_is_never_missed() {
    let (verifier, lists, token) = fixture();
    assert_eq!(verify(&verifier, &token), Ok(()));
    // Odd while an entry is in force. The entry is added before an odd number is stored, and lifted
    // after the next even number is stored.
    let step = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..THREADS {
            scope.spawn(|| {
                let mut denied = 0;
                while denied < 200 {
                    let before = step.load(Ordering::SeqCst);
                    let result = verifier.cached(token.as_bytes()).unwrap();
                    let after = step.load(Ordering::SeqCst);
                    if before == after && before % 2 == 1 {
                        let reason = result.map_err(|err| err.reason()).err();
                        assert_eq!(reason, Some(R::TokenRevoked), "step {before}");
                        denied += 1;
                    }
                }
            });
        }
        for at in 0..2000 {
            let list = &lists[at % 2];
            list.replace([DenyEntry::claim("jti", "t1")]);
            step.fetch_add(1, Ordering::SeqCst);
            std::thread::yield_now();
            step.fetch_add(1, Ordering::SeqCst);
            list.replace([]);
        }
        // An entry that stays, for threads that have not seen enough of the others.
        lists[0].replace([DenyEntry::claim("jti", "t1")]);
        step.fetch_add(1, Ordering::SeqCst);
    });
    lists[0].replace([]);
    assert_eq!(verify(&verifier, &token), Ok(()));
}
