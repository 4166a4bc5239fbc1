//! A bad network before a server: connections that are slow, reset, half-closed and silent, in turn, while events flow. The
//! job goes on by itself, without a restart, and in the end rows, index, ledgers and dead letters equal the oracle.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;

use std::time::Duration;

use live_support::{
    Server,
    client::event,
    now_ms,
    traffic::{LENGTH_MS, PARTITIONS},
    wait_for,
};
use oracle::{Jumps, Spec, hostile};
use server_support::{
    Place,
    feed::{self, Feed},
    outside,
    truth::KafkaTruth,
};
use servers::{Harm, Kafka, Proxy};

const SEED: u64 = 20_261_125;
const EVENTS: u64 = 12_000;

/// For a client that backs off, and what a timeout of the driver takes.
const WITHIN: Duration = Duration::from_secs(120);

/// A harm, how often it is to be met, and what the status then says of the flow; nothing where it may go on meanwhile.
type Bad<'a> = (Harm, u64, Option<&'a str>);

/// A job whose way to one of its servers is bad.
struct Stage<'a> {
    folder: tempfile::TempDir,
    place: Place,
    /// Where producers find the brokers.
    kafka: &'a str,
    proxy: &'a Proxy,
}

impl Stage<'_> {
    /// Feeds a hostile stream while one harm after the other is there and goes, and compares what comes of it.
    fn check(&self, harms: &[Bad<'_>], meanwhile: impl Fn(&Server, usize)) {
        let start_ms = now_ms() - LENGTH_MS;
        let spec = Spec {
            events: EVENTS,
            partitions: PARTITIONS as usize,
            videos: 100,
            start_ms,
            jumps: Jumps::Some,
            ..Spec::default()
        };
        let lines = hostile(SEED, &spec);
        let total = feed::count(&lines);
        outside::create_topic(self.kafka, &self.place.topic, PARTITIONS);
        let mut server = self.place.run(&self.folder.path().join("data")).start();
        let feed = Feed::new(self.kafka, &self.place.topic, WITHIN);
        feed.during(&lines, || {
            for (number, (harm, often, says)) in (0_u64..).zip(harms) {
                let stage = |third: u64| total * (3 * number + third) / (3 * harms.len() as u64);
                let met = self.proxy.met();
                println!("{harm:?} from {} on", stage(0));
                feed.allow(stage(1));
                feed.wait_for(stage(1));
                self.proxy.set(harm.clone());
                feed.allow(stage(2));
                wait_for("the harm is met", WITHIN, || {
                    // Something is always under way.
                    meanwhile(&server, number as usize);
                    (met + often <= self.proxy.met()).then_some(())
                });
                if let Some(text) = says {
                    wait_for("the status names it", WITHIN, || {
                        let status = server.client.status();
                        status["bottleneck"].as_str().unwrap().contains(text).then_some(())
                    });
                }
                self.proxy.set(Harm::None);
                let newest = server.client.checkpoint().unwrap_or(0);
                feed.allow(stage(3));
                wait_for("a checkpoint after it", WITHIN, || {
                    meanwhile(&server, number as usize);
                    server.client.checkpoint().filter(|number| newest < *number)
                });
            }
        });
        assert!(server.is_running());
        assert_eq!(server.starts().len(), 1, "no restart");
        let truth = KafkaTruth::of(&self.place);
        truth.assert_status(&server.client, WITHIN);
        truth.assert_served(&server);
        server.stop();
        truth.assert_rows();
        truth.assert_letters();
    }
}

fn slow() -> Harm {
    Harm::Delay { requests_ms: 0..40, answers_ms: 20..120 }
}

#[test]
fn a_bad_network_before_cassandra_costs_time_and_no_row() {
    let proxy = Proxy::to(&servers::shared_cassandra(), SEED);
    let kafka = servers::shared_kafka();
    let place = Place::on(&kafka, proxy.address(), "proxied");
    let stage = Stage { folder: tempfile::tempdir().unwrap(), place, kafka: &kafka, proxy: &proxy };
    let harms = [
        (slow(), 40, None),
        (Harm::Reset { after_bytes: 1..3_000 }, 2, None),
        (Harm::HalfClose, 1, Some("rows wait for Cassandra")),
        (Harm::Hold, 1, Some("rows wait for Cassandra")),
    ];
    stage.check(&harms, |_, _| {});
}

#[test]
fn a_bad_network_before_kafka_costs_time_and_no_record() {
    let proxy = Proxy::start(SEED);
    let kafka = Kafka::start_behind(&proxy);
    let place = Place::on(proxy.address(), &servers::shared_cassandra(), "proxied");
    let stage = Stage { folder: tempfile::tempdir().unwrap(), place, kafka: kafka.address(), proxy: &proxy };
    let harms = [
        (slow(), 40, None),
        (Harm::Reset { after_bytes: 1..20_000 }, 8, None),
        (Harm::HalfClose, 8, Some("has not answered")),
        (Harm::Hold, 1, Some("has not answered")),
    ];
    let acknowledged = std::cell::RefCell::new(std::collections::BTreeSet::new());
    stage.check(&harms, |server, number| {
        // Through the door as well; of what is not acknowledged nothing is promised.
        let id = format!("posted-{number}");
        let body = event(&id, "posted", "view", now_ms());
        let answer = server.client.post("/v1/events", "application/json", body.as_bytes()).unwrap();
        assert!([202, 429, 503].contains(&answer.status), "{}", answer.text);
        if answer.status == 202 {
            acknowledged.borrow_mut().insert(id);
        }
    });
    let log = outside::read_topic(kafka.address(), &stage.place.topic);
    let is_there = |id: &String| {
        let id = format!("\"{id}\"");
        log.records.iter().flatten().any(|record| String::from_utf8_lossy(&record.payload).contains(&id))
    };
    let acknowledged = acknowledged.into_inner();
    println!("acknowledged by the door: {acknowledged:?}");
    assert!(!acknowledged.is_empty() && acknowledged.iter().all(is_there));
}
