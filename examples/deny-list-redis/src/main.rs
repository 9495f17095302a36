//! Runs the service; the docs of the library show how.

use std::env;
use std::error::Error;
use std::time::Duration;

use deny_list_redis::{Feed, app};
use tokio::net::TcpListener;
use tower_m2m::{RemoteJwks, Verifier};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error + Send + Sync>> {
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
