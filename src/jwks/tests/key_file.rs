//! A watched key file: what the objects of its keys tell cached tokens, on a driven clock.

use std::fs::write;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio::task::yield_now;
use tokio::time::sleep;

use crate::clock::Clock;
use crate::jose::Algorithm;
use crate::jwks::LocalJwks;
use crate::testing::TestAuthority;

const PEM: &str = "-----BEGIN PUBLIC KEY-----\n\
    MCowBQYDK2VwAyEA11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo=\n\
    -----END PUBLIC KEY-----\n";

fn set(keys: &[&str]) -> String {
    format!(r#"{{"keys":[{}]}}"#, keys.join(","))
}

#[tokio::test(start_paused = true)]
async fn key_that_a_changed_file_keeps_is_the_same_object() {
    let authorities = [(); 3].map(|()| TestAuthority::offline());
    let jwks = authorities.each_ref().map(TestAuthority::jwk);
    let [kept, removed, added] = jwks.each_ref().map(String::as_str);
    let kid = authorities[0].kid();
    let kid = || Some(kid.as_str());
    // (kid of the kept key, content before and after, whether all keys are kept)
    let cases = [
        (kid(), set(&[kept, removed]), set(&[added, kept]), false),
        (kid(), set(&[kept]), format!("\n{}", set(&[kept])), true),
        (None, PEM.to_owned(), format!("comment\n{PEM}"), true),
        (None, PEM.to_owned(), format!("{PEM}{PEM}"), true),
    ];
    for (kid, before, after, keeps_all) in cases {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        write(&path, &before).unwrap();
        let keys = LocalJwks::watch_file_on(&path, Clock::driven(1_800_000_000)).unwrap();
        let (all, found) = (keys.keys(), keys.find(kid, Algorithm::EdDSA, 0).unwrap());
        write(&path, &after).unwrap();
        sleep(Duration::from_millis(10_001)).await;
        let now = keys.find(kid, Algorithm::EdDSA, 0).unwrap();
        assert!(Arc::ptr_eq(&found, &now) && found.is_usable(0), "{after}");
        assert_eq!(all.iter().all(|key| key.is_usable(0)), keeps_all, "{after}");
    }
}

#[tokio::test(start_paused = true)]
async fn look_up_after_a_suspension_causes_the_due_read() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    write(&path, PEM).unwrap();
    let clock = Clock::driven(1_800_000_000);
    let keys = LocalJwks::watch_file_on(&path, clock.clone()).unwrap();
    yield_now().await;
    let authority = TestAuthority::offline();
    write(&path, authority.jwks()).unwrap();
    // The monotonic clock stands still.
    clock.shift(3600);
    let find = || {
        keys.find(Some(&authority.kid()), Algorithm::EdDSA, 0).map(|key| {
            let jwk: Value = serde_json::from_str(&authority.jwk()).unwrap();
            key.kid() == jwk["kid"].as_str()
        })
    };
    // A PEM key is found by any kid. The first look-up wakes the task.
    assert_eq!(find(), Some(false));
    sleep(Duration::from_millis(1)).await;
    assert_eq!(find(), Some(true));
}
