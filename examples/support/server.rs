//! Listening and stopping, for the examples that are servers.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::net::{TcpListener, lookup_host};

use crate::support::{Stop, print};
use stop_signal::stop_signal;

#[path = "stop_signal.rs"]
mod stop_signal;

/// Resolves the value of `--listen`, such as `127.0.0.1:3567`, `[::1]:0` or `localhost:4002`.
pub(crate) async fn resolve(listen: &str) -> Result<Vec<SocketAddr>, Stop> {
    match lookup_host(listen).await {
        Ok(addresses) => Ok(addresses.collect()),
        Err(err) if err.kind() == ErrorKind::InvalidInput => Err(Stop::Usage(format!(
            "--listen {listen:?} is not a host name or IP address and a port"
        ))),
        Err(err) => Err(Stop::Failed(format!("cannot resolve {listen:?}: {err}"))),
    }
}

/// Listens on the first of the addresses that is free, and prints it.
///
/// The returned future completes on SIGTERM or Ctrl-C. Its handlers are installed before the line
/// is printed, so a signal that follows the line stops the server gracefully.
pub(crate) async fn listen(
    addresses: &[SocketAddr],
) -> Result<(TcpListener, impl Future<Output = ()> + Send + 'static), Stop> {
    let listener = TcpListener::bind(addresses).await.map_err(|err| {
        let addresses: Vec<_> = addresses.iter().map(SocketAddr::to_string).collect();
        Stop::Failed(format!("cannot listen on {}: {err}", addresses.join(" or ")))
    })?;
    let stop =
        stop_signal().map_err(|err| Stop::Failed(format!("cannot wait for signals: {err}")))?;
    print(format_args!("listening on http://{}", listener.local_addr()?))?;
    Ok((listener, stop))
}
