//! A listener with two limits that `axum::serve` lacks: a deadline on each connection, and a bound
//! on their number.
//!
//! A middleware cannot set the deadline, because it is called only once a request's head is
//! complete. A slow caller may never complete it.

use std::io;
use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};

use super::connection_slots::{ConnectionSlot, ConnectionSlots};

/// Maximum number of open connections, enough for the callers of a core on one machine.
const MAX_CONNECTIONS: usize = 1024;
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(10);
/// Longer than the deadline of a body, so that a slow body gets its 408 before the connection is
/// closed.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(20);

/// A listener that bounds its connections to [`MAX_CONNECTIONS`]. At the limit, or if the system
/// has no file descriptors left, it evicts the connection that has gone longest without a response.
/// If new connections waited instead, a caller that opens connections and sends nothing would lock
/// out all others.
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
                    // Nagle's algorithm delays a response until the one before is acknowledged. If
                    // the option cannot be set, responses are only slower.
                    let _ = stream.set_nodelay(true);
                    return (Connection::new(stream, self.slots.acquire().await), address);
                }
                // These errors concern one connection: the next one can be accepted at once.
                Err(err)
                    if matches!(
                        err.kind(),
                        ConnectionAborted | ConnectionRefused | ConnectionReset
                    ) => {}
                Err(err) => {
                    tracing::debug!(reason = %err, "connection not accepted");
                    self.slots.evict_oldest();
                    sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that fails with an I/O error if nothing was written to it for
/// [`RESPONSE_DEADLINE`], or if its slot is evicted.
///
/// Only writes extend the deadline. If received bytes did, a caller could hold a connection open by
/// sending a header byte by byte.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    slot: ConnectionSlot,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, slot: ConnectionSlot) -> Self {
        Self { stream, deadline: Box::pin(sleep(RESPONSE_DEADLINE)), slot }
    }

    /// Fails if the slot is evicted or the deadline has passed. Otherwise registers the waker for
    /// both.
    fn check_open(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if self.slot.poll_evicted(cx).is_ready() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check_open(cx)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.deadline.as_mut().reset(Instant::now() + RESPONSE_DEADLINE);
        self.slot.record_response();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.check_open(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test]
    async fn closed_connection_frees_its_slot() {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut listener = BoundedListener { inner, slots: ConnectionSlots::new(1) };
        let _caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (connection, _) = Listener::accept(&mut listener).await;
        assert_eq!(listener.slots.available(), 0);
        drop(connection);
        assert_eq!(listener.slots.available(), 1);
    }

    #[tokio::test]
    async fn idle_and_slow_connections_do_not_lock_out_callers() {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = BoundedListener { inner, slots: ConnectionSlots::new(16) };
        let address = listener.local_addr().unwrap();
        let router = axum::Router::new().fallback(|| async { "hello" });
        let server = tokio::spawn(async move { axum::serve(listener, router).await });

        let get = async |caller: &mut TcpStream| {
            caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
            let mut response = Vec::new();
            while !response.ends_with(b"hello") {
                assert_ne!(caller.read_buf(&mut response).await.unwrap(), 0, "connection closed");
            }
        };
        let mut regular = TcpStream::connect(address).await.unwrap();
        get(&mut regular).await;
        let mut others = Vec::new();
        for at in 0..160 {
            let mut other = TcpStream::connect(address).await.unwrap();
            if at % 2 == 0 {
                other.write_all(b"GET / HTTP/1.1\r\nslow: ").await.unwrap();
            }
            others.push(other);
            // A connection with frequent responses is never the next to be evicted.
            get(&mut regular).await;
            let mut new = TcpStream::connect(address).await.unwrap();
            get(&mut new).await;
        }
        let mut first = others.swap_remove(1);
        let closed = first.read_u8().await.unwrap_err().kind();
        assert!(
            matches!(closed, io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset),
            "{closed:?}"
        );
        server.abort();
    }

    #[tokio::test(start_paused = true)]
    async fn received_bytes_do_not_extend_the_deadline() {
        let (near, mut far) = duplex(64);
        let mut connection = Connection::new(near, ConnectionSlots::new(1).acquire().await);
        let start = Instant::now();
        let drip = async {
            loop {
                far.write_all(b"x").await.unwrap();
                sleep(Duration::from_secs(1)).await;
            }
        };
        let read = async {
            loop {
                if let Err(err) = connection.read_u8().await {
                    return err.kind();
                }
            }
        };
        let failure = tokio::select! {
            kind = read => kind,
            () = drip => unreachable!("the caller never stops"),
        };
        assert_eq!(failure, io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), RESPONSE_DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn each_response_extends_the_deadline() {
        let (near, _far) = duplex(64);
        let mut connection = Connection::new(near, ConnectionSlots::new(1).acquire().await);
        for _ in 0..5 {
            tokio::time::advance(RESPONSE_DEADLINE - Duration::from_secs(1)).await;
            connection.write_all(b"x").await.unwrap();
        }
        tokio::time::advance(RESPONSE_DEADLINE).await;
        assert_eq!(connection.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
