//! That the servers are what the other tests take them for.

use std::net::TcpStream;

use servers::{Cassandra, Kafka, console_consumer, console_producer, cqlsh, create_topic, python, tool};

#[test]
fn kafka_keeps_what_it_acknowledged_and_its_address_when_it_is_killed() {
    let mut kafka = Kafka::start();
    let address = kafka.address().to_owned();
    create_topic(&address, "killed", 1);
    console_producer(&address, "killed", "first\nsecond\nthird\n");

    kafka.kill();
    assert!(TcpStream::connect(&address).is_err(), "it was killed and answers");

    kafka.restart();
    assert_eq!(kafka.address(), address);
    assert_eq!(console_consumer(&address, "killed", 3), "first\nsecond\nthird\n");
    let offsets = tool("kafka-get-offsets", ["--bootstrap-server", &address, "--topic", "killed"], "");
    assert_eq!(offsets, "killed:0:3\n");
}

#[test]
fn cassandra_keeps_what_it_acknowledged_and_its_address_when_it_is_killed() {
    let mut cassandra = Cassandra::start();
    let address = cassandra.address().to_owned();
    cqlsh(
        &address,
        "CREATE KEYSPACE killed WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1};
         CREATE TABLE killed.rows (name text PRIMARY KEY, count bigint);
         INSERT INTO killed.rows (name, count) VALUES ('first', 42);",
    );

    cassandra.kill();
    assert!(TcpStream::connect(&address).is_err(), "it was killed and answers");

    cassandra.restart();
    assert_eq!(cassandra.address(), address);
    let rows = cqlsh(&address, "SELECT name, count FROM killed.rows;");
    assert!(rows.contains("first |    42") && rows.contains("(1 rows)"), "{rows}");
}

#[test]
fn a_frozen_kafka_does_not_answer_until_it_goes_on() {
    let mut kafka = Kafka::start();
    // An error unless the metadata come within 2 s.
    let asks = "
import sys
from confluent_kafka.admin import AdminClient
from confluent_kafka import KafkaException
try:
    print(len(AdminClient({'bootstrap.servers': sys.argv[1]}).list_topics(timeout=float(sys.argv[2])).brokers))
except KafkaException as error:
    print(error.args[0].name())
";
    let address = kafka.address().to_owned();
    kafka.stop_signal();
    assert_eq!(python(asks, [&address, "2"]), "_TRANSPORT\n");
    kafka.continue_signal();
    assert_eq!(python(asks, [&address, "30"]), "1\n");
}

#[test]
fn a_cassandra_with_a_password_lets_nobody_in_without_it() {
    let cassandra = Cassandra::start_with_password();
    let asks = "
import sys
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import Cluster, NoHostAvailable
host, port = sys.argv[1].split(':')
for auth in None, PlainTextAuthProvider('cassandra', 'wrong'), PlainTextAuthProvider('cassandra', 'cassandra'):
    try:
        print(Cluster([host], port=int(port), auth_provider=auth).connect().execute('SELECT cql_version FROM system.local').one()[0])
    except NoHostAvailable as error:
        print(type(next(iter(error.errors.values()))).__name__)
";
    assert_eq!(python(asks, [cassandra.address()]), "AuthenticationFailed\nAuthenticationFailed\n3.4.7\n");
}

#[test]
fn the_servers_for_all_tests_are_there() {
    for address in [servers::shared_kafka(), servers::shared_cassandra()] {
        TcpStream::connect(&address).unwrap_or_else(|error| panic!("{address}: {error}"));
    }
}

#[test]
#[should_panic(expected = "there is no command kafka-no-such-tool")]
fn a_failure_tells_what_the_command_said() {
    tool("kafka-no-such-tool", ["--help"], "");
}
