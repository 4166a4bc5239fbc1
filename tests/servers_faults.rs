//! What may happen to a topic: it is replaced, cut, grown, held up by transactions, quiet. Either the counts are exact, or the
//! job ends with 65 and says what is lost.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;

use std::{
    fs,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use connectors::partition::partition_of;
use live_support::{
    Ended, Run, SOON, Server,
    client::{Client, event, video_of_each},
    now_ms, tidemark_with,
    traffic::PARTITIONS,
    wait_for,
};
use serde_json::{Value, json};
use server_support::{
    Place,
    feed::{Feed, Lines, count},
    outside,
    truth::KafkaTruth,
};

/// For what is fed at once.
const FED_WITHIN: Duration = Duration::from_secs(60);

/// By faults.md F14, a partition without events delays the others by `idle_after` and this.
const IDLE_DELAY: Duration = Duration::from_millis(250 + 1000);

/// A fresh topic with a job's folder.
struct Stage {
    folder: tempfile::TempDir,
    place: Place,
}

impl Stage {
    fn new(what: &str) -> Self {
        let stage = Self { folder: tempfile::tempdir().unwrap(), place: Place::shared(what) };
        stage.create();
        stage
    }

    fn create(&self) {
        outside::create_topic(&self.place.kafka, &self.place.topic, PARTITIONS);
    }

    fn run(&self) -> Run {
        self.place.run(&self.data_dir())
    }

    fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn feed(&self, lines: &Lines) {
        let feed = Feed::new(&self.place.kafka, &self.place.topic, FED_WITHIN);
        feed.during(lines, || feed.allow(u64::MAX));
    }

    /// Feeds so many records to each partition, lets a job count them, and stops it.
    fn count_and_stop(&self, each: u64) {
        let server = self.run().start();
        self.feed(&events(0..each));
        server.client.wait_until_visible(&[each; PARTITIONS as usize], SOON);
        server.stop();
    }

    fn start_and_end(&self) -> Ended {
        self.run().start_and_end()
    }
}

/// Events with these numbers in each partition, stamped now.
fn events(numbers: std::ops::Range<u64>) -> Lines {
    let of = |video: &String| {
        numbers.clone().map(|number| event(&format!("e{number}"), video, "view", now_ms()).into_bytes()).collect()
    };
    video_of_each(PARTITIONS).iter().map(of).collect()
}

/// What each partition has lost, by a status.
fn lost(status: &Value) -> Vec<u64> {
    status["partitions"].as_array().unwrap().iter().map(|at| at["ledger"]["lost"].as_u64().unwrap()).collect()
}

fn total(server: &Server, video: &str, query: &str) -> u64 {
    let answer = server.client.stats(video, &format!("granularity=all&{query}")).expect(200);
    answer["total"].as_u64().unwrap()
}

#[test]
fn a_topic_that_was_made_anew_while_stopped_ends_it_with_the_loss() {
    for (what, records) in [("shorter", 10), ("empty", 0), ("longer, with the same records first", 40)] {
        let stage = Stage::new("anew");
        stage.count_and_stop(25);
        outside::delete_topic(&stage.place.kafka, &stage.place.topic);
        stage.create();
        stage.feed(&events(0..records));
        println!("{what}");
        stage.start_and_end().expect(65, &["the log was replaced", "the 100 records that it had read are lost"]);
    }
}

#[test]
fn a_topic_that_is_made_anew_while_running_ends_it_with_the_loss() {
    for records in [10, 0, 40] {
        let stage = Stage::new("anew");
        let server = stage.run().supervised(2).workers(1).start();
        stage.feed(&events(0..25));
        let visible = server.client.wait_until_visible(&[25; PARTITIONS as usize], SOON)["frontier"].as_u64();
        // The second start knows what had been read by then from a checkpoint alone.
        wait_for("a checkpoint with all of it", SOON, || {
            let last = server.client.status()["checkpoints"]["last"]["frontier"].as_u64();
            last.filter(|frontier| visible <= Some(*frontier))
        });
        outside::delete_topic(&stage.place.kafka, &stage.place.topic);
        stage.create();
        stage.feed(&events(0..records));
        let ended = server.wait_for_end(SOON);
        ended.expect(65, &["lost"]);
        println!("{}", ended.stderr.lines().filter(|line| line.contains("lost")).collect::<Vec<_>>().join("\n"));
        stage.start_and_end().expect(65, &["the log was replaced", "the 100 records that it had read are lost"]);
    }
}

#[test]
fn records_that_retention_took_unread_are_told_by_number() {
    let stage = Stage::new("retention");
    stage.count_and_stop(25);
    stage.feed(&events(25..50));
    // What was read may go.
    outside::delete_records(&stage.place.kafka, &stage.place.topic, 1, 25);
    outside::delete_records(&stage.place.kafka, &stage.place.topic, 2, 42);
    stage.start_and_end().expect(65, &["partition 2", "25", "42", "17"]);
}

#[test]
fn records_that_retention_took_unread_are_passed_over_as_told_and_the_windows_that_may_lack_them_are_named() {
    const MINUTE: u64 = 60_000;
    let stage = Stage::new("gap");
    let videos = video_of_each(PARTITIONS);
    let now = now_ms();
    // Each partition's clock stands at the minute before.
    let lines = |numbers: std::ops::Range<u64>, at: u64| -> Lines {
        let of = |video: &String| {
            numbers.clone().map(|number| event(&format!("e{number}"), video, "view", at).into_bytes()).collect()
        };
        videos.iter().map(of).collect()
    };
    let stamp = now - MINUTE;
    let server = stage.run().start();
    stage.feed(&lines(0..25, stamp));
    server.client.wait_until_visible(&[25; PARTITIONS as usize], SOON);
    server.stop();
    stage.feed(&lines(25..50, stamp));
    outside::delete_records(&stage.place.kafka, &stage.place.topic, 2, 42);
    outside::delete_records(&stage.place.kafka, &stage.place.topic, 3, 50);
    let marking = || stage.run().flag("--on-gap=mark");
    let server = marking().supervised(2).start();
    let seen = server.client.wait_until_visible(&[50; PARTITIONS as usize], SOON);
    assert_eq!(lost(&seen), [0, 0, 17, 25]);
    assert_eq!((&seen["ledger"]["lost"], &seen["ledger"]["read"]), (&json!(42), &json!(158)));
    let totals: Vec<u64> = videos.iter().map(|video| total(&server, video, "")).collect();
    assert_eq!(totals, [50, 50, 33, 25]);
    // Nothing follows in partition 3 yet: every window from the first that was open on may lack events.
    let minute = |time: u64| time / MINUTE * MINUTE;
    let from = minute(stamp - 600_000);
    let spans = |client: &Client, query: &str| client.stats(&videos[0], query).expect(200)["incomplete"].clone();
    let open = minute(now) + 100 * MINUTE;
    assert_eq!(spans(&server.client, &format!("end={open}")), json!([{"start": from, "end": open}]));
    server.stop();
    // The holes are in the checkpoint, and a record behind bounds the open one.
    stage.feed(&lines(50..51, stamp));
    let server = stage.run().start();
    let seen = server.client.wait_until_visible(&[51; PARTITIONS as usize], SOON);
    assert_eq!(lost(&seen), [0, 0, 17, 25]);
    let left = outside::read_topic(&stage.place.kafka, &stage.place.topic);
    let appended = left.records[3][0].append_time_ms.unwrap();
    let until = minute(appended + 300_000) + MINUTE;
    let whole = |query: &str| spans(&server.client, query);
    assert_eq!(whole(&format!("end={open}")), json!([{"start": from, "end": until}]));
    let (start, end) = (from + MINUTE, from + 3 * MINUTE);
    assert_eq!(whole(&format!("start={start}&end={end}")), json!([{"start": start, "end": end}]));
    assert_eq!(
        (whole(&format!("end={from}")), whole(&format!("start={until}"))),
        (Value::Null, Value::Null),
        "these lack nothing"
    );
    let top = server.client.get(&format!("/v1/top?start={from}&end={open}")).unwrap().expect(200);
    assert_eq!(top["incomplete"], json!([{"start": from, "end": until}]));
    server.stop();
}

#[test]
fn a_batch_that_cannot_be_read_ends_it_with_its_place_and_is_passed_over_as_told() {
    let stage = Stage::new("bomb");
    stage.feed(&events(0..5));
    // 3 MB in a few hundred bytes, where the client takes in 1.1.
    outside::produce_bomb(&stage.place.kafka, &stage.place.topic, 1, 3);
    stage.feed(&events(5..10));
    let limits = r#"{ "fetch.max.bytes" = "1000000", "message.max.bytes" = "1000000", "receive.message.max.bytes" = "1100000" }"#;
    let run = || stage.run().env("TIDEMARK_KAFKA__PROPERTIES", limits);
    run().start_and_end().expect(65, &["partition 1 is corrupt at offset 5", "--skip-batch"]);
    let server = run().flag("--skip-batch").flag("1:5").start();
    let seen = server.client.wait_until_visible(&[10, 13, 10, 10], SOON);
    assert_eq!(lost(&seen), [0, 3, 0, 0]);
    let totals: Vec<u64> = video_of_each(PARTITIONS).iter().map(|video| total(&server, video, "")).collect();
    assert_eq!(totals, [10; PARTITIONS as usize]);
    server.stop();
    let replay = |flags: &[&str]| {
        let (from, out) =
            (format!("kafka:{}", stage.place.topic), format!("tsv:{}", stage.folder.path().join("t").display()));
        let args = [&["replay", "--from", &from, "--out", &out], flags].concat();
        let brokers = ("TIDEMARK_KAFKA__BROKERS".to_owned(), stage.place.kafka.clone());
        tidemark_with(&args, &[brokers, ("TIDEMARK_KAFKA__PROPERTIES".to_owned(), limits.to_owned())])
    };
    replay(&[]).expect(65, &["partition 1 is corrupt at offset 5"]);
    let done = replay(&["--skip-batch", "1:5"]);
    assert!(done.stdout.contains("read 40 = counted 40") && done.stdout.contains("lost: 3 offsets"), "{done}");
}

#[test]
fn partitions_that_are_added_in_mid_stream_are_counted_without_a_restart() {
    const ROUNDS: u64 = 300;
    let stage = Stage::new("grown");
    let mut server = stage.run().supervised(2).workers(1).start();
    let pids = server.pids();
    let videos: Vec<String> = (0..40).map(|n| format!("v{n}")).collect();
    let start = now_ms() - 60_000;
    // A round has an event of each video, where a producer puts it that knows of so many partitions.
    let rounds = |numbers: std::ops::Range<u64>, partitions: u32| {
        let mut lines: Lines = vec![Vec::new(); partitions as usize];
        for number in numbers {
            for video in &videos {
                let line = event(&format!("e{number}"), video, "view", start + number * 100).into_bytes();
                lines[partition_of(video.as_bytes(), partitions) as usize].push(line);
            }
        }
        lines
    };
    stage.feed(&rounds(0..ROUNDS / 3, 4));
    outside::grow_topic(&stage.place.kafka, &stage.place.topic, 6);
    stage.feed(&rounds(ROUNDS / 3..ROUNDS / 3 * 2, 6));
    // Also repeats of what was counted in another partition.
    stage.feed(&rounds(ROUNDS / 6..ROUNDS, 6));
    let log = outside::read_topic(&stage.place.kafka, &stage.place.topic);
    assert!(log.ends.len() == 6 && log.ends.iter().all(|end| 0 < *end), "{:?}", log.ends);
    for client in &server.clients {
        client.wait_until_visible(&log.ends, SOON);
        for video in &videos {
            assert_eq!(client.stats(video, "granularity=all").expect(200)["total"], ROUNDS, "{video}");
        }
    }
    assert!(server.is_running());
    assert_eq!((server.starts().len(), server.pids()), (1, pids), "no restart");
    server.stop();
    assert_eq!(outside::rows(&stage.place).iter().map(|row| row.count).sum::<u64>(), ROUNDS * videos.len() as u64);
    assert_eq!(outside::letters(&stage.place), Vec::<Value>::new());

    let server = stage.run().start();
    assert_eq!(server.starts()[0].records_to_read, 0);
    assert_eq!(total(&server, "v0", ""), ROUNDS);
    server.stop();
}

/// Transactions of 5 records each, to partition 0 and 1 in turn; then one that stays open until a file is there.
const TRANSACTIONS: &str = r#"
import sys, json, os, time
from confluent_kafka import Producer
brokers, topic, marks, *videos = sys.argv[1:]
producer = Producer({'bootstrap.servers': brokers, 'transactional.id': topic})
producer.init_transactions(30)
def send(event_id, partition):
    event = {'event_id': event_id, 'video_id': videos[partition], 'event_type': 'view', 'timestamp': int(time.time() * 1000)}
    producer.produce(topic, json.dumps(event), videos[partition], partition)
for number in range(400):
    producer.begin_transaction()
    for n in range(5):
        send(f'{number}-{n}', number // 2 % 2)
    # librdkafka 2.12 may end a transaction that the broker has not heard of yet, and takes its answer for fatal.
    assert producer.flush(30) == 0
    if number % 2:
        producer.abort_transaction(30)
    else:
        producer.commit_transaction(30)
producer.begin_transaction()
send('open', 0)
assert producer.flush(30) == 0
open(marks + '/open', 'w').close()
until = time.monotonic() + 60
while not os.path.exists(marks + '/abort'):
    assert time.monotonic() < until
    time.sleep(0.01)
producer.abort_transaction(30)
"#;

#[test]
fn only_committed_transactions_count_and_an_open_one_holds_up_its_partition_alone() {
    let stage = Stage::new("transactions");
    let videos = video_of_each(PARTITIONS);
    let server = stage.run().start();
    let marks = stage.folder.path();
    thread::scope(|scope| {
        let arguments = [&stage.place.kafka, &stage.place.topic, marks.to_str().unwrap(), &videos[0], &videos[1]];
        let producing = scope.spawn(move || servers::python(TRANSACTIONS, arguments));
        wait_for("an open transaction", FED_WITHIN, || {
            assert!(!producing.is_finished() || marks.join("open").exists(), "it has failed");
            marks.join("open").exists().then_some(())
        });
        // Behind the open one in partition 0, and in another partition.
        let mut behind: Lines = vec![Vec::new(); PARTITIONS as usize];
        behind[0] = vec![event("behind", &videos[0], "view", now_ms()).into_bytes()];
        behind[1] = vec![event("beside", &videos[1], "view", now_ms()).into_bytes()];
        stage.feed(&behind);
        wait_for("what is beside it", SOON, || (total(&server, &videos[1], "") == 501).then_some(()));
        assert_eq!(total(&server, &videos[0], ""), 500, "nothing of an open transaction, nor behind it");
        fs::write(marks.join("abort"), "").unwrap();
        producing.join().expect("the producer does not fail");
    });
    let truth = KafkaTruth::of(&stage.place);
    assert_eq!(truth.log.records.iter().map(Vec::len).sum::<usize>(), 200 * 5 + 2);
    truth.assert_served(&server);
    assert_eq!([total(&server, &videos[0], ""), total(&server, &videos[1], "")], [501, 501]);
    server.stop();
    truth.assert_rows();
    // What is resumed lies behind control records and aborted ones.
    let server = stage.run().start();
    assert_eq!(server.starts()[0].records_to_read, 0);
    truth.assert_served(&server);
    server.stop();
}

#[test]
fn partitions_without_events_hold_nobody_up_and_come_back() {
    let stage = Stage::new("quiet");
    let videos = video_of_each(PARTITIONS);
    let server = stage.run().start();
    let now = now_ms();
    // Partition 0 goes on, 1 falls silent after this, 2 and 3 have nothing at all.
    server.client.send(&[event("first", &videos[1], "view", now - 300_000)]);
    let mut delays: Vec<Duration> = (0..20)
        .map(|number| {
            let sent = Instant::now();
            // Nine minutes of event time pass in partition 0.
            let token = server.client.send(&[event(
                &format!("e{number}"),
                &videos[0],
                "view",
                now - 600_000 + number * 27_000,
            )]);
            assert_eq!(total(&server, &videos[0], &format!("after={token}")), number + 1);
            sent.elapsed()
        })
        .collect();
    delays.sort_unstable();
    println!("visible after {:?} (median), {:?} (worst)", delays[10], delays[19]);
    assert!(delays[10] < IDLE_DELAY, "{delays:?}");
    let frontier = server.client.status()["frontier"].as_u64().unwrap();
    // By its own clock these are not late, though the frontier has passed them.
    let back = [event("back", &videos[1], "view", now - 290_000), event("late", &videos[1], "view", now - 901_000)];
    let token = server.client.send(&back);
    assert_eq!(total(&server, &videos[1], &format!("after={token}")), 2);
    assert!(frontier <= server.client.status()["frontier"].as_u64().unwrap(), "the frontier does not go back");
    let truth = KafkaTruth::of(&stage.place);
    truth.assert_served(&server);
    server.stop();
    truth.assert_rows();
    truth.assert_letters();
}

#[test]
fn a_plain_producers_offset_is_a_token() {
    let stage = Stage::new("token");
    let videos = video_of_each(PARTITIONS);
    let server = stage.run().supervised(2).workers(1).start();
    for number in 1..=10 {
        let mut lines: Lines = vec![Vec::new(); PARTITIONS as usize];
        lines[3] = vec![event(&format!("e{number}"), &videos[3], "view", now_ms()).into_bytes()];
        assert_eq!(count(&lines), 1);
        stage.feed(&lines);
        // It is at the offset before.
        let answer = server.clients[1].stats(&videos[3], &format!("granularity=all&after=3:{number}")).expect(200);
        assert_eq!(answer["total"], number);
    }
    server.stop();
}
