//! The links between two processes, through a proxy that harms them: what is slow is exact, what is cut or silent ends all
//! processes at once, and what they left is gone on from.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    fs,
    path::{Path, PathBuf},
};

use live_support::{
    Run, SOON, Server,
    client::{event, video_of_each},
    free_ports, now_ms,
    traffic::PARTITIONS,
    truth::Truth,
};
use servers::{Harm, Proxy};

const SEED: u64 = 7;

/// Two processes; the second one finds the first behind a proxy.
struct Stage {
    folder: tempfile::TempDir,
    proxy: Proxy,
    hosts: [PathBuf; 2],
    port: u16,
    start_ms: u64,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let exchange = free_ports(2);
        let proxy = Proxy::to(&format!("127.0.0.1:{exchange}"), SEED);
        let file = |name: &str, first: &str| {
            let hosts = folder.path().join(name);
            fs::write(&hosts, format!("{first}\n127.0.0.1:{}\n", exchange + 1)).unwrap();
            hosts
        };
        let hosts = [file("hosts-0", &format!("127.0.0.1:{exchange}")), file("hosts-1", proxy.address())];
        Self { folder, proxy, hosts, port: free_ports(2), start_ms: now_ms() - 3_600_000 }
    }

    fn data_dir(&self) -> PathBuf {
        Path::new(self.folder.path()).join("data")
    }

    fn start(&self) -> [Server; 2] {
        let member = |process: u16| {
            let run = Run::new(&self.data_dir()).workers(1).member(process, &self.hosts[usize::from(process)]);
            Run { port: self.port, ..run.checkpoints_every("200ms") }
        };
        let mut first = member(0).begin();
        let second = member(1).start();
        first.wait_until_ready();
        [first, second]
    }

    /// Some events to every partition, by the second process: it has them from the first one's log.
    fn send(&self, server: &Server, numbers: std::ops::Range<u64>) {
        let videos = video_of_each(PARTITIONS);
        for number in numbers {
            let at = self.start_ms + number * 1_000;
            let events: Vec<String> =
                videos.iter().map(|video| event(&format!("e{number}"), video, "view", at)).collect();
            server.client.send(&events);
        }
    }
}

#[test]
fn over_a_slow_link_two_processes_count_exactly() {
    let stage = Stage::new();
    let servers = stage.start();
    stage.proxy.set(Harm::Delay { requests_ms: 0..40, answers_ms: 0..80 });
    let met = stage.proxy.met();
    stage.send(&servers[1], 0..30);
    let truth = Truth::of(&stage.data_dir());
    for server in &servers {
        let status = server.client.wait_until_visible(&truth.end_offsets(), SOON);
        truth.assert_status(&status);
        truth.assert_index(&server.client);
    }
    // The first one commits it, with parts of both.
    servers[0].client.wait_for_checkpoint_after(0);
    assert!(met < stage.proxy.met(), "what they told each other was delayed");
    let [first, second] = servers;
    first.stop();
    second.wait_for_end(SOON).expect(0, &[]);
    truth.assert_stopped(&stage.data_dir());
}

#[test]
fn a_link_that_is_cut_shut_or_silent_ends_both_processes_and_the_next_start_goes_on_from_there() {
    let stage = Stage::new();
    let mut numbers = (0..).step_by(10);
    // harm | what one of them says of it
    let harms = [
        (Harm::Reset { after_bytes: 1..200 }, ["is gone", "is lost"]),
        (Harm::HalfClose, ["is gone", "is lost"]),
        (Harm::Hold, ["was silent for 5s"; 2]),
    ];
    for (harm, says) in harms {
        let servers = stage.start();
        let from = numbers.next().unwrap();
        stage.send(&servers[1], from..from + 5);
        stage.send(&servers[0], from + 5..from + 10);
        stage.proxy.set(harm.clone());
        let [first, second] = servers.map(|server| server.wait_for_end(SOON));
        stage.proxy.set(Harm::None);
        println!("{harm:?}: {:?} {:?}", first.code, second.code);
        for ended in [&first, &second] {
            ended.expect(1, &[]);
        }
        let told = [&first, &second].iter().any(|ended| says.iter().any(|says| ended.stderr.contains(says)));
        assert!(told, "nobody says {says:?}: {first} {second}");
    }
    let [first, second] = stage.start();
    let truth = Truth::of(&stage.data_dir());
    assert_eq!(truth.end_offsets(), [30; PARTITIONS as usize], "all that was acknowledged is in the log");
    for server in [&first, &second] {
        let status = server.client.wait_until_visible(&truth.end_offsets(), SOON);
        truth.assert_status(&status);
        truth.assert_index(&server.client);
    }
    first.stop();
    second.wait_for_end(SOON).expect(0, &[]);
    truth.assert_stopped(&stage.data_dir());
}
