//! This crate and its peers. Each is set up as its documentation shows, and checks issuer and
//! audience if it can.
//!
//! The backend for signatures is each peer's own, except in those that use jsonwebtoken 10 or 11:
//! their default is `rust_crypto`, and an application can install `aws_lc_rs` for the whole
//! process.

use std::convert::Infallible;
use std::future::ready;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use aliri::{jwa, jwt};
use axum::body::Body;
use axum::extract::FromRef;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum_07::extract::Request as Request07;
use axum_jwks::TokenError;
use axum_keycloak_auth::instance::{KeycloakAuthInstance, KeycloakConfig};
use axum_keycloak_auth::layer::KeycloakAuthLayer;
use huskarl_axum::layers::ValidatorLayer;
use huskarl_reqwest::ReqwestClient;
use huskarl_resource_server::validator::custom::CustomValidator;
use jwt_authorizer::layer::AuthorizationLayer;
use jwt_authorizer::{IntoLayer, JwtAuthorizer};
use oauth_resource_server::{KeyNaming, OAuthConfig, OAuthValidator};
use serde::Deserialize;
use tower::Layer;
use tower_m2m::{RemoteJwks, Verifier, VerifyServiceTokenLayer};
use tower_oauth2_resource_server::server::OAuth2ResourceServer;
use tower_oauth2_resource_server::tenant::TenantConfiguration;
use tower_oauth2_resource_server::validation::ClaimsValidationSpec;

use crate::app::App;
use crate::authority::{AUDIENCE, Fixture, ISSUER, REALM, Result};
use crate::measure::{Drive, Driver};

pub const THIS: &str = "tower-m2m";
pub const NONE: &str = "none";
/// The bare handler on axum 0.7, which jwt-authorizer requires.
pub const NONE_07: &str = "none (axum 0.7)";
pub const PEERS: [&str; 8] = [
    "axum-jwt-auth",
    "axum-jwks",
    "jwt-authorizer",
    "tower-oauth2-resource-server",
    "aliri_tower",
    "axum-keycloak-auth",
    "oauth-resource-server",
    "huskarl-resource-server",
];

/// The crypto provider of jsonwebtoken 10 and 11.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Provider {
    AwsLc,
    RustCrypto,
}

impl Provider {
    /// Installs the provider for this process. May be called once.
    pub fn install(self) {
        use {jsonwebtoken_10::crypto as of_10, jsonwebtoken_11::crypto as of_11};
        let (first, second) = match self {
            Self::AwsLc => (&of_10::aws_lc::DEFAULT_PROVIDER, &of_11::aws_lc::DEFAULT_PROVIDER),
            Self::RustCrypto => {
                (&of_10::rust_crypto::DEFAULT_PROVIDER, &of_11::rust_crypto::DEFAULT_PROVIDER)
            }
        };
        first.install_default().expect("no provider was installed before");
        second.install_default().expect("no provider was installed before");
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::AwsLc => "aws-lc-rs",
            Self::RustCrypto => "RustCrypto",
        }
    }
}

impl FromStr for Provider {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        let named =
            [Self::AwsLc, Self::RustCrypto].into_iter().find(|provider| provider.name() == name);
        named.ok_or_else(|| format!("unknown provider {name}"))
    }
}

/// Whether the application chooses the contestant's backend.
pub fn takes_a_provider(contestant: &str) -> bool {
    matches!(contestant, "axum-jwt-auth" | "tower-oauth2-resource-server")
}

pub fn backend(contestant: &str, provider: Provider) -> &'static str {
    match contestant {
        NONE | NONE_07 => "",
        THIS => Provider::AwsLc.name(),
        "huskarl-resource-server" => Provider::RustCrypto.name(),
        _ if takes_a_provider(contestant) => provider.name(),
        _ => "ring",
    }
}

/// The bare handler that a contestant is compared with.
pub fn bare(contestant: &str) -> &'static str {
    match contestant {
        "jwt-authorizer" | NONE_07 => NONE_07,
        _ => NONE,
    }
}

/// The claims that an application reads.
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code)] // the handler does not read them
struct Caller {
    sub: String,
    source: String,
}

/// The same for contestants that deserialize the registered claims themselves.
#[derive(Clone, Debug, Deserialize)]
#[allow(dead_code)]
struct Extra {
    source: String,
}

pub async fn build(contestant: &str, fixture: &Fixture) -> Result<App> {
    let jwks = fixture.jwks(contestant);
    let app = match contestant {
        NONE => App::layered(tower::layer::util::Identity::new()),
        NONE_07 => App::layered_07(tower::layer::util::Identity::new()),
        THIS => tower_m2m(&jwks).await?,
        "axum-jwt-auth" => axum_jwt_auth(jwks).await?,
        "axum-jwks" => axum_jwks(&jwks).await?,
        "jwt-authorizer" => jwt_authorizer(&jwks).await?,
        "tower-oauth2-resource-server" => tower_oauth2_resource_server(jwks).await?,
        "aliri_tower" => aliri_tower(jwks).await?,
        "axum-keycloak-auth" => axum_keycloak_auth(&fixture.base).await?,
        "oauth-resource-server" => oauth_resource_server(jwks).await?,
        "huskarl-resource-server" => huskarl_resource_server(&jwks).await?,
        _ => return Err(format!("unknown contestant {contestant}").into()),
    };
    app.ready(fixture).await
}

async fn tower_m2m(jwks: &str) -> Result<App> {
    let jwks = RemoteJwks::new(jwks)?;
    jwks.ready().await?;
    // A new verifier for each service, because a verifier caches tokens.
    Ok(App::wrapping(move |inner| {
        let verifier = Verifier::new(jwks.clone()).issuer(ISSUER).audience(AUDIENCE);
        VerifyServiceTokenLayer::new(verifier).layer(inner)
    }))
}

async fn axum_jwt_auth(jwks: String) -> Result<App> {
    let mut validation = jsonwebtoken_10::Validation::new(jsonwebtoken_10::Algorithm::RS256);
    validation.set_audience(&[AUDIENCE]);
    validation.set_issuer(&[ISSUER]);
    let decoder = axum_jwt_auth::RemoteJwksDecoder::builder()
        .jwks_url(jwks)
        .validation(validation)
        .build()?;
    decoder.initialize().await?;
    let decoder: axum_jwt_auth::Decoder<Caller> = Arc::new(decoder);
    async fn handler(_: axum_jwt_auth::Claims<Caller>) -> &'static str {
        "ok"
    }
    Ok(App::extracting(handler, decoder))
}

/// axum clones this state for each request. The `Arc` keeps that from cloning the keys, which
/// `from_ref` clones once per request.
#[derive(Clone)]
struct Keys(Arc<axum_jwks::Jwks>);

impl FromRef<Keys> for axum_jwks::Jwks {
    fn from_ref(keys: &Keys) -> Self {
        Self::clone(&keys.0)
    }
}

impl axum_jwks::ParseTokenClaims for Caller {
    type Rejection = Unauthorized;
}

struct Unauthorized;

impl From<TokenError> for Unauthorized {
    fn from(_: TokenError) -> Self {
        Self
    }
}

impl IntoResponse for Unauthorized {
    fn into_response(self) -> Response {
        StatusCode::UNAUTHORIZED.into_response()
    }
}

async fn axum_jwks(jwks: &str) -> Result<App> {
    async fn handler(_: axum_jwks::Claims<Caller>) -> &'static str {
        "ok"
    }
    // axum-jwks does not check the issuer.
    let algorithm = Some(jsonwebtoken_09::Algorithm::RS256);
    let keys = axum_jwks::Jwks::from_jwks_url(jwks, Some(AUDIENCE), algorithm).await?;
    Ok(App::extracting(handler, Keys(Arc::new(keys))))
}

async fn jwt_authorizer(jwks: &str) -> Result<App> {
    Ok(App::layered_07(authorization_layer(jwks).await?))
}

async fn authorization_layer(jwks: &str) -> Result<AuthorizationLayer<Caller>> {
    let validation = jwt_authorizer::Validation::new().iss(&[ISSUER]).aud(&[AUDIENCE]);
    let authorizer = JwtAuthorizer::from_jwks_url(jwks).validation(validation).build().await?;
    Ok(authorizer.into_layer())
}

/// jwt-authorizer around a gRPC service of tonic 0.12, for which it has a feature.
pub async fn jwt_authorizer_on_tonic(fixture: &Fixture) -> Result<Box<dyn Drive>> {
    let layer = authorization_layer(&fixture.jwks("jwt-authorizer")).await?;
    let unary = |_: Request07| ready(Ok::<_, Infallible>(tonic_012::Status::ok("").into_http()));
    Ok(Box::new(Driver::new(move || layer.layer(tower::service_fn(unary)))))
}

async fn tower_oauth2_resource_server(jwks: String) -> Result<App> {
    let claims = ClaimsValidationSpec::new().iss(ISSUER).aud(&vec![AUDIENCE.to_owned()]).exp(true);
    let tenant = TenantConfiguration::builder(ISSUER)
        .jwks_url(jwks)
        .claims_validation(claims)
        .build()
        .await?;
    let server = OAuth2ResourceServer::<Caller>::builder().add_tenant(tenant).build().await?;
    Ok(App::layered(server.into_layer()))
}

async fn aliri_tower(jwks: String) -> Result<App> {
    let validator = jwt::CoreValidator::default()
        .add_approved_algorithm(jwa::Algorithm::RS256)
        .add_allowed_audience(jwt::Audience::from_static(AUDIENCE))
        .require_issuer(jwt::Issuer::from_static(ISSUER));
    let authority = aliri_oauth2::Authority::new_from_url(jwks, validator).await?;
    let authorizer = aliri_tower::Oauth2Authorizer::new().with_terse_error_handler::<Body>();
    Ok(App::layered(authorizer.jwt_layer(authority)))
}

async fn axum_keycloak_auth(base: &str) -> Result<App> {
    let server = axum_keycloak_auth::Url::parse(&format!("{base}/axum-keycloak-auth"))?;
    let config = KeycloakConfig::builder().server(server).realm(REALM.to_owned()).build();
    let instance = Arc::new(KeycloakAuthInstance::new(config));
    // `poll_ready` panics if it is called before the task that fetches the keys has started.
    for _ in 0..100 {
        if instance.is_operational().await {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // axum-keycloak-auth does not check the issuer and ignores the `kid`: it tries all keys in
    // turn.
    let layer = KeycloakAuthLayer::<String, Extra>::builder()
        .instance(instance)
        .expected_audiences(vec![AUDIENCE.to_owned()])
        .build();
    Ok(App::layered(layer))
}

async fn oauth_resource_server(jwks: String) -> Result<App> {
    let config = OAuthConfig {
        enabled: true,
        issuer: ISSUER.to_owned(),
        jwks_uri: Some(jwks),
        audience: AUDIENCE.to_owned(),
        resource: "https://billing.example.com".to_owned(),
        allow_unscoped_tokens: true, // no other contestant checks the scope
        ..OAuthConfig::default()
    };
    let config =
        config.resolve(KeyNaming::Dotted("oauth"))?.ok_or("the configuration is disabled")?;
    let validator = Arc::new(OAuthValidator::new(&config)?);
    validator.refresh_now().await?;
    Ok(App::layered(oauth_resource_server::axum::AuthLayer::builder().oauth(validator).build()?))
}

async fn huskarl_resource_server(jwks: &str) -> Result<App> {
    let validator = CustomValidator::builder()
        .iss(ISSUER)
        .aud(AUDIENCE)
        .jwks_uri(jwks.parse()?)
        .jwks_source(ReqwestClient::builder().build().await?)
        .with_claims::<Extra>()
        .build()
        .await?;
    Ok(App::layered(ValidatorLayer::builder().validator(validator).build().authenticated()))
}
