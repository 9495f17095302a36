//! M1, the calling microservice: gets its token from a SuperTokens core, an OAuth2 server or a file,
//! and calls M2 with it.
//!
//! ```text
//! cargo run --example m1 -- --core http://127.0.0.1:3567 --m2 http://127.0.0.1:4002
//! ```
//!
//! Prints the status of the response to `GET {m2}/whoami`, its `WWW-Authenticate` if it has one,
//! and its body. The exit code is 0 if the status is 200.

use std::process::ExitCode;
use std::time::Duration;

use http_body_util::{BodyExt, Limited};
use reqwest::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use reqwest::{Body, Client, Method, Request, Url};
use tower::{ServiceBuilder, ServiceExt};
use tower_m2m::{
    AddServiceTokenLayer, ClientCredentials, MintError, ServiceToken, SuperTokensCore, TokenFile,
};
use tracing_subscriber::filter::LevelFilter;

use secret_variable::secret_variable;
use support::{Stop, chain, exit_code, log_to_stderr, print};

#[path = "support/secret_variable.rs"]
mod secret_variable;
mod support;

const USAGE: &str = "\
usage: m1 --core URL [--api-key KEY] [--jwks-domain DOMAIN] [--audience AUD] --m2 URL
          [--allow-plain-http]
       m1 --token-url URL --client-id ID [--client-secret SECRET] [--scope SCOPE]...
          [--audience AUD] [--resource URI] [--credentials-in-body] --m2 URL [--allow-plain-http]
       m1 --token-file FILE --m2 URL [--allow-plain-http]

Gets a token, sends it with `GET /whoami` to M2, and prints the status and the body of the response. Exits with 0 if the
status is 200, and with 1 otherwise. A token of a core names this caller: its `service` is m1.

  --core URL               the core that mints; separate several URLs with ;
  --api-key KEY            the core's api key, instead of that of SUPERTOKENS_API_KEY
  --jwks-domain DOMAIN     the token's `iss`; by default the URL of the first core
  --token-url URL          the token endpoint of the OAuth2 server that issues the token
  --client-id ID           the id of this client at the OAuth2 server
  --client-secret SECRET   its secret, instead of that of OAUTH2_CLIENT_SECRET
  --scope SCOPE            a scope to request
  --resource URI           the parameter `resource` (RFC 8707)
  --credentials-in-body    send id and secret in the body instead of a header
  --token-file FILE        the token, in a file that another process keeps
  --audience AUD           the token's `aud`, or the parameter `audience`; by default none
  --m2 URL                 the microservice to call
  --allow-plain-http       allow http URLs beyond loopback
  --help                   print this help

environment:
  SUPERTOKENS_API_KEY      the core's api key. Unlike --api-key, it does not appear in the list of processes
  OAUTH2_CLIENT_SECRET     the secret of the OAuth2 client, likewise
  RUST_LOG                 what to log on stderr, for example debug or warn,tower_m2m=debug (info)";

/// The longest time that a call of M2 may take.
const TIMEOUT: Duration = Duration::from_secs(30);

/// The longest body that is read from M2, in bytes.
const MAX_BODY: usize = 64 * 1024;

#[derive(Default)]
struct Flags {
    core: String,
    api_key: Option<String>,
    jwks_domain: Option<String>,
    token_url: String,
    client_id: String,
    client_secret: Option<String>,
    scopes: Vec<String>,
    resource: Option<String>,
    credentials_in_body: bool,
    token_file: String,
    audience: Option<String>,
    m2: String,
    allow_plain_http: bool,
}

impl Flags {
    /// Checks that all flags are for the same authority, and reads its secret from the environment
    /// if no flag has it.
    fn complete(&mut self) -> Result<(), lexopt::Error> {
        let authorities = [
            ("--core", &self.core),
            ("--token-url", &self.token_url),
            ("--token-file", &self.token_file),
        ];
        let mut given = authorities.iter().filter(|(_, value)| !value.is_empty());
        let Some((authority, _)) = given.next() else {
            return Err("--core, --token-url or --token-file is missing".into());
        };
        if let Some((other, _)) = given.next() {
            return Err(format!("{authority} and {other} exclude each other").into());
        }
        let (is_core, is_oauth2) = (*authority == "--core", *authority == "--token-url");
        // Each flag that the authority does not use, and those that do.
        let foreign = [
            ("--api-key", !is_core && self.api_key.is_some(), "--core"),
            ("--jwks-domain", !is_core && self.jwks_domain.is_some(), "--core"),
            ("--client-id", !is_oauth2 && !self.client_id.is_empty(), "--token-url"),
            ("--client-secret", !is_oauth2 && self.client_secret.is_some(), "--token-url"),
            ("--scope", !is_oauth2 && !self.scopes.is_empty(), "--token-url"),
            ("--resource", !is_oauth2 && self.resource.is_some(), "--token-url"),
            ("--credentials-in-body", !is_oauth2 && self.credentials_in_body, "--token-url"),
            (
                "--audience",
                !is_core && !is_oauth2 && self.audience.is_some(),
                "--core or --token-url",
            ),
        ];
        if let Some((name, _, needed)) = foreign.iter().find(|(_, is_foreign, _)| *is_foreign) {
            return Err(format!("{name} needs {needed}").into());
        }
        let required =
            [("--client-id", is_oauth2 && self.client_id.is_empty()), ("--m2", self.m2.is_empty())];
        if let Some((name, _)) = required.iter().find(|(_, is_missing)| *is_missing) {
            return Err(format!("{name} is missing").into());
        }
        if is_oauth2 && self.client_secret.is_none() {
            self.client_secret = secret_variable("OAUTH2_CLIENT_SECRET")?;
            if self.client_secret.is_none() {
                return Err("--client-secret is missing".into());
            }
        }
        if is_core && self.api_key.is_none() {
            self.api_key = secret_variable("SUPERTOKENS_API_KEY")?;
        }
        Ok(())
    }
}

/// Parses the command line. `None` if it asks for help.
fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut flags = Flags::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("core") => flags.core = parser.value()?.string()?,
            Long("api-key") => flags.api_key = Some(parser.value()?.string()?),
            Long("jwks-domain") => flags.jwks_domain = Some(parser.value()?.string()?),
            Long("token-url") => flags.token_url = parser.value()?.string()?,
            Long("client-id") => flags.client_id = parser.value()?.string()?,
            Long("client-secret") => flags.client_secret = Some(parser.value()?.string()?),
            Long("scope") => flags.scopes.push(parser.value()?.string()?),
            Long("resource") => flags.resource = Some(parser.value()?.string()?),
            Long("credentials-in-body") => flags.credentials_in_body = true,
            Long("token-file") => flags.token_file = parser.value()?.string()?,
            Long("audience") => flags.audience = Some(parser.value()?.string()?),
            Long("m2") => flags.m2 = parser.value()?.string()?,
            Long("allow-plain-http") => flags.allow_plain_http = true,
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    flags.complete()?;
    Ok(Some(flags))
}

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr(LevelFilter::INFO);
    exit_code("m1", USAGE, run().await)
}

async fn run() -> Result<ExitCode, Stop> {
    let Some(flags) = flags().map_err(Stop::command_line)? else {
        return print(USAGE).map(|()| ExitCode::SUCCESS);
    };
    let m2 = m2_url(&flags)?;

    // The token, requested once, at start-up.
    let minted = if !flags.token_file.is_empty() {
        ServiceToken::from_source(TokenFile::new(&flags.token_file)).await
    } else if !flags.token_url.is_empty() {
        mint_at_oauth2_server(&flags).await
    } else {
        mint_at_core(&flags).await
    };
    let token = minted.map_err(|err| match err {
        MintError::Config(_) | MintError::ApiKey => Stop::Usage(chain(&err)),
        _ => Stop::Failed(chain(&err)),
    })?;

    // The client, which adds the token to each request to M2.
    let mut client = Client::builder().timeout(TIMEOUT);
    if m2.scheme() == "http" {
        // Plain http needs no CA certificates, and with none installed `build` would fail.
        client = client.tls_certs_only([]);
    }
    let mut layer = AddServiceTokenLayer::new(token);
    if flags.allow_plain_http {
        layer = layer.allow_plain_http();
    }
    let m2_client = ServiceBuilder::new()
        .layer(layer.only_to([m2.origin().ascii_serialization()])?)
        .service(client.build()?);

    let whoami = format!("{}/whoami", m2.as_str().trim_end_matches('/')).parse()?;
    let response = m2_client
        .oneshot(Request::new(Method::GET, whoami))
        .await
        .map_err(|err| Stop::Failed(format!("cannot call {m2}: {}", chain(&err.without_url()))))?;
    let status = response.status().as_u16();
    print(status)?;
    // The challenge holds the reason if M2 refuses the token.
    for challenge in response.headers().get_all(WWW_AUTHENTICATE) {
        print(format_args!("www-authenticate: {}", challenge.to_str().unwrap_or("(not ASCII)")))?;
    }
    if status == 503
        && let Some(wait) = response.headers().get(RETRY_AFTER)
    {
        print(format_args!("retry-after: {}", wait.to_str().unwrap_or("(not ASCII)")))?;
        print("M2 cannot verify tokens now; its /readyz and its log say why.")?;
    }
    let body = Limited::new(Body::from(response), MAX_BODY).collect().await.map_err(|err| {
        Stop::Failed(format!("cannot read the response of {m2}: {}", chain(&*err)))
    })?;
    print(String::from_utf8_lossy(&body.to_bytes()))?;
    Ok(if status == 200 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn mint_at_core(flags: &Flags) -> Result<ServiceToken, MintError> {
    let mut core = SuperTokensCore::new(&flags.core)?;
    if let Some(api_key) = &flags.api_key {
        core = core.api_key(api_key);
    }
    if flags.allow_plain_http {
        core = core.allow_plain_http();
    }
    let first_core = flags.core.split(';').next().unwrap_or_default().trim_end_matches('/');
    let jwks_domain = flags.jwks_domain.as_deref().unwrap_or(first_core);
    let mut request = core.service_token(jwks_domain).claim("service", "m1");
    if let Some(audience) = &flags.audience {
        request = request.audience(audience);
    }
    request.mint().await
}

async fn mint_at_oauth2_server(flags: &Flags) -> Result<ServiceToken, MintError> {
    let secret = flags.client_secret.as_deref().unwrap_or_default();
    let mut credentials = ClientCredentials::new(&flags.token_url, &flags.client_id, secret)?;
    if flags.allow_plain_http {
        credentials = credentials.allow_plain_http();
    }
    if flags.credentials_in_body {
        credentials = credentials.credentials_in_body();
    }
    credentials = flags.scopes.iter().fold(credentials, |all, scope| all.scope(scope));
    if let Some(audience) = &flags.audience {
        credentials = credentials.audience(audience);
    }
    if let Some(resource) = &flags.resource {
        credentials = credentials.parameter("resource", resource);
    }
    credentials.mint().await
}

/// The URL of M2. Refuses plain http beyond loopback, where an attacker on the path can read the
/// token.
fn m2_url(flags: &Flags) -> Result<Url, Stop> {
    // The text before an `@` may be a password, so it is not printed.
    let shown = if flags.m2.contains('@') { "(hidden)" } else { &flags.m2 };
    let m2 = Url::parse(&flags.m2)
        .map_err(|err| Stop::Usage(format!("--m2 {shown:?} is not a URL: {err}")))?;
    if !m2.username().is_empty() || m2.password().is_some() {
        return Err(Stop::Usage("--m2 must not hold a user or password".to_owned()));
    }
    let is_loopback = matches!(m2.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match m2.scheme() {
        "https" => Ok(m2),
        "http" if is_loopback || flags.allow_plain_http => Ok(m2),
        "http" => Err(Stop::Usage(format!(
            "--m2 {m2} is plain http beyond loopback; use https or --allow-plain-http"
        ))),
        _ => Err(Stop::Usage(format!("--m2 {shown:?} is not an http or https URL"))),
    }
}
