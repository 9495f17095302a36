//! A server that does what a test tells it to, byte by byte, and remembers who came.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{interval, timeout};
use tokio_rustls::TlsAcceptor;

/// What the server does on a connection once it has read the head of a request.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Sends these bytes and closes.
    Send(Vec<u8>),
    /// Sends these bytes and then nothing, for as long as the client stays.
    Stall(Vec<u8>),
    /// Sends these bytes and then one byte every 10 ms, for as long as the client stays.
    Drip(Vec<u8>),
    /// Sends these bytes and then chunks without end, for as long as the client takes them.
    Flood(Vec<u8>),
    /// Resets the connection.
    Reset,
}

impl Script {
    /// A whole answer with this status, further header lines and body.
    pub(crate) fn answer(status: u16, headers: &[&str], body: impl AsRef<[u8]>) -> Self {
        let body = body.as_ref();
        let length = if status == 204 || status == 304 {
            String::new()
        } else {
            format!("content-length: {}\r\n", body.len())
        };
        let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        let head =
            format!("HTTP/1.1 {status} scripted\r\n{length}{lines}connection: close\r\n\r\n");
        Self::Send([head.as_bytes(), body].concat())
    }

    /// 200 with this body.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::answer(200, &["content-type: application/json"], body)
    }
}

/// What the server has seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    /// Connections to a TLS server that spoke something else.
    pub(crate) plain: usize,
    /// The head of each request.
    pub(crate) heads: Vec<String>,
    /// How many bytes of bodies without end were taken.
    pub(crate) flooded: usize,
    /// Connections that ended, by whoever.
    pub(crate) ended: usize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    play: Arc<Mutex<Play>>,
    seen: watch::Sender<Seen>,
    task: JoinHandle<()>,
    /// Bound, not listening: after the server has stopped, no other process can bind its port, and
    /// connections are refused.
    _place: TcpSocket,
}

struct Play {
    script: Script,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// A server of plain http that plays this.
    pub(crate) fn start(script: Script) -> Self {
        Self::serve(Play { script, tls: None })
    }

    /// A server of https that plays this.
    pub(crate) fn start_tls(script: Script, tls: TlsAcceptor) -> Self {
        Self::serve(Play { script, tls: Some(tls) })
    }

    fn serve(play: Play) -> Self {
        let bind = |address| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket
        };
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = socket.local_addr().unwrap();
        let place = bind(address);
        let listener = socket.listen(1024).unwrap();
        let play = Arc::new(Mutex::new(play));
        let seen = watch::Sender::new(Seen::default());
        let task = tokio::spawn(accept(listener, Arc::clone(&play), seen.clone()));
        Self { address, play, seen, task, _place: place }
    }

    /// The address of its key set.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// Plays this from the next connection on.
    pub(crate) fn play(&self, script: Script) {
        self.play.lock().unwrap().script = script;
    }

    /// Presents another certificate from the next connection on.
    pub(crate) fn present(&self, tls: TlsAcceptor) {
        self.play.lock().unwrap().tls = Some(tls);
    }

    /// Stops listening: whoever connects is refused.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let stopped = (&mut self.task).await;
        assert!(stopped.unwrap_err().is_cancelled());
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until the server has seen this, 10 s at most.
    pub(crate) async fn has_seen(&self, condition: impl Fn(&Seen) -> bool) -> Seen {
        let mut receiver = self.seen.subscribe();
        let seen = timeout(Duration::from_secs(10), receiver.wait_for(condition)).await;
        seen.unwrap_or_else(|_| panic!("only this was seen: {:?}", self.seen())).unwrap().clone()
    }
}

async fn accept(listener: TcpListener, play: Arc<Mutex<Play>>, seen: watch::Sender<Seen>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (script, tls) = {
            let play = play.lock().unwrap();
            (play.script.clone(), play.tls.clone())
        };
        let seen = seen.clone();
        seen.send_modify(|seen| seen.connections += 1);
        tokio::spawn(async move {
            // An error here is a client that went away, which is what some of the tests want.
            let _ = connection(stream, script, tls, &seen).await;
            seen.send_modify(|seen| seen.ended += 1);
        });
    }
}

async fn connection(
    stream: TcpStream,
    script: Script,
    tls: Option<TlsAcceptor>,
    seen: &watch::Sender<Seen>,
) -> io::Result<()> {
    if matches!(script, Script::Reset) {
        stream.set_zero_linger()?;
    }
    match tls {
        None => exchange(stream, script, seen).await,
        Some(tls) => {
            let mut first = [0];
            if stream.peek(&mut first).await? == 0 || first[0] != TLS_HANDSHAKE {
                seen.send_modify(|seen| seen.plain += 1);
                return Ok(());
            }
            exchange(tls.accept(stream).await?, script, seen).await
        }
    }
}

async fn exchange<S>(mut stream: S, script: Script, seen: &watch::Sender<Seen>) -> io::Result<()>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    let mut head = Vec::new();
    // A client that speaks TLS to a server of plain http is answered as well: it must not take that
    // for an answer.
    while !head.ends_with(b"\r\n\r\n") && head.first() != Some(&TLS_HANDSHAKE) {
        head.push(stream.read_u8().await?);
    }
    seen.send_modify(|seen| seen.heads.push(String::from_utf8_lossy(&head).to_ascii_lowercase()));
    match script {
        Script::Send(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Script::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            stream.read_to_end(&mut head).await.map(drop)
        }
        Script::Drip(bytes) => {
            stream.write_all(&bytes).await?;
            let mut ticks = interval(Duration::from_millis(10));
            loop {
                ticks.tick().await;
                stream.write_all(b"x").await?;
                stream.flush().await?;
            }
        }
        Script::Flood(bytes) => {
            stream.write_all(&bytes).await?;
            let chunk =
                [format!("{CHUNK:x}\r\n").into_bytes(), vec![b' '; CHUNK], b"\r\n".to_vec()]
                    .concat();
            loop {
                stream.write_all(&chunk).await?;
                seen.send_modify(|seen| seen.flooded += CHUNK);
            }
        }
        Script::Reset => Ok(()),
    }
}

const CHUNK: usize = 1024;
/// The first byte of a TLS connection (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
