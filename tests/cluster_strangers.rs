//! Strangers on the addresses where the processes of a job listen for each other: whatever they send, and however many they
//! are, the processes find each other and go on.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use live_support::{Run, SOON, Server, client::event, free_ports, now_ms, wait_for};

/// A handshake that is not done within this is given up.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// And so every stranger is dropped within this.
const DROPPED_WITHIN: Duration = Duration::from_secs(10);

/// More than the calls that are under way at once.
const CROWD: usize = 40;

/// Between two strangers of a crowd. A member needs less for its call.
const CROWD_EVERY: Duration = Duration::from_millis(5);

#[test]
fn strangers_cost_nothing_while_the_processes_come_together() {
    let folder = tempfile::tempdir().unwrap();
    let (exchange, port) = (free_ports(2), free_ports(2));
    let addresses = [format!("127.0.0.1:{exchange}"), format!("127.0.0.1:{}", exchange + 1)];
    let hosts = folder.path().join("hosts");
    fs::write(&hosts, addresses.join("\n")).unwrap();
    let member = |process| {
        let run = Run::new(&folder.path().join("data")).workers(1).member(process, &hosts);
        Run { port, ..run }.begin()
    };
    let first = member(0);
    wait_for("it listens", SOON, || TcpStream::connect(&addresses[0]).ok());
    let mut strangers = Stranger::one_of_each(&addresses[0]);

    // Silent ones, of which a new one comes for each that is dropped, all the while.
    let (enough, came) = (AtomicBool::new(false), AtomicUsize::new(0));
    let mut servers = thread::scope(|scope| {
        scope.spawn(|| {
            let mut crowd = Vec::new();
            while !enough.load(Ordering::SeqCst) {
                crowd.retain_mut(|stranger: &mut Stranger| !stranger.is_dropped());
                if crowd.len() < CROWD {
                    crowd.push(Stranger::new(&addresses[0], "silent", b""));
                    came.fetch_add(1, Ordering::SeqCst);
                }
                thread::sleep(CROWD_EVERY);
            }
        });
        wait_for("a crowd", SOON, || (CROWD <= came.load(Ordering::SeqCst)).then_some(()));
        let (mut second, at) = (member(1), Instant::now());
        let joined = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| second.wait_until_ready()));
        enough.store(true, Ordering::SeqCst);
        joined.unwrap();
        println!("ready after {:?}", at.elapsed());
        assert!(at.elapsed() < HANDSHAKE, "no stranger is waited for");
        [first, second]
    });
    servers[0].wait_until_ready();
    println!("{} silent strangers came meanwhile", came.load(Ordering::SeqCst));
    wait_for("all others are dropped", DROPPED_WITHIN, || {
        strangers.retain_mut(|stranger| !stranger.is_dropped());
        strangers.is_empty().then_some(())
    });
    count_one(&servers.iter().map(|server| &server.client).collect::<Vec<_>>(), 1);
    servers[0].signal(rustix::process::Signal::TERM);
    for server in servers {
        server.wait_for_end(live_support::TERMINATED_WITHIN).expect(0, &[]);
    }
}

#[test]
fn strangers_in_mid_run_are_dropped_and_counting_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut server: Server = Run::new(&data_dir).supervised(2).workers(1).start();
    let pids = server.pids();
    let addresses = addresses(&data_dir);
    assert_eq!(addresses.len(), 2);
    let mut strangers: Vec<Stranger> = addresses.iter().flat_map(|address| Stranger::one_of_each(address)).collect();
    for address in &addresses {
        strangers.extend((0..CROWD).map(|_| Stranger::new(address, "silent", b"")));
    }
    let mut counted = 0;
    wait_for("all strangers are dropped", DROPPED_WITHIN, || {
        counted += 1;
        count_one(&server.clients.iter().collect::<Vec<_>>(), counted);
        strangers.retain_mut(|stranger| !stranger.is_dropped());
        strangers.is_empty().then_some(())
    });
    println!("{counted} events were counted meanwhile");
    assert!(server.is_running());
    assert_eq!((server.starts().len(), server.pids()), (1, pids), "nothing was started again");
    let ended = server.stop();
    assert!(!ended.stderr.contains("ERROR"), "{ended}");
}

fn addresses(data_dir: &Path) -> Vec<String> {
    fs::read_to_string(data_dir.join("hosts")).unwrap().lines().map(str::to_owned).collect()
}

/// Sends an event to the last process, and finds it through every process: then there are so many.
#[track_caller]
fn count_one(clients: &[&live_support::client::Client], so_many: u64) {
    let token = clients.last().unwrap().send(&[event(&format!("e{so_many}"), "v", "view", now_ms())]);
    for client in clients {
        let answer = client.stats("v", &format!("granularity=all&after={token}")).expect(200);
        assert_eq!(answer["total"], so_many);
    }
}

/// A connection of somebody who does not belong here.
struct Stranger {
    what: &'static str,
    stream: TcpStream,
}

impl Stranger {
    fn new(address: &str, what: &'static str, says: &[u8]) -> Self {
        let mut stream = TcpStream::connect(address).unwrap();
        // It may be dropped already.
        let _ = stream.write_all(says);
        stream.set_nonblocking(true).unwrap();
        Self { what, stream }
    }

    /// Everybody that has ever come to a port.
    fn one_of_each(address: &str) -> Vec<Self> {
        let hello = |purpose: u8| {
            let mut hello = b"TIDEMARK".to_vec();
            for word in [1_u16, 1, 0, 2] {
                hello.extend(word.to_le_bytes());
            }
            hello.push(purpose);
            hello.extend([0; 8 + 16 + 32]);
            hello
        };
        let with_a_wrong_proof = [hello(0), vec![0; 32]].concat();
        let with_another_generation = [hello(1), vec![0; 32]].concat();
        vec![
            Self::new(address, "silent", b""),
            Self::new(address, "a browser", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"),
            Self::new(address, "timely's own greeting", &1_u64.to_le_bytes()),
            Self::new(address, "a length of 1 GiB", &[&(1_u64 << 30).to_le_bytes()[..], &[0xff; 4096]].concat()),
            Self::new(address, "a wrong proof", &with_a_wrong_proof),
            Self::new(address, "another generation", &with_another_generation),
            Self::new(address, "a hello that does not go on", &hello(0)[..40]),
            Self::new(address, "nothing but a hello", &hello(0)),
        ]
    }

    /// Whether the other side has closed it; and nobody is told anything but a nonce with a proof.
    fn is_dropped(&mut self) -> bool {
        let mut heard = [0; 4096];
        match self.stream.read(&mut heard) {
            Ok(0) => true,
            Ok(bytes) => {
                assert!(bytes <= 64, "{} was told {bytes} bytes", self.what);
                false
            }
            Err(error) => error.kind() != ErrorKind::WouldBlock,
        }
    }
}
