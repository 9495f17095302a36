//! Minting against cores that are dead, hanging, late, overloaded or broken, and against other
//! servers.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use reqwest::dns::{Name, Resolve, Resolving};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout};
use tower_m2m::testing::TestAuthority;
use tower_m2m::{MintError, RemoteJwks, ServiceToken, SuperTokensCore, Verifier};

use crate::manual_clock::ManualClock;
use crate::scripted::{
    API_KEY, SIGNATURE, ScriptedCore, Step, good, mint_in_steps, signed_by, status,
};
use crate::support::{DeadPort, ISSUER, Logs, TIMEOUT, chain, without_jti};

const HOUR: Duration = Duration::from_secs(3600);

/// The defaults of `start_up_timeout`, of `timeout` and of the longest delay between two attempts.
const START_UP_TIMEOUT: Duration = Duration::from_secs(30);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_DELAY: Duration = Duration::from_secs(5);

fn core(uri: &str) -> SuperTokensCore {
    SuperTokensCore::new(uri).unwrap().api_key(API_KEY).start_up_timeout(Duration::ZERO)
}

async fn mint(core: &SuperTokensCore) -> Result<ServiceToken, MintError> {
    let minted = timeout(TIMEOUT, core.service_token(ISSUER).mint()).await.expect("the mint hangs");
    if let Err(err) = &minted {
        let text = chain(err);
        assert!(!text.contains(['\n', '\r', '\u{1b}']), "control characters: {text:?}");
        for secret in [API_KEY, SIGNATURE, "eyJ"] {
            assert!(!text.contains(secret) && !format!("{err:?}").contains(secret), "{err:?}");
        }
    }
    minted
}

#[tokio::test]
async fn dead_host_is_skipped_in_any_position() {
    let live = ScriptedCore::start([good()]).await;
    let dead = DeadPort::new();
    for uri in [format!("{};{}", dead.url(), live.url), format!("{};{}", live.url, dead.url())] {
        let core = core(&uri);
        let before = live.count();
        for _ in 0..3 {
            mint(&core).await.unwrap();
            mint(&core.clone()).await.unwrap();
        }
        assert_eq!(live.count() - before, 6, "{uri}");
    }
}

#[tokio::test]
async fn mints_of_all_clones_rotate_through_the_hosts() {
    let hosts = [
        ScriptedCore::start([good()]).await,
        ScriptedCore::start([good()]).await,
        ScriptedCore::start([good()]).await,
    ];
    let core = core(&hosts.each_ref().map(|host| host.url.as_str()).join(";"));
    for _ in 0..2 {
        mint(&core).await.unwrap();
        mint(&core.clone()).await.unwrap();
        mint(&core).await.unwrap();
    }
    assert_eq!(hosts.each_ref().map(ScriptedCore::count), [2, 2, 2]);
}

#[tokio::test]
async fn refused_mint_asks_no_other_host() {
    let refusing = ScriptedCore::start([status(401, "", "Invalid API key\n")]).await;
    let other = ScriptedCore::start([good()]).await;
    let err = mint(&core(&format!("{};{}", refusing.url, other.url))).await.unwrap_err();
    assert_eq!(
        err.to_string(),
        format!("the core at {} refused with status 401: Invalid API key", refusing.url)
    );
    assert_eq!(other.count(), 0);
}

/// Resolves no name: hosts that are dead without a socket, so that time can be virtual.
struct NoSuchHost;

impl Resolve for NoSuchHost {
    fn resolve(&self, _: Name) -> Resolving {
        Box::pin(async { Err("no such host".into()) })
    }
}

#[tokio::test(start_paused = true)]
async fn mint_with_all_hosts_dead_fails_within_the_timeout() {
    let core = core("http://localhost:1;http://localhost:2").start_up_timeout(START_UP_TIMEOUT);
    let client = reqwest::Client::builder().dns_resolver(Arc::new(NoSuchHost));
    let start = Instant::now();
    let err = core.service_token(ISSUER).http_client(client).mint().await.unwrap_err();
    assert!(matches!(err, MintError::Unreachable { .. }), "{err}");
    assert!(chain(&err).contains("no such host"), "{err:?}");
    let unused = START_UP_TIMEOUT.checked_sub(start.elapsed()).expect("longer than the timeout");
    assert!(unused <= Duration::from_millis(100), "{unused:?} before the timeout");
}

#[tokio::test(start_paused = true)]
async fn hanging_host_times_out_and_the_retry_asks_another() {
    let clock = ManualClock::new();
    let hanging = ScriptedCore::start([Step::Silence]).await;
    // Lets the request with this number time out.
    let time_out = async |number| {
        hanging.received(number).await;
        clock.advance(REQUEST_TIMEOUT).await;
    };
    let hung = core(&hanging.url);
    let err = tokio::join!(mint(&hung), time_out(1)).0.unwrap_err();
    assert_eq!(err.to_string(), format!("the core at {} cannot be reached", hanging.url));
    assert!(chain(&err).ends_with("no response in time"), "{}", chain(&err));

    let good = ScriptedCore::start([good()]).await;
    let uri = format!("{};{}", hanging.url, good.url);
    // The hanging host may have minted already, so the same attempt asks no other host.
    let both = core(&uri);
    tokio::join!(mint(&both), time_out(2)).0.unwrap_err();
    assert_eq!((hanging.count(), good.count()), (2, 0));
    let (logs, patient) = (Logs::of_this_thread(), core(&uri).start_up_timeout(START_UP_TIMEOUT));
    let retry = async {
        time_out(3).await;
        logs.wait_for("mint failed, retrying").await;
        assert_eq!((hanging.count(), good.count()), (3, 0));
        clock.advance(MAX_DELAY).await;
    };
    tokio::join!(mint(&patient), retry).0.unwrap();
    assert_eq!((hanging.count(), good.count()), (3, 1));
}

#[tokio::test(start_paused = true)]
async fn error_names_the_base_path_of_the_core() {
    let cases = [
        (status(401, "", "Invalid API key"), "refused with status 401: Invalid API key"),
        (status(404, "", " \n"), "refused with status 404"),
        (status(400, "", ""), "refused with status 400"),
        (status(302, "", ""), "does not respond like a SuperTokens core: "),
        (Step::Token(json!({ "sub": "user-1" })), "minted a token with wrong claims"),
        (Step::Token(json!({ "exp": -5, "source": "microservice" })), "minted a token that cannot"),
        (Step::Silence, "cannot be reached: no response in time"),
    ];
    let clock = ManualClock::new();
    for (step, expected) in cases {
        let hangs = matches!(step, Step::Silence);
        let server = ScriptedCore::start([step]).await;
        let bases = [("/auth/", "/auth"), ("/a/recipe/jwt", "/a/recipe/jwt"), ("", "")];
        for (number, (base, named)) in bases.into_iter().enumerate() {
            let core = core(&format!("{}{base}", server.url));
            let time_out = async {
                server.received(number + 1).await;
                if hangs {
                    clock.advance(REQUEST_TIMEOUT).await;
                }
            };
            let text = chain(&tokio::join!(mint(&core), time_out).0.unwrap_err());
            assert!(text.contains(&format!("{}{named} {expected}", server.url)), "{text}");
            assert!(!text.ends_with([':', ' ']), "{text}");
        }
    }
    let err = SuperTokensCore::new("https://a.example/auth?tenant=secret").unwrap_err();
    let expected =
        "the URL of the core at https://a.example/auth must not have a query or fragment";
    assert_eq!(err.to_string(), expected);
}

#[tokio::test(start_paused = true)]
async fn status_429_is_retried_after_its_retry_after() {
    let clock = ManualClock::new();
    let patient = |core: &ScriptedCore| {
        self::core(&core.url).start_up_timeout(START_UP_TIMEOUT).service_token(ISSUER)
    };
    let too_many = || status(429, "", "slow down");
    let overloaded = ScriptedCore::start([too_many(), too_many(), too_many(), good()]).await;
    mint_in_steps(patient(&overloaded), &clock, MAX_DELAY).await.unwrap();
    assert_eq!(overloaded.count(), 4);

    let with_retry_after =
        ScriptedCore::start([status(429, "retry-after: 20\r\n", ""), good()]).await;
    let logs = Logs::of_this_thread();
    let mut minting = pin!(patient(&with_retry_after).mint());
    let other = ScriptedCore::start([good()]).await;
    let before = async {
        logs.wait_for("mint failed, retrying").await;
        clock.advance(Duration::from_secs(19)).await;
        // A retry in these 19 s would have begun before this mint.
        mint(&core(&other.url)).await.unwrap();
    };
    tokio::select! {
        minted = &mut minting => panic!("retried before `Retry-After`: {minted:?}"),
        () = before => {}
    }
    assert_eq!(with_retry_after.count(), 1);
    // A random quarter of `Retry-After` passes too.
    clock.advance(Duration::from_secs(1 + 5)).await;
    minting.await.unwrap();
    assert_eq!(with_retry_after.count(), 2);

    let always_429 = ScriptedCore::start([too_many()]).await;
    let err = mint_in_steps(patient(&always_429), &clock, MAX_DELAY).await.unwrap_err();
    assert_eq!(
        err.to_string(),
        format!("the core at {} refused with status 429: slow down", always_429.url)
    );
    assert!(always_429.count() > 1);
}

#[tokio::test(start_paused = true)]
async fn failing_core_is_retried_until_the_start_up_timeout() {
    let clock = ManualClock::new();
    let recovering =
        ScriptedCore::start([status(500, "", "boom"), status(503, "", ""), good()]).await;
    let request = core(&recovering.url).start_up_timeout(START_UP_TIMEOUT).service_token(ISSUER);
    mint_in_steps(request, &clock, MAX_DELAY).await.unwrap();
    assert_eq!(recovering.count(), 3);

    let broken = ScriptedCore::start([status(500, "", "\u{1b}[31mboom\nat line 1")]).await;
    let start = Instant::now();
    let request = core(&broken.url).start_up_timeout(START_UP_TIMEOUT).service_token(ISSUER);
    let err = mint_in_steps(request, &clock, MAX_DELAY).await.unwrap_err();
    assert!(start.elapsed() >= START_UP_TIMEOUT - MAX_DELAY, "{:?}", start.elapsed());
    assert!(start.elapsed() <= START_UP_TIMEOUT, "{:?}", start.elapsed());
    let expected =
        format!(r"the core at {} refused with status 500: \u{{1b}}[31mboom at line 1", broken.url);
    assert_eq!(err.to_string(), expected);
    assert!(broken.count() > 1);
}

#[tokio::test]
async fn permanent_error_fails_without_a_retry() {
    let echo = format!("no {API_KEY} here, nor eyJhbGciOiJSUzI1NiJ9.eyJ9.{SIGNATURE}");
    let cases = [
        (
            status(200, "", "<html>It works!</html>"),
            "does not respond like a SuperTokens core: an HTML page; is the base path right?",
        ),
        (
            status(302, "location: http://127.0.0.1:1/\r\n", ""),
            "does not respond like a SuperTokens core: unexpected status 302",
        ),
        (status(404, "", "Not found"), "refused with status 404: Not found"),
        (status(404, "", " \n"), "refused with status 404"),
        (
            status(400, "", &echo),
            "refused with status 400: (text withheld: it may hold a secret or a token)",
        ),
        (status(400, "", &"x".repeat(100_000)), "refused with status 400: (more than 64 KiB)"),
    ];
    for (step, expected) in cases {
        let server = ScriptedCore::start([step, good()]).await;
        let err = mint(&core(&server.url).start_up_timeout(HOUR)).await.unwrap_err();
        assert!(err.to_string().ends_with(expected), "{err}");
        assert_eq!(server.count(), 1, "{expected}");
    }
}

#[tokio::test]
async fn unusable_token_fails_without_a_retry() {
    let cases = [
        (json!({ "source": "microservice", "exp": -5 }), "the token has expired"),
        (json!({ "sub": "user-1" }), "(source: expected microservice, received none)"),
        (
            json!({ "source": "Microservice" }),
            "(source: expected microservice, received Microservice)",
        ),
        (
            json!({ "source": "microservice", "iss": "https://other" }),
            "(iss: expected https://api.example.com, received https://other)",
        ),
        (
            json!({ "source": "microservice", "exp": null }),
            "the token has no valid expiration time",
        ),
    ];
    for (claims, expected) in cases {
        let minting = ScriptedCore::start([Step::Token(claims), good()]).await;
        let err = mint(&core(&minting.url).start_up_timeout(HOUR)).await.unwrap_err();
        let is_unusable =
            matches!(&err, MintError::UnusableToken { .. } | MintError::WrongClaims { .. });
        assert!(is_unusable && chain(&err).ends_with(expected), "{err:?}");
        assert_eq!(minting.count(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn mint_waits_for_a_core_that_starts_ten_seconds_late() {
    let (clock, logs, port) = (ManualClock::new(), Logs::of_this_thread(), DeadPort::new());
    let core = core(&port.url()).start_up_timeout(START_UP_TIMEOUT);
    let start = Instant::now();
    let starting = async {
        for attempts in 1..=2 {
            logs.wait_for_times("mint failed, retrying", attempts).await;
            clock.advance(MAX_DELAY).await;
        }
        logs.wait_for_times("mint failed, retrying", 3).await;
        assert_eq!(start.elapsed(), Duration::from_secs(10));
        let late = ScriptedCore::start_on(port.listen(), [good()]);
        clock.advance(MAX_DELAY).await;
        late
    };
    let (minted, late) = tokio::join!(mint(&core), starting);
    minted.unwrap();
    assert_eq!(late.count(), 1);
}

#[tokio::test]
async fn request_to_the_core_holds_the_chosen_options() {
    let scripted = ScriptedCore::start([good(), signed_by("d-1732600000000")]).await;
    let core = core(&format!("{}/base/", scripted.url)).cdi_version("5.4");
    core.service_token(ISSUER).claim("service", "orders").mint().await.unwrap();
    core.service_token(ISSUER).dynamic_key().mint().await.unwrap();
    core.service_token(ISSUER)
        .dynamic_key()
        .validity(Duration::from_millis(90_500))
        .mint()
        .await
        .unwrap();
    let bodies = [
        r#"{"payload":{"source":"microservice","service":"orders"},"validity":3153600000,"useStaticSigningKey":true,"algorithm":"RS256","jwksDomain":"https://api.example.com"}"#,
        r#"{"payload":{"source":"microservice"},"validity":3600,"useStaticSigningKey":false,"algorithm":"RS256","jwksDomain":"https://api.example.com"}"#,
        r#"{"payload":{"source":"microservice"},"validity":90,"useStaticSigningKey":false,"algorithm":"RS256","jwksDomain":"https://api.example.com"}"#,
    ];
    let requests = scripted.requests();
    assert_eq!(requests.len(), bodies.len());
    for (request, body) in requests.iter().zip(bodies) {
        assert!(request.starts_with("POST /base/recipe/jwt HTTP/1.1\r\n"), "{request}");
        assert!(request.contains("\r\ncdi-version: 5.4\r\n"), "{request}");
        assert!(
            request.contains("\r\ncontent-type: application/json; charset=utf-8\r\n"),
            "{request}"
        );
        let (_, sent) = request.split_once("\r\n\r\n").unwrap();
        let parse = |text| serde_json::from_str::<Value>(text).unwrap();
        assert_eq!(without_jti(parse(sent)), parse(body));
    }
}

#[tokio::test]
async fn invalid_options_fail_before_any_request() {
    let scripted = ScriptedCore::start([good()]).await;
    for version in ["", "5", "5.", "v5.4", "5.4\r\n5", "5,4"] {
        let err = mint(&core(&scripted.url).cdi_version(version)).await.unwrap_err();
        assert!(matches!(err, MintError::CdiVersion { .. }), "{version:?}: {err}");
    }
    let err = core(&scripted.url)
        .service_token(ISSUER)
        .validity(Duration::from_millis(999))
        .mint()
        .await
        .unwrap_err();
    assert_eq!(err, MintError::Validity);
    assert_eq!(scripted.count(), 0);
}

#[tokio::test]
async fn verify_with_applies_the_policy_of_the_called_service() {
    let authority = TestAuthority::start().await;
    let core = authority.core().start_up_timeout(Duration::ZERO);
    let m2 = || authority.verifier_with(authority.local_jwks()).audience("billing");
    let request = || core.service_token(authority.issuer()).audience("billing");

    request().verify_with(&m2()).mint().await.unwrap();
    let other_issuer = Verifier::new(authority.local_jwks()).issuer("https://other");
    let err = request().verify_with(&other_issuer).mint().await.unwrap_err();
    assert!(err.to_string().starts_with("misconfigured: "), "{err}");
    assert!(matches!(err, MintError::Misconfigured { .. }));

    let without_audience = core.service_token(authority.issuer());
    let err = without_audience.verify_with(&m2()).mint().await.unwrap_err();
    assert!(matches!(err, MintError::Misconfigured { .. }), "{err}");

    let other_keys = TestAuthority::offline().verifier();
    let err = request().verify_with(&other_keys).mint().await.unwrap_err();
    assert!(matches!(err, MintError::Misconfigured { .. }), "{err}");

    let dead = DeadPort::new();
    let unreachable_keys = Verifier::new(RemoteJwks::new(dead.url()).unwrap());
    let err = request().verify_with(&unreachable_keys).mint().await.unwrap_err();
    assert!(matches!(err, MintError::KeysUnavailable { .. }), "{err}");
    assert!(chain(&err).contains("the connection failed: "), "{}", chain(&err));
}
