//! Bodies of a 200 response that are not a usable key set.

use tower_m2m::testing::TestAuthority;
use tower_m2m::{FetchError, KeySetError};

use super::outcome::{assert_fetch_fails, assert_fetch_fails_with};
use super::scripted::Script;

#[tokio::test]
async fn html_fails_the_fetch() {
    let page = "<!doctype html><title>Sign in</title><p>This network asks you to sign in.";
    assert_fetch_fails(
        Script::response(200, &["content-type: text/html"], page),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}

#[tokio::test]
async fn empty_body_fails_the_fetch() {
    assert_fetch_fails(Script::ok(""), FetchError::KeySet { source: KeySetError::NotAKeySet })
        .await;
}

#[tokio::test]
async fn truncated_json_fails_the_fetch() {
    let json = TestAuthority::offline().jwks();
    assert_fetch_fails(
        Script::ok(&json[..json.len() - 1]),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}

#[tokio::test]
async fn malformed_json_fails_the_fetch() {
    let jwk = TestAuthority::offline().jwk();
    for json in [format!(r#"{{"keys":[{jwk}]}} trailing"#), "{'keys':[]}".into()] {
        assert_fetch_fails(
            Script::ok(json),
            FetchError::KeySet { source: KeySetError::NotAKeySet },
        )
        .await;
    }
}

#[tokio::test]
async fn empty_key_set_fails_the_fetch() {
    assert_fetch_fails(
        Script::ok(r#"{"keys":[]}"#),
        FetchError::KeySet { source: KeySetError::NoUsableKey },
    )
    .await;
}

#[tokio::test]
async fn key_set_without_a_usable_key_fails_the_fetch() {
    let json = r#"{"keys":[null,{"kty":"oct","kid":"k","k":"AQAB"},{"kty":"AKP","kid":"pq"}]}"#;
    assert_fetch_fails(Script::ok(json), FetchError::KeySet { source: KeySetError::NoUsableKey })
        .await;
}

#[tokio::test]
async fn key_set_over_max_keys_fails_the_fetch() {
    let keys: Vec<_> = (0..4).map(|_| TestAuthority::offline().jwk()).collect();
    let script = Script::ok(format!(r#"{{"keys":[{}]}}"#, keys.join(",")));
    let too_many = FetchError::KeySet { source: KeySetError::TooManyKeys { limit: 3 } };
    assert_fetch_fails_with(script, |builder| builder.max_keys(3), |err| *err == too_many).await;
}

#[tokio::test]
async fn object_without_keys_fails_the_fetch() {
    assert_fetch_fails(Script::ok("{}"), FetchError::KeySet { source: KeySetError::NotAKeySet })
        .await;
}

#[tokio::test]
async fn array_instead_of_a_key_set_fails_the_fetch() {
    let jwk = TestAuthority::offline().jwk();
    assert_fetch_fails(
        Script::ok(format!("[[{jwk}]]")),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}

#[tokio::test]
async fn keys_member_that_is_not_an_array_fails_the_fetch() {
    let jwk = TestAuthority::offline().jwk();
    assert_fetch_fails(
        Script::ok(r#"{"keys":null}"#),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
    assert_fetch_fails(
        Script::ok(format!(r#"{{"keys":{jwk}}}"#)),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}

#[tokio::test]
async fn duplicate_keys_member_fails_the_fetch() {
    let jwk = TestAuthority::offline().jwk();
    assert_fetch_fails(
        Script::ok(format!(r#"{{"keys":[{jwk}],"keys":[{jwk}]}}"#)),
        FetchError::KeySet { source: KeySetError::NotAKeySet },
    )
    .await;
}
