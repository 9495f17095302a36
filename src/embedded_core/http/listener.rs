//! What a listener beyond loopback needs and `axum::serve` lacks: a deadline on each connection and
//! a bound on their number, which idle ones cannot use up.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::serve::Listener;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, Sleep, sleep};

use super::connection_slots::{ConnectionSlot, ConnectionSlots};

/// Accepts while fewer than [`MOST_CONNECTIONS`] are open. Beyond that, or where the system has no
/// file descriptors left, the connection whose last answer is the oldest is closed for each new
/// one: were new ones to wait instead, whoever opens connections and says nothing would keep
/// everybody out.
#[derive(Debug)]
pub(crate) struct BoundedListener {
    inner: TcpListener,
    slots: ConnectionSlots,
}

impl BoundedListener {
    pub(crate) fn new(inner: TcpListener) -> Self {
        Self::with_slots(inner, MOST_CONNECTIONS)
    }

    fn with_slots(inner: TcpListener, count: usize) -> Self {
        Self { inner, slots: ConnectionSlots::new(count) }
    }
}

impl Listener for BoundedListener {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        loop {
            match self.inner.accept().await {
                Ok((stream, address)) => {
                    // Without it an answer may wait for the acknowledgement of the one before; that
                    // it is refused hurts nobody.
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

/// Whether accepting failed for a caller's reason, and the next one may fare better.
fn is_of_one_connection(err: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(err.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

/// A connection that ends when nothing was answered on it for [`ANSWER_DEADLINE`], or when its
/// slot is wanted.
///
/// Only what is written extends the deadline. One that every received byte extended would let a
/// caller hold a connection with a header sent byte by byte.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    slot: Option<ConnectionSlot>,
}

impl<S> Connection<S> {
    fn new(stream: S, slot: Option<ConnectionSlot>) -> Self {
        Self { stream, deadline: Box::pin(sleep(ANSWER_DEADLINE)), slot }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        if let Some(slot) = &mut self.slot
            && slot.poll_evicted(cx).is_ready()
        {
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
        self.poll_deadline(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.poll_deadline(cx)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.deadline.as_mut().reset(Instant::now() + ANSWER_DEADLINE);
        if let Some(slot) = &self.slot {
            slot.record_response();
        }
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Longer than a body may take, so that a slow body is answered before its connection goes.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Enough for every caller that a core on one machine has, and few enough for the usual limit of
/// file descriptors.
const MOST_CONNECTIONS: usize = 1024;
const AFTER_AN_ERROR: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn received_bytes_do_not_extend_the_deadline() {
        let (near, mut far) = duplex(64);
        let mut connection = Connection::new(near, None);
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
        let ended = tokio::select! {
            kind = read => kind,
            () = drip => unreachable!("drips for ever"),
        };
        assert_eq!(ended, io::ErrorKind::TimedOut);
        assert_eq!(start.elapsed(), ANSWER_DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn each_answer_extends_the_deadline() {
        let (near, _far) = duplex(64);
        let mut connection = Connection::new(near, None);
        for _ in 0..5 {
            tokio::time::advance(ANSWER_DEADLINE - Duration::from_secs(1)).await;
            connection.write_all(b"x").await.unwrap();
        }
        tokio::time::advance(ANSWER_DEADLINE).await;
        assert_eq!(connection.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }

    #[tokio::test]
    async fn a_closed_connection_frees_its_place() {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut listener = BoundedListener::with_slots(inner, 1);
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
    async fn neither_idle_connections_nor_slow_ones_keep_a_caller_out() {
        let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let listener = BoundedListener::with_slots(inner, 16);
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
            // One that is answered again and again is never the one whose last answer is the
            // oldest.
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
