//! What stands between a test and Cassandra: one that meddles with answers, and one that speaks TLS.

use std::{
    fs,
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use dataflows::testkit::SplitMix64;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Of a frame of CQL's protocol 4: version, flags, stream (2), opcode, length (4).
const HEADER_BYTES: usize = 9;
const RESULT: u8 = 8;
/// The first four bytes of a result's body.
const VOID: [u8; 4] = [0, 0, 0, 1];
const ROWS: [u8; 4] = [0, 0, 0, 2];

/// What is done to answers.
#[derive(Default)]
pub struct Meddling {
    /// How many of 100 acknowledgements of writes come late.
    pub late_percent: AtomicU64,
    /// How late, ms; 0 is never.
    pub late_ms: AtomicU64,
    /// How many of the next answers with rows, as transactions have them, get lost.
    pub lose_rows: AtomicU64,
    /// How many came late or got lost.
    pub met: AtomicU64,
}

/// Passes everything on but the answers that it is told to meddle with. It lives as long as the test's process.
pub struct Proxy {
    pub address: String,
    pub meddling: Arc<Meddling>,
}

impl Proxy {
    pub fn start(upstream: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let meddling = Arc::new(Meddling::default());
        let (upstream, shared) = (upstream.to_owned(), Arc::clone(&meddling));
        thread::spawn(move || {
            for (client, seed) in listener.incoming().zip(1..) {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(&upstream)) else { continue };
                let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
                thread::spawn(move || {
                    let _ = io::copy(&mut from, &mut to);
                    let _ = to.shutdown(Shutdown::Both);
                });
                let meddling = Arc::clone(&shared);
                thread::spawn(move || {
                    let _ = answers(server, &client, &meddling, seed);
                    let _ = client.shutdown(Shutdown::Both);
                });
            }
        });
        Self { address, meddling }
    }
}

/// Passes the answers on, frame by frame.
fn answers(mut server: TcpStream, client: &TcpStream, meddling: &Meddling, seed: u64) -> io::Result<()> {
    let client = Arc::new(Mutex::new(client.try_clone()?));
    let mut dice = SplitMix64::new(seed);
    loop {
        let mut frame = vec![0; HEADER_BYTES];
        server.read_exact(&mut frame)?;
        let length = u32::from_be_bytes([frame[5], frame[6], frame[7], frame[8]]) as usize;
        frame.resize(HEADER_BYTES + length, 0);
        server.read_exact(&mut frame[HEADER_BYTES..])?;
        let is = |kind: [u8; 4]| frame[4] == RESULT && frame[HEADER_BYTES..].starts_with(&kind);
        if is(VOID) && dice.below(100) < meddling.late_percent.load(Ordering::SeqCst) {
            meddling.met.fetch_add(1, Ordering::SeqCst);
            let late = Duration::from_millis(meddling.late_ms.load(Ordering::SeqCst));
            if late.is_zero() {
                continue;
            }
            let client = Arc::clone(&client);
            thread::spawn(move || {
                thread::sleep(late);
                client.lock().unwrap().write_all(&frame)
            });
            continue;
        }
        let take_one = |left: u64| left.checked_sub(1);
        if is(ROWS) && meddling.lose_rows.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take_one).is_ok() {
            meddling.met.fetch_add(1, Ordering::SeqCst);
            continue;
        }
        client.lock().unwrap().write_all(&frame)?;
    }
}

/// The certificates of the tests: see `make` beside them.
pub fn certificate(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tls").join(name)
}

/// Speaks TLS with whoever connects, as the node of that address, and plainly with Cassandra. Lives as long as the
/// test's process.
pub fn tls_proxy(upstream: &str, node: &str) -> String {
    let chain = CertificateDer::pem_file_iter(certificate(&format!("{node}.pem"))).unwrap();
    let key = fs::read(certificate(&format!("{node}.key"))).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), PrivateKeyDer::from_pem_slice(&key).unwrap())
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    let upstream = upstream.to_owned();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener).unwrap();
            while let Ok((client, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                tokio::spawn(async move {
                    let mut client = acceptor.accept(client).await?;
                    let mut server = tokio::net::TcpStream::connect(upstream).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        });
    });
    address
}
