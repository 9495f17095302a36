//! Keeps a fresh token in a file, which `TokenFile` reads: one mint for each service instead of one
//! for each replica. Renews the token until it is stopped, as a sidecar; with `--once` it writes one
//! token and exits, as a CronJob.
//!
//! ```text
//! cargo run --example mint -- --core http://127.0.0.1:3567 --service orders --audience billing --out token
//! cargo run --example mint -- --key key.pem --issuer https://orders.internal --out token --once
//! ```
//!
//! Prints a line for each token that it writes. The exit code is 0 after SIGTERM, Ctrl-C or
//! `--once`, and 1 if there is no first token or the file cannot be written.

use std::io::Write;
#[cfg(unix)]
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use http::HeaderValue;
use tempfile::NamedTempFile;
use tokio::time::interval;
use tower_m2m::token::TokenRequest;
use tower_m2m::{Algorithm, LocalIssuer, MintError, ServiceToken, SigningKey, SuperTokensCore};
use tracing_subscriber::filter::LevelFilter;

use secret_variable::secret_variable;
use stop_signal::stop_signal;
use support::{Stop, chain, exit_code, log_to_stderr, print};

#[path = "support/secret_variable.rs"]
mod secret_variable;
#[path = "support/stop_signal.rs"]
mod stop_signal;
mod support;

const USAGE: &str = "\
usage: mint --core URL [--api-key KEY] [--jwks-domain DOMAIN] --out FILE [options]
       mint --key FILE [--key FILE]... --issuer ISS [--algorithm ALG] [--jwks-out FILE] --out FILE [options]

Writes a token to a file for other processes, and replaces it before it expires, until SIGTERM or Ctrl-C.

  --core URL             the core that mints; separate several URLs with ;
  --api-key KEY          the core's api key, instead of that of SUPERTOKENS_API_KEY
  --jwks-domain DOMAIN   the token's `iss`; by default the URL of the first core
  --key FILE             the private key that signs, in PEM or as a JWK; further keys are only listed in --jwks-out
  --issuer ISS           the token's `iss`
  --algorithm ALG        RS256, PS256, ...; by default that of the key
  --jwks-out FILE        also write the public keys, as a JWK Set
  --out FILE             where to keep the token
  --mode MODE            the permissions of that file, in octal; by default 600

options:
  --service NAME         the token's `service`; by default it has none
  --audience AUD         the token's `aud`; by default it has none
  --validity SECONDS     how long each token is valid; by default 3600
  --once                 write one token and exit
  --allow-plain-http     allow http URLs beyond loopback
  --help                 print this help

environment:
  SUPERTOKENS_API_KEY    the core's api key. Unlike --api-key, it does not appear in the list of processes
  RUST_LOG               what to log on stderr, for example debug or warn,tower_m2m=debug (info)";

#[derive(Default)]
struct Flags {
    core: Option<String>,
    api_key: Option<String>,
    jwks_domain: Option<String>,
    keys: Vec<String>,
    issuer: Option<String>,
    algorithm: Option<Algorithm>,
    jwks_out: Option<String>,
    out: String,
    mode: u32,
    claims: Claims,
    is_once: bool,
    allow_plain_http: bool,
}

/// The claims and the validity of the token, for either authority.
#[derive(Default)]
struct Claims {
    service: Option<String>,
    audience: Option<String>,
    validity: Duration,
}

impl Claims {
    fn add_to<A>(self, mut request: TokenRequest<A>) -> TokenRequest<A> {
        if let Some(service) = self.service {
            request = request.service(service);
        }
        if let Some(audience) = self.audience {
            request = request.audience(audience);
        }
        request.validity(self.validity)
    }
}

/// Parses the command line. `None` if it asks for help.
fn flags() -> Result<Option<Flags>, lexopt::Error> {
    use lexopt::prelude::*;
    let claims = Claims { validity: Duration::from_secs(3600), ..Claims::default() };
    let mut flags = Flags { mode: 0o600, claims, ..Flags::default() };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next()? {
        match arg {
            Long("core") => flags.core = Some(parser.value()?.string()?),
            Long("api-key") => flags.api_key = Some(parser.value()?.string()?),
            Long("jwks-domain") => flags.jwks_domain = Some(parser.value()?.string()?),
            Long("key") => flags.keys.push(parser.value()?.string()?),
            Long("issuer") => flags.issuer = Some(parser.value()?.string()?),
            Long("algorithm") => flags.algorithm = Some(parser.value()?.parse_with(algorithm)?),
            Long("jwks-out") => flags.jwks_out = Some(parser.value()?.string()?),
            Long("out") => flags.out = parser.value()?.string()?,
            Long("mode") => {
                flags.mode = parser.value()?.parse_with(|mode| u32::from_str_radix(mode, 8))?;
                if flags.mode & 0o002 != 0 {
                    return Err("--mode lets all users write the file".into());
                }
            }
            Long("service") => flags.claims.service = Some(parser.value()?.string()?),
            Long("audience") => flags.claims.audience = Some(parser.value()?.string()?),
            Long("validity") => {
                flags.claims.validity = Duration::from_secs(parser.value()?.parse()?);
            }
            Long("once") => flags.is_once = true,
            Long("allow-plain-http") => flags.allow_plain_http = true,
            Short('h') | Long("help") => return Ok(None),
            _ => return Err(arg.unexpected()),
        }
    }
    if flags.out.is_empty() {
        return Err("--out is missing".into());
    }
    if flags.api_key.is_none() {
        flags.api_key = secret_variable("SUPERTOKENS_API_KEY")?;
    }
    Ok(Some(flags))
}

fn algorithm(name: &str) -> Result<Algorithm, String> {
    use Algorithm::{ES256, ES384, EdDSA, PS256, PS384, PS512, RS256, RS384, RS512};
    let all = [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA];
    let found = all.into_iter().find(|algorithm| algorithm.to_string() == name);
    found.ok_or_else(|| format!("{name:?} is none of {all:?}"))
}

#[tokio::main]
async fn main() -> ExitCode {
    log_to_stderr(LevelFilter::INFO);
    exit_code("mint", USAGE, run().await)
}

async fn run() -> Result<ExitCode, Stop> {
    let Some(mut flags) = flags().map_err(Stop::command_line)? else {
        return print(USAGE).map(|()| ExitCode::SUCCESS);
    };
    let stop =
        stop_signal().map_err(|err| Stop::Failed(format!("cannot wait for signals: {err}")))?;
    let (out, mode, is_once) = (std::mem::take(&mut flags.out), flags.mode, flags.is_once);
    let token = match (flags.core.take(), std::mem::take(&mut flags.keys)) {
        (Some(core), keys) if keys.is_empty() => mint_at_core(&core, flags).await?,
        (None, keys) if !keys.is_empty() => mint_with_keys(&keys, flags).await?,
        _ => return Err(Stop::Usage("give either --core or --key".to_owned())),
    };

    let mut written = token.header_value();
    write_token(&out, mode, &written)?;
    if is_once {
        return Ok(ExitCode::SUCCESS);
    }
    let (mut stop, mut seconds) = (std::pin::pin!(stop), interval(Duration::from_secs(1)));
    loop {
        tokio::select! {
            () = &mut stop => return Ok(ExitCode::SUCCESS),
            _ = seconds.tick() => {}
        }
        let current = token.header_value();
        if current != written {
            write_token(&out, mode, &current)?;
            written = current;
        }
    }
}

async fn mint_at_core(uri: &str, flags: Flags) -> Result<ServiceToken, Stop> {
    let mut core = SuperTokensCore::new(uri).map_err(|err| Stop::Usage(chain(&err)))?;
    if let Some(api_key) = flags.api_key {
        core = core.api_key(api_key);
    }
    if flags.allow_plain_http {
        core = core.allow_plain_http();
    }
    let first_core = uri.split(';').next().unwrap_or_default();
    let jwks_domain =
        flags.jwks_domain.unwrap_or_else(|| first_core.trim_end_matches('/').to_owned());
    let request = flags.claims.add_to(core.service_token(jwks_domain));
    request.mint().await.map_err(|err| match err {
        MintError::Config(_) | MintError::ApiKey | MintError::Validity => Stop::Usage(chain(&err)),
        _ => Stop::Failed(chain(&err)),
    })
}

async fn mint_with_keys(paths: &[String], flags: Flags) -> Result<ServiceToken, Stop> {
    let issuer = flags.issuer.ok_or_else(|| Stop::Usage("--issuer is missing".to_owned()))?;
    let mut keys = Vec::new();
    for path in paths {
        let key = SigningKey::from_file(path)?;
        keys.push(match flags.algorithm {
            Some(algorithm) if keys.is_empty() => key.for_algorithm(algorithm)?,
            _ => key,
        });
    }
    let issuer = LocalIssuer::new(issuer, keys).map_err(|err| Stop::Usage(chain(&err)))?;
    if let Some(path) = flags.jwks_out {
        replace(&path, 0o644, issuer.jwks().as_bytes())?;
    }
    Ok(flags.claims.add_to(issuer.service_token()).mint().await?)
}

/// Atomically replaces the file with one that holds the token, and prints a line.
fn write_token(path: &str, mode: u32, header_value: &HeaderValue) -> Result<(), Stop> {
    let token = header_value.as_bytes().strip_prefix(b"Bearer ").unwrap_or_default();
    replace(path, mode, token)?;
    print(format_args!("wrote a token to {path}"))
}

/// Atomically replaces a file: a reader sees either the old or the new content.
fn replace(path: &str, mode: u32, content: &[u8]) -> Result<(), Stop> {
    let write = || {
        let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
        // With mode 0600 until it is complete.
        let mut file = NamedTempFile::new_in(folder.unwrap_or(Path::new(".")))?;
        file.write_all(content)?;
        #[cfg(unix)]
        file.as_file().set_permissions(PermissionsExt::from_mode(mode))?;
        #[cfg(not(unix))]
        let _ = mode;
        file.as_file().sync_all()?;
        file.persist(path).map_err(|err| err.error)?;
        std::io::Result::Ok(())
    };
    write().map_err(|err| Stop::Failed(format!("cannot write {path}: {err}")))
}
