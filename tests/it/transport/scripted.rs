//! A server that follows a test's script, byte by byte, and records connections and requests.

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{advance, timeout};
use tokio_rustls::TlsAcceptor;

use crate::support::TIMEOUT;

/// A timeout for requests to [`Script::Hang`] and [`Script::Drip`]. Two of them are shorter than
/// the cooldown of the fetch limit.
pub(crate) const FETCH_TIMEOUT: Duration = Duration::from_secs(4);

/// What the server does after it has read a request head.
#[derive(Clone, Debug)]
pub(crate) enum Script {
    /// Sends these bytes and closes the connection.
    Send(Vec<u8>),
    /// Sends these bytes and waits until the client closes the connection.
    Stall(Vec<u8>),
    /// Sends these bytes, then advances the paused clock by [`FETCH_TIMEOUT`], and waits until the
    /// client closes the connection.
    Hang(Vec<u8>),
    /// Sends these bytes, then one byte every 100 ms of the paused clock, which it advances, until
    /// the client closes the connection.
    Drip(Vec<u8>),
    /// Sends these bytes, then chunks until the client closes the connection.
    Flood(Vec<u8>),
    /// Resets the connection.
    Reset,
    /// Plays the script that this function selects by the request head, in lower case.
    Select(fn(&str) -> Self),
    /// Plays the script of the request's path, in lower case, or a 404 for any other path.
    Routes(Vec<(&'static str, Self)>),
    /// Advances the paused clock, then plays the script.
    After(Duration, Box<Self>),
}

impl Script {
    /// A complete response with this status, header lines and body.
    pub(crate) fn response(status: u16, headers: &[&str], body: impl AsRef<[u8]>) -> Self {
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

    /// A 200 response with this body.
    pub(crate) fn ok(body: impl AsRef<[u8]>) -> Self {
        Self::response(200, &["content-type: application/json"], body)
    }
}

/// What the server has seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connections: usize,
    /// Connections to a TLS server that did not begin with a TLS handshake.
    pub(crate) plain: usize,
    /// The head of each request, in lower case.
    pub(crate) heads: Vec<String>,
    /// The body bytes that [`Script::Flood`] has written.
    pub(crate) flooded: usize,
    /// Connections that were closed by either side.
    pub(crate) closed: usize,
}

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    config: Arc<Mutex<Config>>,
    seen: watch::Sender<Seen>,
    task: JoinHandle<()>,
    /// Bound but not listening: it keeps other processes off the port after the server has stopped.
    _reserved: TcpSocket,
}

struct Config {
    script: Script,
    tls: Option<TlsAcceptor>,
}

impl Server {
    /// Starts a plain HTTP server that plays this script.
    pub(crate) fn start(script: Script) -> Self {
        Self::serve(Config { script, tls: None })
    }

    /// Starts an HTTPS server that plays this script.
    pub(crate) fn start_tls(script: Script, tls: TlsAcceptor) -> Self {
        Self::serve(Config { script, tls: Some(tls) })
    }

    fn serve(config: Config) -> Self {
        let bind = |address| {
            let socket = TcpSocket::new_v4().unwrap();
            socket.set_reuseaddr(true).unwrap();
            socket.bind(address).unwrap();
            socket
        };
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0)));
        let address = socket.local_addr().unwrap();
        let reserved = bind(address);
        let listener = socket.listen(1024).unwrap();
        let config = Arc::new(Mutex::new(config));
        let seen = watch::Sender::new(Seen::default());
        let task = tokio::spawn(accept(listener, Arc::clone(&config), seen.clone()));
        Self { address, config, seen, task, _reserved: reserved }
    }

    /// The URL of its key set over plain HTTP.
    pub(crate) fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// Plays this script from the next connection on.
    pub(crate) fn play(&self, script: Script) {
        self.config.lock().unwrap().script = script;
    }

    /// Presents this acceptor's certificate from the next connection on.
    pub(crate) fn present(&self, tls: TlsAcceptor) {
        self.config.lock().unwrap().tls = Some(tls);
    }

    /// Stops listening, so that connections are refused.
    pub(crate) async fn stop(&mut self) {
        self.task.abort();
        let stopped = (&mut self.task).await;
        assert!(stopped.unwrap_err().is_cancelled());
    }

    pub(crate) fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// The number of connections so far, including those that the server had yet to accept. Its
    /// script must close connections.
    pub(crate) async fn count_connections(&self) -> usize {
        // Connections are accepted in order, so the server sees the others before it closes this.
        let mut own = TcpStream::connect(self.address).await.unwrap();
        own.write_all(b"GET /own HTTP/1.1\r\n\r\n").await.unwrap();
        own.read_to_end(&mut Vec::new()).await.unwrap();
        let seen = self.seen();
        seen.connections - seen.heads.iter().filter(|head| head.starts_with("get /own ")).count()
    }

    /// Waits until the condition holds.
    pub(crate) async fn wait_until(&self, condition: impl Fn(&Seen) -> bool) -> Seen {
        let mut receiver = self.seen.subscribe();
        let seen = timeout(TIMEOUT, receiver.wait_for(condition)).await;
        seen.unwrap_or_else(|_| panic!("condition not met: {:?}", self.seen())).unwrap().clone()
    }
}

async fn accept(listener: TcpListener, config: Arc<Mutex<Config>>, seen: watch::Sender<Seen>) {
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let (script, tls) = {
            let config = config.lock().unwrap();
            (config.script.clone(), config.tls.clone())
        };
        let seen = seen.clone();
        seen.send_modify(|seen| seen.connections += 1);
        tokio::spawn(async move {
            // An error means that the client closed the connection, which some tests expect.
            let _ = connection(stream, script, tls, &seen).await;
            seen.send_modify(|seen| seen.closed += 1);
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
    // A TLS client of a plain HTTP server gets the scripted bytes too and must not accept them as a
    // response.
    while !head.ends_with(b"\r\n\r\n") && head.first() != Some(&TLS_HANDSHAKE) {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8_lossy(&head).to_ascii_lowercase();
    // A socket that is closed before the body is read resets the connection.
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok());
    stream.read_exact(&mut vec![0; length.unwrap_or(0)]).await?;
    seen.send_modify(|seen| seen.heads.push(head.clone()));
    let script = match script {
        Script::Select(select) => select(&head),
        Script::Routes(routes) => {
            let path = head.split(' ').nth(1);
            let script = routes.into_iter().find(|(of, _)| path == Some(of));
            script.map_or_else(|| Script::response(404, &[], ""), |(_, script)| script)
        }
        script => script,
    };
    let script = match script {
        Script::After(delay, script) => {
            advance(delay).await;
            *script
        }
        script => script,
    };
    match script {
        Script::Send(bytes) => {
            stream.write_all(&bytes).await?;
            stream.shutdown().await
        }
        Script::Stall(bytes) => {
            stream.write_all(&bytes).await?;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
        Script::Hang(bytes) => {
            stream.write_all(&bytes).await?;
            advance(FETCH_TIMEOUT).await;
            stream.read_to_end(&mut Vec::new()).await.map(drop)
        }
        Script::Drip(bytes) => {
            stream.write_all(&bytes).await?;
            loop {
                advance(Duration::from_millis(100)).await;
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
        Script::Reset | Script::Select(_) | Script::Routes(_) | Script::After(..) => Ok(()),
    }
}

const CHUNK: usize = 1024;
/// The first byte of a TLS connection (RFC 8446 §5.1).
const TLS_HANDSHAKE: u8 = 22;
