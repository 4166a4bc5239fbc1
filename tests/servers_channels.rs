//! Names and channels on real servers: from a compacted topic that anybody writes to, into answers and tables.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;

use live_support::{
    SOON,
    client::{Client, event},
    now_ms, wait_for,
};
use server_support::{Place, outside};

/// Sends records `key=value`, and `key` alone to take one back.
const SEND: &str = r#"
import sys
from confluent_kafka import Producer
producer = Producer({'bootstrap.servers': sys.argv[1], 'acks': 'all'})
for record in sys.argv[3:]:
    key, _, value = record.partition('=')
    producer.produce(sys.argv[2], key=key, value=value or None)
assert producer.flush(30) == 0
"#;

const POLICY: &str = r#"
import sys
from confluent_kafka.admin import AdminClient, ConfigResource, ResourceType
resource = ConfigResource(ResourceType.TOPIC, sys.argv[2])
admin = AdminClient({'bootstrap.servers': sys.argv[1]})
print(admin.describe_configs([resource])[resource].result(30)['cleanup.policy'].value)
"#;

#[track_caller]
fn wait_for_total(client: &Client, channel: &str, wanted: u64) {
    wait_for("the channel's total", SOON, || {
        let answer = client.get(&format!("/v1/channels/{channel}/stats?granularity=all")).unwrap().expect(200);
        (answer["total"] == wanted).then_some(())
    });
}

fn views(video: &str, count: u32) -> Vec<String> {
    (0..count).map(|n| event(&format!("{video}-{n}"), video, "view", now_ms())).collect()
}

#[test]
fn names_come_from_a_compacted_topic_and_go_into_answers_and_tables() {
    let place = Place::shared("names");
    let names = format!("{}.names", place.topic);
    let folder = tempfile::tempdir().unwrap();
    outside::create_topic(&place.kafka, &place.topic, 2);
    let run = place.run(&folder.path().join("data")).env("TIDEMARK_KAFKA__DIMENSIONS_TOPIC", &names);
    let run = run.supervised(2).workers(1);
    let send = |records: &[&str]| {
        servers::python(SEND, [&[place.kafka.as_str(), names.as_str()][..], records].concat());
    };
    let server = run.start();
    assert_eq!(servers::python(POLICY, [&place.kafka, &names]).trim(), "compact");
    send(&[
        r#"video:v1={"video_id":"v1","name":"A cat","channel_id":"c1"}"#,
        "video:v1=what is this?",
        r#"video:v3={"video_id":"v3","channel_id":"c1"}"#,
        r#"channel:c1={"channel_id":"c1","name":"Cats"}"#,
    ]);
    let body = br#"{"video_id":"v2","channel_id":"c1"}"#;
    server.clients[1].post("/v1/dimensions", "application/json", body).unwrap().expect(202);
    server.clients[1].send(&[views("v1", 3), views("v2", 4), views("v3", 5)].concat());
    for client in &server.clients {
        wait_for_total(client, "c1", 12);
        assert_eq!(client.stats("v1", "").expect(200)["channel_name"], "Cats");
    }
    send(&["video:v3"]);
    for client in &server.clients {
        wait_for_total(client, "c1", 7);
    }
    assert!(server.stderr().contains("a record of names is passed over"), "{}", server.stderr());

    // The tables have it with the rows that are written from then on.
    server.client.send(&[event("more", "v1", "view", now_ms())]);
    let columns = "video_name, channel_id, channel_name";
    let row = wait_for("the names in cassandra", SOON, || {
        let asked = format!(
            "SELECT {columns} FROM \"{}\".stats_day WHERE video_id = 'v1' AND event_type = 'view';",
            place.keyspace
        );
        let told = servers::cqlsh(&place.cassandra, &asked);
        told.contains("A cat").then_some(told)
    });
    assert!(row.contains("c1") && row.contains("Cats"), "{row}");
    server.stop();

    let server = run.workers(2).start();
    for client in &server.clients {
        wait_for_total(client, "c1", 8);
        wait_for("the name", SOON, || (client.stats("v1", "").json["video_name"] == "A cat").then_some(()));
    }
    server.stop();
}
