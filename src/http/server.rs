//! Connections: how many, for how long, and how they end.
//!
//! `warp::serve` installs no timer, so a client that never ends its request head would hold a connection for ever. So only the
//! filters are warp's, as a service; the connections are hyper's own, HTTP/1.1 only, with these bounds:
//!
//! * at most `connections` at a time, and `connections_per_address` for each address that isn't loopback; one more is told 503 and closed
//! * a request head is there `head_timeout` after its first byte; a connection without a request is closed after `idle_timeout`
//! * a client that takes nothing of its answer for `write_timeout` is cut off

use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, SocketAddr},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::GracefulShutdown,
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    time::Sleep,
};
use warp::{
    Filter,
    hyper::{
        server::conn::http1,
        service::{Service, service_fn},
    },
};

use super::{Limits, State, routes};

/// The address can't be listened at.
#[derive(Debug, thiserror::Error)]
#[error("can't listen at {listen}")]
pub struct BindError {
    /// Where.
    pub listen: SocketAddr,
    /// Why not.
    #[source]
    pub cause: io::Error,
}

impl BindError {
    /// Whether somebody else listens there.
    pub fn is_in_use(&self) -> bool {
        self.cause.kind() == io::ErrorKind::AddrInUse
    }
}

/// Headers of one request.
const HEADERS_MAX: usize = 100;

/// What a client beyond the limit is told; the connection is closed behind it.
const SHED: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\nconnection: close\r\n\
content-type: application/problem+json\r\ncontent-length: 112\r\n\r\n\
{\"type\":\"urn:tidemark:connections\",\"title\":\"Too many connections\",\"status\":503,\"detail\":\"try again in a second\"}";

/// How long to wait when no connection can be accepted, for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Listens at once; serves while the future is polled, until `shutdown`, and then until the requests in progress are answered
/// or `shutdown_wait` is over.
pub fn serve(
    listen: SocketAddr,
    state: Arc<State>,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> Result<(SocketAddr, impl Future<Output = io::Result<()>> + Send + 'static), BindError> {
    let bound = std::net::TcpListener::bind(listen).and_then(|listener| {
        listener.set_nonblocking(true)?;
        Ok((listener.local_addr()?, listener))
    });
    let (address, listener) = bound.map_err(|cause| BindError { listen, cause })?;
    Ok((address, async move { accept(TcpListener::from_std(listener)?, state, shutdown).await }))
}

async fn accept(listener: TcpListener, state: Arc<State>, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let limits = state.limits.clone();
    let routes = routes(Arc::clone(&state));
    let doorkeeper = Arc::new(Doorkeeper::new(limits.connections, limits.connections_per_address));
    let graceful = GracefulShutdown::new();
    let mut shutdown = pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = &mut shutdown => break,
        };
        match accepted {
            Ok((stream, address)) => match doorkeeper.admit(address.ip()) {
                Some(admitted) => connect(stream, routes.clone(), &limits, &graceful, admitted),
                None => shed(&stream),
            },
            Err(error) if is_of_the_client(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "no connection can be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
    drop(listener);
    state.ending.send_replace(true);
    if tokio::time::timeout(limits.shutdown_wait, graceful.shutdown()).await.is_err() {
        tracing::warn!("some requests were still in progress at the end");
    }
    Ok(())
}

/// Best effort: the client may not even have sent its request yet.
fn shed(stream: &TcpStream) {
    if let Err(error) = stream.try_write(SHED) {
        tracing::debug!(%error, "a connection beyond the limit was closed without a word");
    }
}

fn is_of_the_client(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset)
}

fn connect<F>(stream: TcpStream, routes: F, limits: &Limits, graceful: &GracefulShutdown, admitted: Admitted)
where
    F: Filter<Error = std::convert::Infallible> + Clone + Send + Sync + 'static,
    F::Extract: warp::Reply,
    F::Future: Send,
{
    let phase = Arc::new(AtomicU64::new(0));
    let answer = TowerToHyperService::new(warp::service(routes));
    let service = {
        let phase = phase.clone();
        service_fn(move |request| {
            phase.fetch_add(1, Ordering::Relaxed);
            let answered = answer.call(request);
            let phase = phase.clone();
            async move {
                let response = answered.await;
                phase.fetch_add(1, Ordering::Relaxed);
                response
            }
        })
    };
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "small answers may be slow");
    }
    let io = TokioIo::new(Patience {
        stream,
        phase,
        head: None,
        head_timeout: limits.head_timeout,
        write: None,
        write_timeout: limits.write_timeout,
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.idle_timeout)
        .max_headers(HEADERS_MAX)
        .max_buf_size(limits.head_bytes)
        .serve_connection(io, service);
    let connection = graceful.watch(connection);
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection ended early");
        }
        drop(admitted);
    });
}

/// Counts connections, in all and by address. Loopback addresses are not told apart: behind them may be a proxy for everyone.
#[derive(Debug)]
struct Doorkeeper {
    inside: Mutex<HashMap<IpAddr, usize>>,
    connections: usize,
    per_address: usize,
}

impl Doorkeeper {
    fn new(connections: usize, per_address: usize) -> Self {
        Self { inside: Mutex::default(), connections, per_address }
    }

    fn admit(self: &Arc<Self>, address: IpAddr) -> Option<Admitted> {
        let mut inside = self.inside.lock().unwrap_or_else(PoisonError::into_inner);
        let there = inside.get(&address).copied().unwrap_or(0);
        let fits = inside.values().sum::<usize>() < self.connections;
        if !fits || (self.per_address <= there && !address.is_loopback()) {
            return None;
        }
        inside.insert(address, there + 1);
        Some(Admitted { doorkeeper: self.clone(), address })
    }
}

/// A connection that is counted until this is dropped.
#[derive(Debug)]
struct Admitted {
    doorkeeper: Arc<Doorkeeper>,
    address: IpAddr,
}

impl Drop for Admitted {
    fn drop(&mut self) {
        let mut inside = self.doorkeeper.inside.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(there) = inside.get_mut(&self.address) {
            *there -= 1;
            if *there == 0 {
                inside.remove(&self.address);
            }
        }
    }
}

/// A stream that waits only so long for the rest of a request head, and for the client to take its answer.
struct Patience {
    stream: TcpStream,
    /// Counted up when a request head is complete and when its response is: even while a head is awaited.
    phase: Arc<AtomicU64>,
    /// Runs from the first byte of a head, in the phase noted with it.
    head: Option<(u64, Pin<Box<Sleep>>)>,
    head_timeout: Duration,
    /// Runs while the client takes nothing.
    write: Option<Pin<Box<Sleep>>>,
    write_timeout: Duration,
}

impl Patience {
    fn wrote<T>(&mut self, cx: &mut Context<'_>, progress: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if progress.is_ready() {
            self.write = None;
            return progress;
        }
        let timeout = self.write_timeout;
        let timer = self.write.get_or_insert_with(|| Box::pin(tokio::time::sleep(timeout)));
        timer.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing")))
    }
}

impl AsyncRead for Patience {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let phase = self.phase.load(Ordering::Relaxed);
        self.head = self.head.take().filter(|(of, _)| *of == phase);
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        let awaits_a_head = phase.is_multiple_of(2);
        if awaits_a_head && before < buf.filled().len() && self.head.is_none() {
            self.head = Some((phase, Box::pin(tokio::time::sleep(self.head_timeout))));
        }
        match &mut self.head {
            Some((_, timer)) if read.is_pending() => timer
                .as_mut()
                .poll(cx)
                .map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the request head did not come"))),
            _ => read,
        }
    }
}

impl AsyncWrite for Patience {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(cx, progress)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let progress = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(cx, progress)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use tokio::io::AsyncWriteExt;

    use super::*;

    #[test]
    fn a_connection_is_admitted_while_there_is_room_in_all_and_for_its_address() {
        let doorkeeper = Arc::new(Doorkeeper::new(4, 2));
        let admit = |address: &str| doorkeeper.admit(address.parse().unwrap());
        let first = admit("10.0.0.1").expect("there is room");
        let _second = admit("10.0.0.1").expect("there is room");
        assert!(admit("10.0.0.1").is_none(), "two of this address");
        let _loopback = [admit("127.0.0.1").expect("there is room"), admit("127.0.0.1").expect("there is room")];
        assert!(admit("10.0.0.2").is_none(), "four in all");
        assert!(admit("127.0.0.1").is_none(), "four in all");
        drop(first);
        let _third = admit("10.0.0.1").expect("one has left");
        assert_eq!(doorkeeper.inside.lock().unwrap().len(), 2, "no address is remembered longer than its connections");
    }

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_cut_off_and_one_that_reads_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        // More than the sockets' buffers hold.
        let answer = vec![0; 64 << 20];
        for (reads, write_timeout_ms) in [(false, 30), (true, 10_000)] {
            let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (stream, _) = listener.accept().await.unwrap();
            let (phase, second) = (Arc::default(), Duration::from_secs(1));
            let write_timeout = Duration::from_millis(write_timeout_ms);
            let mut patience = Patience { stream, phase, head: None, head_timeout: second, write: None, write_timeout };
            let write = async {
                let written = patience.write_all(&answer).await;
                drop(patience);
                written
            };
            if reads {
                let mut sink = tokio::io::sink();
                let (written, copied) = tokio::join!(write, tokio::io::copy(&mut client, &mut sink));
                written.unwrap();
                assert_eq!(copied.unwrap(), answer.len() as u64);
            } else {
                assert_eq!(write.await.unwrap_err().kind(), io::ErrorKind::TimedOut);
            }
        }
    }

    #[test]
    fn the_answer_to_one_connection_too_many_has_the_length_that_it_says() {
        let text = std::str::from_utf8(SHED).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.contains(&format!("content-length: {}", body.len())), "{}", body.len());
        assert_eq!(serde_json::from_str::<serde_json::Value>(body).unwrap()["status"], 503);
    }
}
