//! Bodies that come with 200 and are no key set to work with.

use tower_m2m::{FetchError, KeySetError};

use super::authority::Authority;
use super::outcome::{is_a_failed_fetch, is_a_failed_fetch_within};
use super::scripted::Script;

#[tokio::test]
async fn html_with_status_200_is_a_failed_fetch() {
    let page = "<!doctype html><title>Sign in</title><p>This network asks you to sign in.";
    is_a_failed_fetch(
        Script::answer(200, &["content-type: text/html"], page),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}

#[tokio::test]
async fn an_empty_body_with_status_200_is_a_failed_fetch() {
    is_a_failed_fetch(Script::ok(""), FetchError::KeySet { source: KeySetError::NotAKeySet }).await;
}

#[tokio::test]
async fn truncated_json_is_a_failed_fetch() {
    let json = Authority::new("k").jwks();
    is_a_failed_fetch(
        Script::ok(&json[..json.len() - 1]),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}

#[tokio::test]
async fn bad_json_is_a_failed_fetch() {
    let jwk = Authority::new("k").jwk();
    for json in [
        format!(r#"{{"keys":[{jwk}]}} trailing"#),
        format!("\u{feff}{{\"keys\":[{jwk}]}}"),
        "{'keys':[]}".into(),
    ] {
        is_a_failed_fetch(Script::ok(json), FetchError::KeySet { source: KeySetError::NotAKeySet })
            .await;
    }
}

#[tokio::test]
async fn an_empty_key_set_is_a_failed_fetch() {
    is_a_failed_fetch(
        Script::ok(r#"{"keys":[]}"#),
        FetchError::KeySet { source: KeySetError::NoUsableKey },
    )
    .await;
}

#[tokio::test]
async fn a_key_set_without_a_usable_key_is_a_failed_fetch() {
    let json = r#"{"keys":[null,{"kty":"oct","kid":"k","k":"AQAB"},{"kty":"AKP","kid":"pq"}]}"#;
    is_a_failed_fetch(Script::ok(json), FetchError::KeySet { source: KeySetError::NoUsableKey })
        .await;
}

#[tokio::test]
async fn more_than_max_keys_is_a_failed_fetch() {
    let keys: Vec<_> = (0..4).map(|n| Authority::new(&format!("k{n}")).jwk()).collect();
    let script = Script::ok(format!(r#"{{"keys":[{}]}}"#, keys.join(",")));
    let too_many = FetchError::KeySet { source: KeySetError::TooManyKeys { limit: 3 } };
    is_a_failed_fetch_within(script, |builder| builder.max_keys(3), |error| *error == too_many)
        .await;
}

#[tokio::test]
async fn an_object_without_keys_is_a_failed_fetch() {
    is_a_failed_fetch(Script::ok("{}"), FetchError::KeySet { source: KeySetError::NotAKeySet })
        .await;
}

#[tokio::test]
async fn an_array_in_place_of_the_set_is_a_failed_fetch() {
    let jwk = Authority::new("k").jwk();
    is_a_failed_fetch(
        Script::ok(format!("[[{jwk}]]")),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}

#[tokio::test]
async fn keys_that_are_null_or_an_object_are_a_failed_fetch() {
    let jwk = Authority::new("k").jwk();
    is_a_failed_fetch(
        Script::ok(r#"{"keys":null}"#),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
    is_a_failed_fetch(
        Script::ok(format!(r#"{{"keys":{jwk}}}"#)),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}

#[tokio::test]
async fn duplicate_keys_members_are_a_failed_fetch() {
    let jwk = Authority::new("k").jwk();
    is_a_failed_fetch(
        Script::ok(format!(r#"{{"keys":[{jwk}],"keys":[{jwk}]}}"#)),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}
