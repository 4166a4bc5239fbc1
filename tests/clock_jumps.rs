//! The wall clock jumps, by libfaketime: a day ahead, an hour and a day back, while it runs and between two runs. Nothing but
//! `future` hears of it, and that compares with append times, which never go back.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;

use std::{
    fs,
    path::{Path, PathBuf},
    thread,
};

use live_support::{
    Run, SOON, Server,
    client::event,
    now_ms,
    stage::Stage,
    truth::{Truth, end_offsets},
    wait_for,
};
use server_support::Place;

const DAY_MS: u64 = 86_400_000;

/// What the clock of a process is off by.
struct WallClock(PathBuf);

impl WallClock {
    fn new(folder: &Path) -> Self {
        let clock = Self(folder.join("clock"));
        clock.jump("+0");
        clock
    }

    /// For what is started and what runs already.
    fn jump(&self, off: &str) {
        // At once: half a file is another time.
        let new = self.0.with_extension("new");
        fs::write(&new, off).unwrap();
        fs::rename(new, &self.0).unwrap();
    }

    /// The environment of a process that it is the clock of. Monotonic time goes on as ever.
    fn environment(&self) -> Vec<(String, String)> {
        let folders = fs::read_dir("/usr/lib").unwrap().map(|entry| entry.unwrap().path());
        let library = folders.map(|folder| folder.join("faketime/libfaketimeMT.so.1")).find(|library| library.exists());
        let library = library.expect("this test needs libfaketime (Debian: apt-get install faketime)");
        [
            ("LD_PRELOAD", library.display().to_string()),
            ("FAKETIME_TIMESTAMP_FILE", self.0.display().to_string()),
            ("FAKETIME_NO_CACHE", "1".to_owned()),
            ("FAKETIME_DONT_FAKE_MONOTONIC", "1".to_owned()),
        ]
        .map(|(name, value)| (name.to_owned(), value))
        .to_vec()
    }
}

/// The append time of the log's newest record.
fn newest_append_ms(stage: &Stage) -> u64 {
    let log = Truth::of(&stage.data_dir()).log;
    log.iter().flatten().filter_map(|record| record.append_time_ms).max().unwrap()
}

#[test]
fn whichever_way_the_wall_clock_jumps_counts_are_exact_and_append_times_never_go_back() {
    let mut stage = Stage::new();
    let clock = WallClock::new(stage.folder.path());
    stage.environment = clock.environment();
    let mut server = stage.run().start();
    stage.send_over_checkpoints(&server, 1);
    for jump in ["+1d", "-1h", "-1d", "+0"] {
        clock.jump(jump);
        stage.send_over_checkpoints(&server, 2);
        assert!(server.is_running(), "after {jump}");
    }
    assert!(
        now_ms() + DAY_MS / 2 < newest_append_ms(&stage),
        "the process has seen the clock jump, and it stays there"
    );
    for jump in ["-1d", "+1d", "-1h"] {
        stage.send_and_see(&server, 5);
        server.stop();
        clock.jump(jump);
        server = stage.run().start();
        assert_eq!(server.starts()[0].records_to_read, 0);
        stage.send_over_checkpoints(&server, 1);
    }
    let truth = Truth::of(&stage.data_dir());
    for records in &truth.log {
        let times: Vec<u64> = records.iter().map(|record| record.append_time_ms.unwrap()).collect();
        assert!(times.is_sorted(), "append times go back");
    }
    stage.assert_exact(server);
}

#[test]
fn a_query_that_waits_for_its_write_is_neither_cut_off_nor_kept_by_a_jump_of_the_wall_clock() {
    let mut stage = Stage::new();
    let clock = WallClock::new(stage.folder.path());
    stage.environment = clock.environment();
    let server = stage.run().start();
    stage.send_and_see(&server, 10);
    let ends = end_offsets(&stage.data_dir());
    for jump in ["+1d", "-1d"] {
        let token = format!("0:{}", end_offsets(&stage.data_dir())[0] + 1);
        thread::scope(|scope| {
            let client = server.client.another();
            let video = &stage.videos[0];
            let asking = scope.spawn(move || client.stats(video, &format!("granularity=all&after={token}")));
            clock.jump(jump);
            wait_for("the process sees the jump", SOON, || {
                let lag = server.client.status()["lag_ms"].as_u64().unwrap();
                ((jump == "+1d") == (DAY_MS / 2 < lag)).then_some(())
            });
            assert!(!asking.is_finished(), "it waits for a write that is still to come");
            server.client.send(&[event(&format!("after {jump}"), video, "view", stage.start_ms + 1)]);
            asking.join().unwrap().expect(200);
        });
    }
    let beyond = format!("granularity=all&after=0:{}", ends[0] + 1_000);
    let client = server.client.another();
    let answer = thread::scope(|scope| {
        let video = &stage.videos[0];
        let asking = scope.spawn(move || client.stats(video, &beyond));
        clock.jump("-1h");
        asking.join().unwrap()
    });
    assert_ne!(answer.status, 200, "a write that never comes is given up by monotonic time");
    clock.jump("+0");
    stage.assert_exact(server);
}

#[test]
fn rows_in_cassandra_rise_in_their_timestamps_while_the_wall_clock_goes_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = WallClock::new(folder.path());
    let place = Place::shared("clock");
    let run = clock
        .environment()
        .iter()
        .fold(place.run(&folder.path().join("data")), |run, (name, value)| run.env(name, value))
        // librdkafka does not start under libfaketime with another clock than its broker's.
        .env("TIDEMARK_SOURCE__KIND", "log");
    let at = now_ms();
    let written = |server: &Server, number: u64| {
        let token = server.client.send(&[event(&format!("e{number}"), "v", "view", at)]);
        server.client.stats("v", &format!("after={token}")).expect(200);
        wait_for("its row", SOON, || {
            let said = servers::cqlsh(
                &place.cassandra,
                &format!("SELECT JSON count, writetime(count) AS written FROM {}.stats_minute;", place.keyspace),
            );
            let row = said.lines().map(str::trim).find(|line| line.starts_with('{'))?;
            let row: serde_json::Value = serde_json::from_str(row).unwrap();
            (row["count"] == number).then(|| row["written"].as_u64().unwrap())
        })
    };
    let mut server = run.start();
    let mut times = vec![written(&server, 1)];
    for (number, jump) in (2..).zip(["+1d", "-1h", "-1d"]) {
        clock.jump(jump);
        times.push(written(&server, number));
    }
    server.stop();
    clock.jump("-1d");
    server = Run::start(&run);
    times.push(written(&server, 5));
    assert!(times.is_sorted_by(|earlier, later| earlier < later), "{times:?}");
    server.stop();
}
