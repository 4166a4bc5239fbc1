//! Windows that leave memory for Cassandra: every process answers any range as before, of one video and in top lists, also after a
//! kill and on other workers, and the tables of days are what their minutes come to.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;

use live_support::{
    SOON, Server,
    ranges::{BEGIN, MINUTE, check_any_range, hot_start, let_leave, send},
    tops::check_any_top,
    wait_for,
};
use rustix::process::{Signal, kill_process};
use server_support::{Place, outside};

/// Minutes from event to event.
const EVERY: u64 = 7;
const DAY_MINUTES: u64 = 24 * 60;

fn check(server: &Server, sent: u64) {
    for client in &server.clients {
        wait_for("all is visible", SOON, || (client.stats("v", "").expect(200)["total"] == sent).then_some(()));
        check_any_range(client, sent, EVERY);
        check_any_top(client, sent, EVERY, false);
    }
}

#[test]
fn windows_that_have_left_memory_are_answered_from_cassandra() {
    let place = Place::shared("cold");
    let folder = tempfile::tempdir().unwrap();
    outside::create_topic(&place.kafka, &place.topic, 1);
    let settings = [("TIDEMARK_TIME__LATENESS", "1m"), ("TIDEMARK_INDEX__AS_OF", "1m"), ("TIDEMARK_INDEX__HOT", "3m")];
    let run = place.run(&folder.path().join("data")).checkpoints_every("200ms");
    let run = settings.into_iter().fold(run, |run, (name, value)| run.env(name, value));
    let run = run.supervised(2).workers(1);
    let mut server = run.start();
    // Two days and a bit.
    let first = 2 * DAY_MINUTES / EVERY;
    send(&server.client, 0..first, EVERY);
    let sent = let_leave(&server.client, first, EVERY, first);
    let is_whole_days = |server: &Server| {
        let hot = hot_start(&server.clients[1]);
        assert!(hot == BEGIN + 2 * DAY_MINUTES * MINUTE, "days leave as a whole: {hot}");
    };
    is_whole_days(&server);
    check(&server, sent);

    let starts = server.starts().len();
    kill_process(server.pids()[1], Signal::KILL).unwrap();
    server.wait_for_start_after(starts);
    check(&server, sent);
    send(&server.client, sent..sent + 1, EVERY);
    server.stop();

    let server = run.workers(3).start();
    check(&server, sent + 1);
    is_whole_days(&server);
    server.stop();

    let asked = format!(
        "SELECT count, sum, distinct_users FROM \"{}\".stats_day WHERE video_id = 'v' AND event_type = 'view';",
        place.keyspace
    );
    let days: Vec<Vec<f64>> = servers::cqlsh(&place.cassandra, &asked)
        .lines()
        .map(|line| line.split('|').filter_map(|column| column.trim().parse().ok()).collect())
        .filter(|numbers: &Vec<f64>| numbers.len() == 3)
        .collect();
    let day = |number: u64| number * EVERY / DAY_MINUTES;
    let numbers = |of: u64| (0..=sent).filter(move |number| day(*number) == of).collect::<Vec<_>>();
    let naive = |numbers: Vec<u64>| {
        let sum = numbers.iter().map(|number| *number as f64 / 8.0).sum();
        vec![numbers.len() as f64, sum, numbers.len().min(7) as f64]
    };
    let expected: Vec<_> = (0..=day(sent)).map(|day| naive(numbers(day))).collect();
    assert_eq!(days, expected);
}
