//! A connection with a deadline for each response.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::connection_slots::ConnectionSlot;

/// Longer than the deadline of a body, so that a slow body is answered before its connection is
/// closed.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(20);

/// A connection that fails once nothing was written to it for [`RESPONSE_DEADLINE`], or once its
/// slot is evicted.
///
/// Only writes extend the deadline. If received bytes did, a caller could hold a connection by
/// sending a header byte by byte.
#[derive(Debug)]
pub(crate) struct Connection<S> {
    stream: S,
    deadline: Pin<Box<Sleep>>,
    slot: Option<ConnectionSlot>,
}

impl<S> Connection<S> {
    pub(super) fn new(stream: S, slot: Option<ConnectionSlot>) -> Self {
        Self { stream, deadline: Box::pin(sleep(RESPONSE_DEADLINE)), slot }
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
        self.deadline.as_mut().reset(Instant::now() + RESPONSE_DEADLINE);
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
        assert_eq!(start.elapsed(), RESPONSE_DEADLINE);
    }

    #[tokio::test(start_paused = true)]
    async fn each_response_extends_the_deadline() {
        let (near, _far) = duplex(64);
        let mut connection = Connection::new(near, None);
        for _ in 0..5 {
            tokio::time::advance(RESPONSE_DEADLINE - Duration::from_secs(1)).await;
            connection.write_all(b"x").await.unwrap();
        }
        tokio::time::advance(RESPONSE_DEADLINE).await;
        assert_eq!(connection.write_all(b"x").await.unwrap_err().kind(), io::ErrorKind::TimedOut);
    }
}
