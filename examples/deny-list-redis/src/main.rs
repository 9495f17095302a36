//! Runs the service; the docs of the library show how.

use std::env;
use std::error::Error;
use std::time::Duration;

use deny_list_redis::{Feed, app};
use tokio::net::TcpListener;
use tower_m2m::{RemoteJwks, Verifier};

const USAGE: &str = "\
usage: deny-list-redis

Serves routes whose deny list is in Redis. `POST /charge` needs a token that no entry denies. `GET /health` needs no
token, and says how old the list is. The docs in src/lib.rs have the commands that change the list.

environment (all variables are required):
  REDIS_URL  for example redis://127.0.0.1
  JWKS_URL   the JWKS endpoint of the authority
  AUDIENCE   the `aud` of the tokens to accept
  LISTEN     IP address and port to listen on, for example 127.0.0.1:4002";

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
    if env::args().len() > 1 {
        println!("{USAGE}");
        return Ok(());
    }
    tracing_subscriber::fmt().init();
    let setting = |name: &str| env::var(name).map_err(|err| format!("{name}: {err}"));
    let feed = Feed::start(&setting("REDIS_URL")?, Duration::from_secs(10)).await?;
    let jwks = RemoteJwks::new(setting("JWKS_URL")?)?;
    let verifier = Verifier::new(jwks).audience(setting("AUDIENCE")?);
    let listener = TcpListener::bind(setting("LISTEN")?).await?;
    println!("listening on http://{}", listener.local_addr()?);
    axum::serve(listener, app(verifier, &feed)).await?;
    Ok(())
}
