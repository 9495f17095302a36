//! The status with which each contestant answers defective requests, unknown keys and outages.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use http::header::{AUTHORIZATION, CONTENT_TYPE, TE, WWW_AUTHENTICATE};
use http::{HeaderValue, Method, Request, StatusCode, Version};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::app::App;
use crate::authority::{Authority, Fixture, Result, payload};
use crate::contestants::{self, PEERS, THIS};
use crate::measure::{Drive, bearer};
use crate::report;
use crate::signer::Signer;

/// Longer than a minute: some contestants fetch keys at most once a minute.
const PAUSE: Duration = Duration::from_secs(65);
const UNKNOWN_KIDS: usize = 100;
const EXTENSION: &str = "urn:example:extension";
const REQUESTS: [&str; 7] = [
    "crate",
    "no token",
    "no `aud`",
    "unknown `crit`",
    "`sub` twice",
    "`source` twice",
    "gRPC call without a token",
];
const KEYS: [&str; 6] = [
    "crate",
    "100 unknown `kid`s",
    "fetches for them",
    "new key",
    "outage: known key",
    "outage: unknown key",
];

type Apps = BTreeMap<&'static str, App>;

/// Starts an authority, and all contestants with its keys.
fn start(runtime: &Runtime, signer: &Signer) -> Result<(Authority, Apps)> {
    let authority = Authority::start(0)?;
    authority.list(signer.jwk());
    let mut apps = Apps::new();
    for name in [THIS].into_iter().chain(PEERS) {
        let app = runtime.block_on(contestants::build(name, &authority.fixture));
        apps.insert(name, app.map_err(|reason| format!("{name}: {reason}"))?);
    }
    Ok((authority, apps))
}

/// The tokens to send.
struct Tokens {
    good: String,
    without_aud: String,
    extension: String,
    unknown_crit: String,
    sub_twice: String,
    source_twice: String,
    unknown_kids: Vec<String>,
    new_key: String,
}

impl Tokens {
    fn new(old: &Signer, new: &Signer) -> Result<Self> {
        let mut claims = payload(0);
        claims["iat"] = json!(Timestamp::now().as_second());
        let mut without_aud = claims.clone();
        without_aud.as_object_mut().ok_or("no object")?.remove("aud");
        let mut extension = old.header();
        extension[EXTENSION] = json!("1");
        let mut crit = extension.clone();
        crit["crit"] = json!([EXTENSION]);

        let header = old.header();
        let text = claims.to_string();
        let unknown_kid = |number| {
            let mut header = new.header();
            header["kid"] = json!(format!("s-{number:08x}-0000-4000-8000-000000000000"));
            new.sign(&header, &text)
        };
        Ok(Self {
            good: old.sign(&header, &text)?,
            without_aud: old.sign(&header, &without_aud.to_string())?,
            extension: old.sign(&extension, &text)?,
            unknown_crit: old.sign(&crit, &text)?,
            sub_twice: old.sign(&header, &twice(&claims, "sub"))?,
            source_twice: old.sign(&header, &twice(&claims, "source"))?,
            unknown_kids: (0..UNKNOWN_KIDS).map(unknown_kid).collect::<Result<_>>()?,
            new_key: new.sign(&new.header(), &text)?,
        })
    }
}

/// The claims as JSON, in which this claim comes first with another value, and then again.
fn twice(claims: &Value, name: &str) -> String {
    let text = claims.to_string();
    format!("{{\"{name}\":\"other\",{}", &text[1..])
}

/// Sends all requests and returns two markdown tables: what the contestants answer to defective
/// requests, and when keys change.
pub fn run() -> Result<String> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (old, new) = (Signer::new("s-old")?, Signer::new("s-new")?);
    let tokens = Tokens::new(&old, &new)?;
    let start = || start(&runtime, &old);
    let (authority, mut checked) = start()?;
    let mut on_tonic =
        runtime.block_on(contestants::jwt_authorizer_on_tonic(&authority.fixture))?;
    let (flood_authority, mut flooded) = start()?;
    let (rotating_authority, mut rotated) = start()?;
    let (stopping_authority, mut in_outage) = start()?;
    drop(stopping_authority);
    eprintln!("waiting {} s: some contestants limit their fetches", PAUSE.as_secs());
    runtime.block_on(async { tokio::time::sleep(PAUSE).await });
    rotating_authority.list(new.jwk());

    let mut requests = heading(REQUESTS);
    let mut keys = heading(KEYS);
    for name in [THIS].into_iter().chain(PEERS) {
        let [checked, flooded, rotated, in_outage] =
            [&mut checked, &mut flooded, &mut rotated, &mut in_outage]
                .map(|apps| apps.get_mut(name).expect("all contestants are built"));
        let on_tonic = (name == "jwt-authorizer").then_some(&mut *on_tonic);
        let answered: Result<()> = runtime.block_on(async {
            requests += &line(request_row(name, checked, on_tonic, &tokens).await?);
            let fixture = &flood_authority.fixture;
            keys += &line(key_row(name, flooded, fixture, rotated, in_outage, &tokens).await?);
            Ok(())
        });
        answered.map_err(|reason| format!("{name}: {reason}"))?;
    }
    Ok(format!("{requests}\n{keys}"))
}

/// The cells of [`REQUESTS`].
async fn request_row(
    name: &str,
    app: &mut App,
    on_tonic: Option<&mut (dyn Drive + 'static)>,
    tokens: &Tokens,
) -> Result<[String; 7]> {
    // An unknown extension that `crit` does not list must be ignored.
    for good in [&tokens.good, &tokens.extension] {
        expect_ok(app.driver.status(bearer(good)).await)?;
    }
    let missing = app.driver.respond(Request::new(())).await;
    let challenge = match missing.headers().get(WWW_AUTHENTICATE) {
        None => "no challenge",
        Some(value) if value.to_str()?.contains("error=\"invalid_token\"") => "`invalid_token`",
        Some(_) => "`Bearer`",
    };
    let mut grpc_call = grpc(&mut *app.driver, &tokens.good).await?;
    if let Some(on_tonic) = on_tonic {
        grpc_call += &format!("; on tonic 0.12: {}", grpc(on_tonic, &tokens.good).await?);
    }
    Ok([
        label(name),
        format!("{}, {challenge}", missing.status().as_u16()),
        verdict(app, &tokens.without_aud).await,
        verdict(app, &tokens.unknown_crit).await,
        verdict(app, &tokens.sub_twice).await,
        verdict(app, &tokens.source_twice).await,
        grpc_call,
    ])
}

/// The cells of [`KEYS`].
async fn key_row(
    name: &str,
    flooded: &mut App,
    flood_fixture: &Fixture,
    rotated: &mut App,
    in_outage: &mut App,
    tokens: &Tokens,
) -> Result<[String; 6]> {
    let before = flood_fixture.fetches(name).await?;
    let mut verdicts = BTreeSet::new();
    for token in &tokens.unknown_kids {
        verdicts.insert(verdict(flooded, token).await);
    }
    let fetches = flood_fixture.fetches(name).await? - before;
    Ok([
        label(name),
        Vec::from_iter(verdicts).join(" or "),
        fetches.to_string(),
        verdict(rotated, &tokens.new_key).await,
        verdict(in_outage, &tokens.good).await,
        verdict(in_outage, &tokens.new_key).await,
    ])
}

/// The answer to a gRPC call without a token.
async fn grpc(app: &mut dyn Drive, good: &str) -> Result<String> {
    let mut request = Request::new(());
    *request.method_mut() = Method::POST;
    *request.version_mut() = Version::HTTP_2;
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    request.headers_mut().insert(TE, HeaderValue::from_static("trailers"));
    let refused = app.respond(request.clone()).await;
    request.headers_mut().insert(AUTHORIZATION, bearer(good).ok_or("no credential")?);
    expect_ok(app.respond(request).await.status())?;
    Ok(match refused.headers().get("grpc-status") {
        Some(code) => format!("`grpc-status` {}", code.to_str()?),
        None => refused.status().as_u16().to_string(),
    })
}

fn expect_ok(status: StatusCode) -> Result<()> {
    match status {
        StatusCode::OK => Ok(()),
        status => Err(format!("status {status} for a good token").into()),
    }
}

async fn verdict(app: &mut App, token: &str) -> String {
    match app.driver.status(bearer(token)).await {
        StatusCode::OK => "admitted".to_owned(),
        status => status.as_u16().to_string(),
    }
}

fn label(name: &str) -> String {
    let version = report::version(name);
    if name == THIS { format!("**{name}** {version}") } else { format!("{name} {version}") }
}

fn heading<const N: usize>(names: [&str; N]) -> String {
    format!("{}|{}\n", line(names.map(str::to_owned)), "---|".repeat(N))
}

fn line<const N: usize>(cells: [String; N]) -> String {
    format!("| {} |\n", cells.join(" | "))
}
