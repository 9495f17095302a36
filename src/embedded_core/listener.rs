//! What a listener beyond loopback needs and `axum::serve` lacks: a deadline on each connection and a bound on their
//! number.

use std::{
    future::Future as _,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::serve::Listener;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, sleep},
};

/// Accepts while fewer than [`MOST_CONNECTIONS`] are open; the rest wait in the operating system's queue.
#[derive(Debug)]
pub(super) struct BoundedListener {
    inner: TcpListener,
    places: Arc<Semaphore>,
}

impl BoundedListener {
    pub(super) fn new(inner: TcpListener) -> Self {
        Self { inner, places: Arc::new(Semaphore::new(MOST_CONNECTIONS)) }
    }
}

impl Listener for BoundedListener {
    type Io = Connection<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        // The semaphore is never closed, so there always is a place in the end.
        let place = self.places.clone().acquire_owned().await.ok();
        // Axum's own, which waits out a lack of file descriptors.
        let (stream, address) = Listener::accept(&mut self.inner).await;
        // Without it an answer may wait for the acknowledgement of the one before; that it is refused hurts nobody.
        let _ = stream.set_nodelay(true);
        (Connection::new(stream, place), address)
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }
}

/// A connection that ends when nothing was answered on it for [`ANSWER_DEADLINE`].
///
/// Only what is written extends the deadline. One that every received byte extended would let a caller hold a connection
/// with a header sent byte by byte.
#[derive(Debug)]
pub(super) struct Connection<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    _place: Option<OwnedSemaphorePermit>,
}

impl<S> Connection<S> {
    fn new(stream: S, place: Option<OwnedSemaphorePermit>) -> Self {
        Self { stream, deadline: Box::pin(sleep(ANSWER_DEADLINE)), _place: place }
    }

    fn poll_deadline(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        match self.deadline.as_mut().poll(cx) {
            Poll::Ready(()) => Err(io::ErrorKind::TimedOut.into()),
            Poll::Pending => Ok(()),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Connection<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.poll_deadline(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_deadline(cx)?;
        let written = ready!(Pin::new(&mut self.stream).poll_write(cx, bytes))?;
        self.deadline.as_mut().reset(Instant::now() + ANSWER_DEADLINE);
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
const MOST_CONNECTIONS: usize = 1024;

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};

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
        let mut listener = BoundedListener { inner, places: Arc::new(Semaphore::new(1)) };
        let address = listener.local_addr().unwrap();
        let _callers = [TcpStream::connect(address).await.unwrap(), TcpStream::connect(address).await.unwrap()];
        let (first, _) = Listener::accept(&mut listener).await;
        assert_eq!(listener.places.available_permits(), 0);
        drop(first);
        let (_second, _) = Listener::accept(&mut listener).await;
        assert_eq!(listener.places.available_permits(), 0);
    }
}
