//! Servers that are away, slow or another's: the job says so, loses nothing, answers what it can, and goes on by itself; or it
//! ends with the code that says who has to do something.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;

use std::{
    path::Path,
    time::{Duration, Instant},
};

use live_support::{
    Run, SOON, Server,
    client::{Client, event, video_of_each},
    now_ms, resident_kib,
    traffic::PARTITIONS,
    wait_for,
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use server_support::{
    Place,
    feed::{Feed, Lines, count},
    outside,
    truth::KafkaTruth,
};
use servers::{Cassandra, Kafka, cqlsh};

/// A server's start, on a busy machine.
const RETURNED_WITHIN: Duration = Duration::from_secs(240);

/// By faults.md F9, a log that has not answered for so long makes the job unready.
const AWAY_AFTER: Duration = Duration::from_secs(10);

/// By faults.md F9, it goes on within this when the brokers are back.
const RESUMED_WITHIN: Duration = Duration::from_secs(15);

/// By the contract, from SIGTERM to the end.
const STOPPED_WITHIN: Duration = Duration::from_secs(10);

/// So many windows may wait in each process, at 64 bytes each.
const BUFFER: (&str, u64) = ("64KiB", 1024);

/// Long records behind a full buffer, in each partition, and the bytes of each.
const PADDED: u64 = 5_000;
const PAD: u64 = 8_000;

/// What four readers may hold, at 4 MiB and a fetch of 1 MiB each, and some more.
const HELD_KIB_MAX: u64 = (4 * (4 + 1 + 4)) << 10;

/// All events of a partition.
const END: u64 = 6_000 + PADDED + 100;

#[test]
fn while_the_broker_is_away_queries_are_answered_and_events_refused_and_it_goes_on_by_itself() {
    let mut kafka = Kafka::start();
    let place = Place::on(kafka.address(), &servers::shared_cassandra(), "away");
    let folder = tempfile::tempdir().unwrap();
    outside::create_topic(&place.kafka, &place.topic, PARTITIONS);
    let mut server = place.run(&folder.path().join("data")).supervised(2).workers(1).start();
    let send = |client: &Client, id: &str| client.send(&[event(id, "v", "view", now_ms())]);
    let token = send(&server.client, "before");
    server.clients[1].stats("v", &format!("after={token}")).expect(200);

    let mut counted = 1;
    type Act = fn(&mut Kafka);
    let away: [(&str, Act, Act); 2] =
        [("frozen", Kafka::stop_signal, Kafka::continue_signal), ("killed", Kafka::kill, Kafka::restart)];
    for (how, leave, come_back) in away {
        leave(&mut kafka);
        let left = Instant::now();
        let mut tried = 0;
        wait_for("every process is degraded", AWAY_AFTER + SOON, || {
            tried += 1;
            for (process, client) in server.clients.iter().enumerate() {
                // What is not acknowledged may still be counted, once.
                let body = event(&format!("{how}-{}", tried % 5), "refused", "view", now_ms());
                let answer = client.post("/v1/events", "application/json", body.as_bytes()).unwrap();
                assert_eq!(answer.status, 503, "{how}, process {process}: {}", answer.text);
                let total = client.stats("v", "granularity=all").expect(200)["total"].as_u64();
                assert_eq!(total, Some(counted), "the old frontier is served");
            }
            let is_degraded = |client: &Client| {
                let answer = client.get("/readyz").unwrap();
                answer.status == 503 && answer.text.contains("has not answered")
            };
            server.clients.iter().all(is_degraded).then_some(())
        });
        println!("{how}: degraded after {:?}, {tried} rounds of events were refused", left.elapsed());
        assert!(AWAY_AFTER - Duration::from_secs(2) <= left.elapsed(), "that was no more than a pause");
        come_back(&mut kafka);
        let back = Instant::now();
        wait_for("every process is ready", RESUMED_WITHIN, || {
            server.clients.iter().all(Client::is_ready).then_some(())
        });
        let token = wait_for("an event is taken", RESUMED_WITHIN, || {
            let body = event(how, "v", "view", now_ms());
            let answer = server.clients[1].post("/v1/events", "application/json", body.as_bytes()).unwrap();
            (answer.status == 202).then(|| answer.json["token"].as_str().unwrap().to_owned())
        });
        counted += 1;
        let answer = server.client.stats("v", &format!("granularity=all&after={token}")).expect(200);
        assert_eq!(answer["total"], counted);
        println!("{how}: goes on {:?} after its return", back.elapsed());
        assert!(back.elapsed() < RESUMED_WITHIN);
    }
    assert!(server.is_running());
    assert_eq!(server.starts().len(), 1, "no restart");
    let truth = KafkaTruth::of(&place);
    truth.assert_served(&server);
    server.stop();
    truth.assert_rows();
}

#[test]
fn while_cassandra_is_away_it_counts_until_the_buffer_is_full_and_it_stops_in_time_and_nothing_is_lost() {
    let mut cassandra = Cassandra::start();
    let place = Place::on(&servers::shared_kafka(), cassandra.address(), "buffer");
    let folder = tempfile::tempdir().unwrap();
    outside::create_topic(&place.kafka, &place.topic, PARTITIONS);
    let run = place.run(&folder.path().join("data")).env("TIDEMARK_SINK__BUFFER", BUFFER.0).workers(2);
    let server = run.start();
    let feed = |lines: &Lines| {
        let feed = Feed::new(&place.kafka, &place.topic, SOON);
        feed.during(lines, || feed.allow(u64::MAX));
    };
    // By the last of these checkpoints windows could leave memory, were there any that old: none has, so whoever asks for all
    // times does not need Cassandra. (Regression: they were told that it can't be read.)
    let mut newest = 0;
    for end in [10, 20, 30, 40, 50] {
        feed(&windows(end - 10..end));
        server.client.wait_until_visible(&[end; PARTITIONS as usize], SOON);
        newest = server.client.wait_for_checkpoint_after(newest);
    }

    cassandra.kill();
    // Far fewer windows than may wait: they are counted and served.
    feed(&windows(50..100));
    server.client.wait_until_visible(&[100; PARTITIONS as usize], SOON);
    wait_for("it says that it can't write", SOON, || {
        let answer = server.client.get("/readyz").unwrap();
        (answer.status == 503 && answer.text.contains("can't be written")).then_some(())
    });
    // Far more.
    let many = windows(100..6_000);
    feed(&many);
    let read = wait_for("reading has stopped", SOON, || {
        let before = read(&server);
        // As long as several batches take.
        std::thread::sleep(Duration::from_millis(1_500));
        (400 < before && before == read(&server)).then_some(before)
    });
    let all = 4 * 100 + count(&many);
    println!("{read} of {all} records are read while cassandra is away");
    assert!(read < all, "the lag stays");
    assert!(read < 400 + 2 * BUFFER.1, "no more than the buffer and what was under way");
    // What is asked of Cassandra in vain is a claim or rows.
    wait_for_bottleneck(&server, &["reading is paused"]);
    // What the readers hold is bounded, however much waits behind it.
    let before = resident_kib(server.pid());
    feed(&padded(6_000..6_000 + PADDED));
    let more = resident_kib(server.pid()).saturating_sub(before);
    println!("{} MiB more of resident memory with {} MiB more to read", more >> 10, (PADDED * 4 * PAD) >> 20);
    assert!(more < HELD_KIB_MAX, "{more} KiB more");
    let videos = video_of_each(PARTITIONS);
    for video in &videos {
        let total = server.client.stats(video, "granularity=all").expect(200)["total"].as_u64().unwrap();
        assert!(100 <= total, "queries are answered");
    }

    cassandra.restart();
    let back = Instant::now();
    server.client.wait_until_visible(&[6_000 + PADDED; PARTITIONS as usize], RETURNED_WITHIN);
    wait_for("it is ready", SOON, || server.client.is_ready().then_some(()));
    println!("all is read {:?} after its return", back.elapsed());

    cassandra.stop_signal();
    feed(&windows(END - 100..END));
    server.client.wait_until_visible(&[END; PARTITIONS as usize], SOON);
    // A frozen one says nothing, so nothing fails for a while.
    wait_for_bottleneck(&server, &["sink: ", "rows wait for Cassandra since"]);
    wait_for("a word in the log", SOON, || {
        server.stderr().contains("rows wait for the sink, which has not taken them yet").then_some(())
    });
    let told = Instant::now();
    server.stop();
    println!("it stopped in {:?} with rows that cassandra does not take", told.elapsed());
    assert!(told.elapsed() < STOPPED_WITHIN);
    cassandra.continue_signal();

    let server = run.start();
    server.client.wait_until_visible(&[END; PARTITIONS as usize], SOON);
    let truth = KafkaTruth::of(&place);
    truth.assert_served(&server);
    server.stop();
    truth.assert_rows();
}

/// Waits until the status names what holds the flow back, with all of these words.
#[track_caller]
fn wait_for_bottleneck(server: &Server, words: &[&str]) {
    wait_for("the bottleneck", SOON, || {
        let status = server.client.status();
        let named = status["bottleneck"].as_str().unwrap();
        words.iter().all(|word| named.contains(word)).then_some(())
    });
}

/// As [`windows`], each with so many bytes that no codec makes much smaller.
fn padded(numbers: std::ops::Range<u64>) -> Lines {
    let mut random = ChaCha8Rng::seed_from_u64(1);
    let mut pad = || (0..PAD).map(|_| random.random_range(b'a'..=b'z') as char).collect::<String>();
    let mut longer = |line: Vec<u8>| {
        let text = String::from_utf8(line).unwrap();
        format!("{},\"pad\":\"{}\"}}", text.strip_suffix('}').unwrap(), pad()).into_bytes()
    };
    windows(numbers).into_iter().map(|lines| lines.into_iter().map(&mut longer).collect()).collect()
}

/// Each event in a window of its own.
fn windows(numbers: std::ops::Range<u64>) -> Lines {
    let start = now_ms() - (END + 1_000) * 60_000;
    let of = |video: &String| {
        let at = |number: u64| event(&format!("e{number}"), video, "view", start + number * 60_000);
        numbers.clone().map(|number| at(number).into_bytes()).collect()
    };
    video_of_each(PARTITIONS).iter().map(of).collect()
}

/// How many records are visible.
fn read(server: &Server) -> u64 {
    server.client.status()["ledger"]["read"].as_u64().unwrap()
}

/// A job that has counted one event and was stopped.
fn counted_one(place: &Place, data_dir: &Path) -> Run {
    let run = place.run(data_dir);
    let server = run.start();
    let token = server.client.send(&[event("e", "v", "view", now_ms())]);
    server.client.stats("v", &format!("after={token}")).expect(200);
    server.stop();
    run
}

#[test]
fn a_keyspace_of_another_history_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let (first, second) = (Place::shared("history"), Place::shared("history"));
    counted_one(&first, &folder.path().join("first"));
    counted_one(&second, &folder.path().join("second"));
    let rows = outside::rows(&first);
    assert_eq!(rows.len(), 1);
    let strayed = Place { keyspace: first.keyspace.clone(), ..second };
    let run = strayed.run(&folder.path().join("second"));
    run.start_and_end().expect(75, &["another history", "keyspace"]);
    run.supervised(2).start_and_end().expect(75, &["another history", "keyspace"]);
    // Nor is one without checkpoints let in.
    strayed.run(&folder.path().join("third")).start_and_end().expect(66, &["no checkpoint that they belong to"]);
    assert_eq!(outside::rows(&first), rows);
}

#[test]
fn a_table_that_is_dropped_while_running_ends_it_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::shared("dropped");
    let server = place.run(&folder.path().join("data")).supervised(2).workers(1).start();
    server.client.send(&[event("e", "v", "view", now_ms())]);
    wait_for("its row", SOON, || (outside::rows(&place).len() == 1).then_some(()));
    cqlsh(&place.cassandra, &format!("DROP TABLE {}.stats_minute;", place.keyspace));
    server.client.send(&[event("f", "v", "view", now_ms())]);
    server.wait_for_end(SOON).expect(69, &["stats_minute", &place.keyspace]);
}

#[test]
fn a_table_that_was_dropped_while_stopped_is_not_made_anew_without_its_rows() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::shared("dropped");
    let run = counted_one(&place, &folder.path().join("data"));
    cqlsh(&place.cassandra, &format!("DROP TABLE {}.stats_minute;", place.keyspace));
    run.start_and_end().expect(69, &["stats_minute", &place.keyspace, "DROP TABLE"]);
    run.clone().supervised(2).start_and_end().expect(69, &["stats_minute", &place.keyspace]);
    // As it says.
    cqlsh(&place.cassandra, &format!("DROP TABLE {}.claim;", place.keyspace));
    run.start().stop();
    assert_eq!(outside::rows(&place).len(), 1);
}
