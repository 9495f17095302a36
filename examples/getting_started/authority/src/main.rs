//! Signs the tokens of the services, and publishes the keys that verify them.

use std::env;
use std::error::Error;

use tokio::net::TcpListener;
use tower_m2m::EmbeddedCore;

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let core = EmbeddedCore::builder().api_key(env::var("API_KEY")?).build().await?;
    let listen = env::var("LISTEN").unwrap_or("127.0.0.1:3567".into());
    let listener = TcpListener::bind(listen).await?;
    println!("authority listens on http://{}", listener.local_addr()?);
    let stopped = async { drop(tokio::signal::ctrl_c().await) };
    Ok(core.serve(listener, stopped).await?)
}
