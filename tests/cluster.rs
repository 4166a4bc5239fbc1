//! Several processes of one job on the embedded log and store: killed, stopped and started again on other layouts, they come
//! to what the oracle says, to the last event; and they end and refuse as they should.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    fs,
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use live_support::{
    Run, SOON, Server,
    client::event,
    cluster::{is_alive, signal},
    free_ports, now_ms,
    traffic::{Traffic, append, assert_acknowledged_is_in, lines_of, partitioned},
    truth::Truth,
    wait_for,
};
use rand::{RngExt as _, SeedableRng as _, seq::SliceRandom as _};
use rand_chacha::ChaCha8Rng;
use rustix::process::{Pid, Signal, kill_process_group};

const SEED: u64 = 20_260_303;

/// For a whole stream with all its faults: a stopped process is only noticed by its silence.
const DELIVERED_WITHIN: Duration = Duration::from_secs(400);

/// By contract, processes end within this when their supervisor is gone.
const ORPHANED: Duration = Duration::from_secs(2);

#[derive(Copy, Clone, Debug)]
enum Fault {
    Kill,
    Stop,
    KillAll,
}

#[test]
fn two_processes_that_are_killed_and_stopped_come_to_what_the_oracle_says() {
    let mut faults = [Fault::Kill, Fault::Kill, Fault::Kill, Fault::Stop, Fault::KillAll, Fault::KillAll, Fault::Stop];
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    println!("seed {SEED}");
    faults.shuffle(&mut rng);
    let (streams, mut refused) = partitioned(&mut rng, SEED, 40_000);
    let lines = lines_of(&streams);
    append(&data_dir, refused.drain(..));

    let mut server = Run::new(&data_dir).supervised(2).workers(2).checkpoints_every("300ms").start();
    let traffic = Traffic::new(&server.clients, DELIVERED_WITHIN);
    let ((), acknowledged) = traffic.during(&streams, || {
        let mut last = server.starts()[0];
        for (number, fault) in faults.into_iter().enumerate() {
            let stage = |half: usize| lines * (2 * number + half) as u64 / (2 * (faults.len() as u64 + 1));
            traffic.allow(stage(1));
            let newest = server.client.wait_for_checkpoint_after(last.checkpoint.unwrap_or(0));
            traffic.allow(stage(2));
            traffic.wait_for(rng.random_range(stage(1)..stage(2) - (stage(2) - stage(1)) / 4));
            let (pids, starts) = (server.pids(), server.starts().len());
            let process = rng.random_range(0..pids.len());
            let at = Instant::now();
            let says = match fault {
                Fault::Kill => {
                    signal(pids[process], Signal::KILL);
                    format!("process {process} was ended by signal 9: starting all processes again")
                }
                Fault::Stop => {
                    signal(pids[process], Signal::STOP);
                    format!("process {process} did not end and was killed: starting all processes again")
                }
                Fault::KillAll => {
                    pids.iter().for_each(|pid| signal(*pid, Signal::KILL));
                    "was ended by signal 9: starting all processes again".to_owned()
                }
            };
            let start = server.wait_for_start_after(starts);
            println!("{fault:?} process {process}: {start:?}, all ready after {:?}", at.elapsed());
            assert!(server.stderr().contains(&says), "nobody says {says:?}");
            assert_eq!(server.starts().len(), starts + 1, "it started once");
            assert!(Some(newest) <= start.checkpoint, "checkpoint {newest} was committed before");
            assert!(last.generation < start.generation);
            assert!(pids.iter().all(|pid| !is_alive(*pid)), "a process of the former start is still there");
            last = start;
        }
    });
    let again = server.starts().iter().skip(1).filter(|start| 0 < start.records_to_read).count();
    assert!(6 <= again, "only {again} faults had something to read again");

    let truth = Truth::of(&data_dir);
    assert_acknowledged_is_in(&truth.log, &streams, &acknowledged);
    assert_all_answer(&server, &truth);
    server.stop();
    truth.assert_stopped(&data_dir);
}

#[test]
fn every_layout_goes_on_from_what_any_other_left() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut rng = ChaCha8Rng::seed_from_u64(SEED + 1);
    let (streams, mut refused) = partitioned(&mut rng, SEED + 1, 24_000);
    let mut streams: Vec<_> = streams.into_iter().map(std::collections::VecDeque::from).collect();
    let base = Run::new(&data_dir).checkpoints_every("300ms");
    let of = |processes: u16, workers: u32| base.clone().supervised(processes).workers(workers);
    let layouts = [of(1, 1), of(1, 4), of(1, 3), of(1, 1), of(1, 4), of(2, 2), of(3, 1), base.clone().workers(2)];
    for (number, run) in layouts.iter().enumerate() {
        let left = layouts.len() - number;
        append(&data_dir, refused.drain(..refused.len() / left));
        let share: Vec<Vec<_>> =
            streams.iter_mut().map(|stream| stream.drain(..stream.len() / left).collect()).collect();
        let server = run.start();
        assert_eq!(server.starts()[0].checkpoint.is_some(), 0 < number);
        println!("{:?} x {}: {:?}", run.processes, run.workers, server.starts());
        let traffic = Traffic::new(&server.clients, DELIVERED_WITHIN);
        traffic.during(&share, || traffic.allow(u64::MAX));
        let truth = Truth::of(&data_dir);
        if left == 1 {
            assert_all_answer(&server, &truth);
            server.stop();
            truth.assert_stopped(&data_dir);
        } else if number % 2 == 0 {
            server.client.wait_for_checkpoint_after(0);
            let pids = server.pids();
            server.kill();
            wait_for("no orphans", ORPHANED, || (!pids.iter().any(|pid| is_alive(*pid))).then_some(()));
        } else {
            server.client.wait_until_visible(&truth.end_offsets(), SOON);
            server.stop();
        }
    }
}

/// Every process has the same status and the same index: those that the oracle says.
#[track_caller]
fn assert_all_answer(server: &Server, truth: &Truth) {
    for client in &server.clients {
        let status = client.wait_until_visible(&truth.end_offsets(), SOON);
        truth.assert_status(&status);
        truth.assert_index(client);
    }
}

#[test]
fn a_supervisor_that_is_told_to_stop_ends_all_processes_with_a_last_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = Run::new(&data_dir).supervised(2).workers(1).checkpoints_every("1h").start();
    let token = server.clients[1].send(&[event("e", "v", "view", now_ms())]);
    server.client.stats("v", &format!("after={token}")).expect(200);
    let pids = server.pids();
    assert_eq!(pids.len(), 2);
    let ended = server.stop();
    assert_eq!(ended.stderr.matches("stopped with a last checkpoint").count(), 2, "{ended}");
    assert!(!pids.iter().any(|pid| is_alive(*pid)), "an orphan");

    let server = Run::new(&data_dir).supervised(2).workers(1).start();
    assert_eq!(server.starts()[0].records_to_read, 0, "the last checkpoint has it");
    let answer = server.clients[1].stats("v", &format!("granularity=all&after={token}")).expect(200);
    assert_eq!(answer["total"], 1);
    server.stop();
}

/// The first process heard of the stop from the second one, and took its own SIGTERM for the second signal, which ends it at
/// once: without a last checkpoint, and without a word to the other.
#[test]
fn regression_a_stop_that_reaches_all_processes_at_once_is_one_stop() {
    let folder = tempfile::tempdir().unwrap();
    for _ in 0..8 {
        Run::new(&folder.path().join("data")).supervised(2).workers(1).start().stop();
    }
}

/// Ctrl-C reached the processes as well as their supervisor, whose SIGTERM was then the second signal.
#[test]
fn regression_ctrl_c_is_for_the_supervisor_alone() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let server = Run::new(&data_dir).supervised(2).workers(1).under(&["setsid"]).start();
    kill_process_group(Pid::from_raw(server.pid() as i32).unwrap(), Signal::INT).unwrap();
    let ended = server.wait_for_end(live_support::TERMINATED_WITHIN);
    ended.expect(0, &[]);
    assert_eq!(ended.stderr.matches("stopped with a last checkpoint").count(), 2, "{ended}");
}

/// An upgrade removes the program's file, or puts another in its place.
#[test]
fn regression_a_supervisor_starts_again_although_its_programs_file_is_gone() {
    let folder = tempfile::tempdir().unwrap();
    let program = folder.path().join("tidemark");
    fs::copy(live_support::TIDEMARK, &program).unwrap();
    let run = Run { program: program.clone(), ..Run::new(&folder.path().join("data")).supervised(2).workers(1) };
    let mut server = run.start();
    fs::remove_file(&program).unwrap();
    signal(server.pids()[0], Signal::KILL);
    server.wait_for_start_after(1);
    server.stop();
}

/// A process that failed waited for its links to close before it told the others.
#[test]
fn regression_a_process_that_fails_ends_all_with_its_code_and_reason() {
    let stage = Stage::new();
    let _taken = TcpListener::bind(("127.0.0.1", stage.port + 1)).unwrap();
    let (first, second) = (stage.member(0).begin(), stage.member(1).begin());
    second.wait_for_end(SOON).expect(75, &["Address already in use"]);
    first.wait_for_end(SOON).expect(75, &["process 1 has failed"]);
}

/// A body that was small enough as it was sent is passed on unpacked, and was refused by the first process for ever.
#[test]
fn regression_what_came_compressed_is_passed_on_however_large_it_is() {
    let folder = tempfile::tempdir().unwrap();
    let server = Run::new(&folder.path().join("data")).supervised(2).workers(1).start();
    let mut rng = ChaCha8Rng::seed_from_u64(SEED);
    let mut padding = || (0..50_000).map(|_| format!("{:02x}", rng.random::<u8>())).collect::<String>();
    let lines: Vec<String> = (0..60)
        .map(|n| {
            event(&format!("e{n}"), "v", "view", now_ms()).replacen(
                '{',
                &format!("{{\"padding\":\"{}\",", padding()),
                1,
            )
        })
        .collect();
    let body = zstd::encode_all(lines.join("\n").as_bytes(), 1).unwrap();
    assert!(body.len() < 4 << 20 && 4 << 20 < lines.join("\n").len());
    let posted =
        server.clients[1].post_encoded("/v1/events", "application/x-ndjson", "zstd", &body).unwrap().expect(202);
    assert_eq!(posted["accepted"], 60);
    let token = posted["token"].as_str().unwrap();
    let answer = server.clients[1].stats("v", &format!("granularity=all&after={token}")).expect(200);
    assert_eq!(answer["total"], 60);
    server.stop();
}

#[test]
fn nobody_outlives_a_supervisor_that_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let run = Run::new(&data_dir).supervised(3).workers(1);
    let server = run.start();
    let token = server.client.send(&[event("e", "v", "view", now_ms())]);
    let pids = server.pids();
    assert!(pids.iter().all(|pid| is_alive(*pid)) && pids.len() == 3);
    let at = Instant::now();
    server.kill();
    wait_for("no orphans", ORPHANED.saturating_sub(at.elapsed()), || {
        (!pids.iter().any(|pid| is_alive(*pid))).then_some(())
    });

    let server = run.start();
    let answer = server.clients[2].stats("v", &format!("granularity=all&after={token}")).expect(200);
    assert_eq!(answer["total"], 1);
    server.stop();
}

#[test]
fn one_process_that_is_told_to_stop_ends_all_with_a_last_checkpoint() {
    for told in 0..2 {
        let stage = Stage::new();
        let mut servers = [stage.member(0).begin(), stage.member(1).begin()];
        servers.iter_mut().for_each(Server::wait_until_ready);
        let token = servers[told].client.send(&[event("e", "v", "view", now_ms())]);
        servers[told].client.stats("v", &format!("after={token}")).expect(200);
        servers[told].signal(Signal::TERM);
        for server in servers {
            let ended = server.wait_for_end(live_support::TERMINATED_WITHIN);
            ended.expect(0, &["stopped with a last checkpoint"]);
        }
        let first = stage.member(0).begin();
        let second = stage.member(1).start();
        assert_eq!(first.starts()[0].records_to_read, 0, "the last checkpoint has it");
        assert_eq!(second.client.stats("v", "granularity=all").expect(200)["total"], 1);
    }
}

#[test]
fn a_second_supervisor_on_the_folder_is_refused_and_the_first_unharmed() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let mut server = Run::new(&data_dir).supervised(2).workers(1).start();
    let hosts = fs::read(data_dir.join("hosts")).unwrap();
    Run::new(&data_dir).supervised(2).start_and_end().expect(75, &["belongs to another"]);
    Run::new(&data_dir).start_and_end().expect(75, &["belongs to another"]);
    assert_eq!(fs::read(data_dir.join("hosts")).unwrap(), hosts, "the first one's processes find each other by it");

    // Also when it starts its processes again.
    signal(server.pids()[1], Signal::KILL);
    server.wait_for_start_after(1);
    let token = server.clients[1].send(&[event("e", "v", "view", now_ms())]);
    let answer = server.client.stats("v", &format!("granularity=all&after={token}")).expect(200);
    assert_eq!(answer["total"], 1);
    server.stop();
}

#[test]
fn processes_with_other_secrets_do_not_find_each_other() {
    let stage = Stage::new();
    let member = |process: u16, patience: &str| {
        let key_file = stage.folder.path().join(format!("key-{process}"));
        fs::write(&key_file, format!("a secret of process {process}")).unwrap();
        let run = stage.member(process).env("TIDEMARK_CLUSTER__KEY_FILE", &key_file.display().to_string());
        run.env("TIDEMARK_CLUSTER__PATIENCE", patience).begin()
    };
    // The second one is to find the first one there.
    let first = member(0, "6s");
    let hosts = fs::read_to_string(&stage.hosts).unwrap();
    wait_for("it listens", SOON, || TcpStream::connect(hosts.lines().next().unwrap()).ok());
    let second = member(1, "2s");
    second.wait_for_end(SOON).expect(69, &["process 0", "the secrets differ"]);
    first.wait_for_end(SOON).expect(69, &["process 1 did not call"]);
}

#[test]
fn processes_with_other_settings_are_refused() {
    let stage = Stage::new();
    let first = stage.member(0).begin();
    let second = stage.member(1).env("TIDEMARK_TIME__LATENESS", "20m").env("TIDEMARK_TIME__REMEMBER", "20m").begin();
    second.wait_for_end(SOON).expect(2, &["give all the same configuration"]);
    first.wait_for_end(SOON).expect(2, &["process 1 has failed", "give all the same configuration"]);
}

/// Two processes that are started one by one.
struct Stage {
    folder: tempfile::TempDir,
    hosts: PathBuf,
    port: u16,
}

impl Stage {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let hosts = folder.path().join("hosts");
        let exchange = free_ports(2);
        fs::write(&hosts, format!("127.0.0.1:{exchange}\n127.0.0.1:{}\n", exchange + 1)).unwrap();
        Self { folder, hosts, port: free_ports(2) }
    }

    fn member(&self, process: u16) -> Run {
        let run = Run::new(&self.data_dir()).workers(1).member(process, &self.hosts);
        Run { port: self.port, ..run }
    }

    fn data_dir(&self) -> PathBuf {
        Path::new(self.folder.path()).join("data")
    }
}

#[test]
fn a_job_that_crashes_again_and_again_at_the_same_place_is_given_up_with_that_place() {
    let folder = tempfile::tempdir().unwrap();
    let mut server = Run::new(&folder.path().join("data")).supervised(2).checkpoints_every("1h").start();
    for crash in 1..=5 {
        signal(server.pids()[1], Signal::ABORT);
        if crash < 5 {
            server.wait_for_start_after(crash);
        }
    }
    let says = ["process 1 was ended by signal 6", "5 times in a row", "the first record"];
    server.wait_for_end(SOON).expect(70, &says);
}
