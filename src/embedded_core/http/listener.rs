//! A listener with two limits that `axum::serve` lacks: a deadline on each connection, and a bound
//! on their number that idle connections cannot use up.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::serve::Listener;
use tokio::net::{TcpListener, TcpStream};
use tokio::time::sleep;

use super::connection::Connection;
use super::connection_slots::ConnectionSlots;

/// Enough for the callers of a core on one machine, and below the usual limit of file descriptors.
const MAX_CONNECTIONS: usize = 1024;
const AFTER_AN_ERROR: Duration = Duration::from_millis(10);

/// Keeps at most [`MAX_CONNECTIONS`] open. At the limit, or if the system has no file descriptors
/// left, each new connection closes the one whose last response is the oldest. If new connections
/// waited instead, a caller that opens connections and sends nothing would lock out all others.
#[derive(Debug)]
pub(crate) struct BoundedListener {
    inner: TcpListener,
    slots: ConnectionSlots,
}

impl BoundedListener {
    pub(crate) fn new(inner: TcpListener) -> Self {
        Self { inner, slots: ConnectionSlots::new(MAX_CONNECTIONS) }
    }
}

impl Listener for BoundedListener {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, address)) => {
                    // Without it a response may wait for the acknowledgement of the one before. A
                    // refusal to set it only costs time.
                    let _ = stream.set_nodelay(true);
                    return (Connection::new(stream, self.slots.acquire().await), address);
                }
                Err(err) if is_of_one_connection(&err) => {}
                Err(err) => {
                    tracing::debug!(reason = %err, "a connection cannot be accepted");
                    self.slots.evict_oldest();
                    sleep(AFTER_AN_ERROR).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// Whether the error concerns one connection, so that the next one can be accepted at once.
fn is_of_one_connection(err: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(err.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn closed_connection_frees_its_slot() {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut listener = BoundedListener { inner, slots: ConnectionSlots::new(1) };
        let address = listener.local_addr().unwrap();
        let _callers = [
            TcpStream::connect(address).await.unwrap(),
            TcpStream::connect(address).await.unwrap(),
        ];
        let (first, _) = Listener::accept(&mut listener).await;
        assert_eq!(listener.slots.available(), 0);
        drop(first);
        let (_second, _) = Listener::accept(&mut listener).await;
        assert_eq!(listener.slots.available(), 0);
    }

    #[tokio::test]
    async fn idle_and_slow_connections_lock_out_no_caller() {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = BoundedListener { inner, slots: ConnectionSlots::new(16) };
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(|| async { "hello" });
        let server = tokio::spawn(async move { axum::serve(listener, router).await });

        let ask = async |caller: &mut TcpStream| {
            caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut answer = Vec::new();
            while !answer.ends_with(b"hello") {
                assert_ne!(caller.read_buf(&mut answer).await.unwrap(), 0, "closed");
            }
        };
        let mut regular = TcpStream::connect(address).await.unwrap();
        ask(&mut regular).await;
        let mut others = Vec::new();
        for at in 0..160 {
            let mut other = TcpStream::connect(address).await.unwrap();
            if at % 2 == 0 {
                other.write_all(b"GET / HTTP/1.1\r\nslow: ").await.unwrap();
            }
            others.push(other);
            // A connection with frequent responses never has the oldest last response.
            ask(&mut regular).await;
            let mut new = TcpStream::connect(address).await.unwrap();
            ask(&mut new).await;
        }
        let mut first = others.swap_remove(1);
        let closed = first.read_u8().await.unwrap_err().kind();
        assert!(
            matches!(closed, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset),
            "{closed:?}"
        );
        server.abort();
    }
}
