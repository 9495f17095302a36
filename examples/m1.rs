//! M1, the calling microservice: mints its token at a core and calls M2 with it.
//!
//! Prints the status and the body of the response to `GET {m2}/whoami`. The exit code is 0 if the
//! status is 200.
#![allow(clippy::print_stdout)] // prints its result

use std::error::Error;
use std::process::ExitCode;

use reqwest::{Client, Method, Request, Url};
use tower::{ServiceBuilder, ServiceExt};
use tower_m2m::{AddServiceTokenLayer, SuperTokensCore};

use support::chain;

mod support;

const USAGE: &str =
    "usage: m1 --core URL [--api-key KEY] [--jwks-domain DOMAIN] --m2 URL [--allow-plain-http]

  --core URL             the core that mints; separate several URLs with ;
  --api-key KEY          the core's api key, if it requires one
  --jwks-domain DOMAIN   the token's `iss`; by default the URL of the first core
  --m2 URL               the microservice to call
  --allow-plain-http     allow http URLs beyond loopback";

#[derive(Default)]
struct Flags {
    core: String,
    api_key: Option<String>,
    jwks_domain: Option<String>,
    m2: String,
    allow_plain_http: bool,
}

fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let mut flags = Flags::default();
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("core") => flags.core = parser.value()?.string()?,
            Long("api-key") => flags.api_key = Some(parser.value()?.string()?),
            Long("jwks-domain") => flags.jwks_domain = Some(parser.value()?.string()?),
            Long("m2") => flags.m2 = parser.value()?.string()?,
            Long("allow-plain-http") => flags.allow_plain_http = true,
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    for (name, value) in [("--core", &flags.core), ("--m2", &flags.m2)] {
        if value.is_empty() {
            return Err(format!("{name} is missing").into());
        }
    }
    Ok(Some(flags))
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).init();
    let flags = match flags() {
        Ok(Some(flags)) => flags,
        Ok(None) => {
            println!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("m1: {error}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(flags).await {
        Ok(200) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("m1: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(flags: Flags) -> Result<u16, Box<dyn Error>> {
    let m2 = Url::parse(&flags.m2).map_err(|err| format!("--m2 {}: {err}", flags.m2))?;
    let https = m2.scheme() == "https";
    let loopback = matches!(m2.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    if !(https || loopback || flags.allow_plain_http) {
        return Err(format!(
            "--m2 {m2} is plain http beyond loopback; use https or --allow-plain-http"
        )
        .into());
    }

    let mut core = SuperTokensCore::new(&flags.core)?;
    if let Some(api_key) = flags.api_key {
        core = core.api_key(api_key);
    }
    if flags.allow_plain_http {
        core = core.allow_plain_http();
    }
    let first_core = flags.core.split(';').next().unwrap_or_default();
    let jwks_domain =
        flags.jwks_domain.unwrap_or_else(|| first_core.trim_end_matches('/').to_owned());
    let token = core.service_token(jwks_domain).claim("service", "m1").mint().await?;

    let mut client = Client::builder();
    if !https {
        // Plain http needs no CA certificates, and with none installed `build` would fail.
        client = client.tls_certs_only([]);
    }
    let m2_client = ServiceBuilder::new()
        .layer(AddServiceTokenLayer::new(token).only_to([m2.origin().ascii_serialization()])?)
        .service(client.build()?);

    let whoami = format!("{}/whoami", flags.m2.trim_end_matches('/')).parse()?;
    let response = m2_client.oneshot(Request::new(Method::GET, whoami)).await;
    let response =
        response.map_err(|err| format!("cannot call {m2}: {}", chain(&err.without_url())))?;
    let status = response.status().as_u16();
    println!("{status}\n{}", response.text().await?);
    Ok(status)
}
