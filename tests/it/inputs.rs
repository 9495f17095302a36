//! Values that users read from environment variables and files: api keys, tokens, URLs and key
//! sets.

use std::fs;
use std::time::Duration;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use tower_m2m::testing::TestAuthority;
use tower_m2m::{
    AddServiceTokenLayer, ConfigError, EmbeddedCore, LocalJwks, MintError, RemoteJwks,
    ServiceToken, SuperTokensCore, embedded_core,
};

use crate::support::{ISSUER, serve};

/// What an input makes of a text. `None` if it refuses the text.
type Read<'r> = &'r dyn Fn(&str) -> Option<String>;

/// The value as editors, `echo` and mounted files present it.
fn forms(value: &str) -> [String; 5] {
    [("", ""), ("", "\n"), (" \t", " \r\n"), ("\u{feff}", "\n"), ("\u{a0}", "\u{feff}\u{a0}")]
        .map(|(before, after)| format!("{before}{value}{after}"))
}

#[test]
fn space_around_a_token_or_url_is_ignored() {
    let jwt = TestAuthority::offline().token().sign();
    let token = |text: &str| {
        let mut headers = HeaderMap::new();
        ServiceToken::from_jwt(text).ok()?.apply(&mut headers);
        headers[AUTHORIZATION].to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned)
    };
    let core = |text: &str| SuperTokensCore::new(text).ok().map(|core| format!("{core:?}"));
    let two_cores = |text: &str| core(&format!("{text};{text}"));
    let jwks = |text: &str| RemoteJwks::new(text).ok().map(|_| String::new());
    let origin = |text: &str| {
        let layer = AddServiceTokenLayer::new(ServiceToken::from_jwt(&jwt).ok()?);
        layer.only_to([text]).ok().map(|_| String::new())
    };
    let inputs: [(&str, Read<'_>, &str); 5] = [
        ("from_jwt", &token, &jwt),
        ("SuperTokensCore::new", &core, "https://core.example.com/base"),
        ("SuperTokensCore::new with two", &two_cores, "https://core.example.com/base"),
        ("RemoteJwks::new", &jwks, "https://keys.example.com/jwks.json"),
        ("only_to", &origin, "https://billing.internal"),
    ];
    for (input, read, value) in inputs {
        for form in forms(value) {
            assert!(read(value).is_some() && read(&form) == read(value), "{input}: {form:?}");
        }
    }
}

#[tokio::test]
async fn space_around_an_api_key_or_version_is_ignored() {
    let keys: Vec<String> = (0..5).map(|n| format!("key-{n}-0123456789abcdef")).collect();
    let padded = |n: usize| forms(&keys[n])[n].clone();
    let builder = (0..5).fold(EmbeddedCore::builder(), |core, n| core.api_key(padded(n)));
    let url = format!("http://{}", serve(builder.build().await.unwrap().router()).await);
    let core = SuperTokensCore::new(&url).unwrap().start_up_timeout(Duration::ZERO);
    let versions = forms("5.0");
    for (n, version) in versions.iter().enumerate() {
        let core = core.clone().api_key(padded((n + 1) % 5)).cdi_version(version);
        let minted = core.service_token(ISSUER).mint().await;
        assert!(minted.is_ok(), "{n}: {minted:?}");
    }
    // Space within a key is part of it, and no header can carry a line break.
    let inner = core.api_key("line\nbreak").service_token(ISSUER).mint().await.unwrap_err();
    assert_eq!(inner, MintError::ApiKey);
    for empty in forms("") {
        let built = EmbeddedCore::builder().api_key(&empty).build().await.map(drop);
        assert_eq!(built, Err(embedded_core::BuildError::UnusableApiKey), "{empty:?}");
    }
}

#[test]
fn core_without_a_scheme_is_read_as_the_sdks_read_it() {
    // (connection URI, hosts of the core)
    let cases: [(&str, &[&str]); 9] = [
        ("localhost:3567", &["http://localhost:3567/"]),
        ("localhost", &["http://localhost/"]),
        ("127.0.0.1:3567/base", &["http://127.0.0.1:3567/base"]),
        ("[::1]:3567", &["http://[::1]:3567/"]),
        ("10.0.0.1:3567", &["http://10.0.0.1:3567"]),
        ("core.example.com", &["https://core.example.com"]),
        ("core.example.com:3567/base/", &["https://core.example.com:3567/base"]),
        ("localhost.example.com", &["https://localhost.example.com"]),
        (
            "localhost:3567; https://core.example.com",
            &["http://localhost:3567", "https://core.example.com"],
        ),
    ];
    let printed = |uri: &str| format!("{:?}", SuperTokensCore::new(uri));
    for (uri, hosts) in cases {
        assert!(SuperTokensCore::new(uri).is_ok(), "{uri}: {}", printed(uri));
        assert_eq!(printed(uri), printed(&hosts.join(";")), "{uri}");
    }
    for bad in ["core:3567", "core", "/core.example.com", "//core.example.com", "ftp://a.example"] {
        assert!(matches!(SuperTokensCore::new(bad), Err(ConfigError::Url { .. })), "{bad}");
    }
    let err = SuperTokensCore::new("admin:secret@core.example.com").unwrap_err();
    assert_eq!(err, ConfigError::UrlCredentials);
}

#[tokio::test]
async fn plain_http_to_a_core_without_a_scheme_is_refused() {
    let core = SuperTokensCore::new("10.0.0.1:3567").unwrap();
    let err = core.service_token(ISSUER).mint().await.unwrap_err();
    assert!(matches!(err, MintError::Config(ConfigError::PlainHttp { .. })), "{err:?}");
}

#[test]
fn key_set_may_begin_with_a_byte_order_mark() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    let json = TestAuthority::offline().jwks();
    for text in [format!("\u{feff}{json}"), format!("\u{feff}\r\n {json}\n")] {
        fs::write(&path, &text).unwrap();
        assert!(LocalJwks::from_json(&text).is_ok(), "from_json: {text:?}");
        assert!(LocalJwks::from_file(&path).is_ok(), "from_file: {text:?}");
        let seeded = RemoteJwks::builder("http://localhost:3567").seed(&text).build();
        assert!(seeded.is_ok(), "seed: {:?}", seeded.map(drop));
    }
    let inner = format!(" \u{feff}{json}");
    assert!(LocalJwks::from_json(inner).is_err(), "only the first character is a mark");
}
