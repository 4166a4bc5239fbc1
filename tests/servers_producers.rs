//! Every producer of README.md's section "On Kafka and Cassandra" feeds one job, by the commands that stand there: each event
//! counts once, wherever it is looked for.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use live_support::{Run, SOON, TIDEMARK, client::event, now_ms, tidemark_with, wait_for};
use server_support::{Place, outside, truth::KafkaTruth};

const SECTION: &str = "### On Kafka and Cassandra";

/// As config/cluster.toml has it.
const RELEASE: &str = "quiet = \"release\"";

/// Producers in Java take a while to start.
const VISIBLE_WITHIN: Duration = Duration::from_secs(60);

/// README.md's words with this test's addresses and names.
struct Readme {
    text: String,
    names: Vec<(String, String)>,
}

impl Readme {
    fn for_place(place: &Place, port: u16, config: &Path) -> Self {
        let cassandra = place.cassandra.replace(':', " ");
        let names = [
            ("config/cluster.toml", config.to_str().unwrap()),
            ("127.0.0.1:9092", &place.kafka),
            ("127.0.0.1:9042", &place.cassandra),
            ("127.0.0.1 9042", &cassandra),
            ("127.0.0.1:7071", &format!("127.0.0.1:{}", port + 1)),
            ("video-events", &place.topic),
            ("tidemark.stats_minute", &format!("{}.stats_minute", place.keyspace)),
            ("keyspace = \"tidemark\"", &format!("keyspace = {:?}", place.keyspace)),
            ("tidemark query v1", &format!("tidemark query v1 --url http://127.0.0.1:{port}")),
        ];
        let text = fs::read_to_string(root().join("README.md")).unwrap();
        Self { text, names: names.map(|(from, to)| (from.to_owned(), to.to_owned())).to_vec() }
    }

    fn adapt(&self, text: &str) -> String {
        self.names.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
    }

    /// The block of the section in this language that says this.
    #[track_caller]
    fn block(&self, language: &str, says: &str) -> String {
        let (_, behind) = self.text.split_once(SECTION).expect("there is the section");
        let section = behind.split("\n### ").next().unwrap();
        let opens = format!("```{language}\n");
        let blocks = section.split(&opens).skip(1).map(|block| block.split("```").next().unwrap());
        let found: Vec<&str> = blocks.filter(|block| block.contains(says)).collect();
        assert_eq!(found.len(), 1, "one block of {language} says {says:?}");
        self.adapt(found[0])
    }
}

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Runs commands as somebody who has read README.md does, and gives what they print.
#[track_caller]
fn shell(commands: &str) -> String {
    let path = format!("{}:{}", Path::new(TIDEMARK).parent().unwrap().display(), std::env::var("PATH").unwrap());
    let mut bash = Command::new("timeout");
    bash.args(["180", "bash", "-euo", "pipefail", "-c", commands]).current_dir(root()).env("PATH", path);
    let output = bash.output().unwrap();
    let [stdout, stderr] = [&output.stdout, &output.stderr].map(|bytes| String::from_utf8_lossy(bytes));
    assert!(output.status.success(), "{commands}\n{}\n--- stdout\n{stdout}\n--- stderr\n{stderr}", output.status);
    stdout.into_owned()
}

#[test]
fn every_producer_of_the_readme_feeds_one_job() {
    let folder = tempfile::tempdir().unwrap();
    let place = Place::shared("readme");
    let config = folder.path().join("cluster.toml");
    let run = Run::new(&folder.path().join("data")).supervised(2).workers(2).flag("--config");
    let run = run.flag(config.to_str().unwrap());
    let readme = Readme::for_place(&place, run.port, &config);
    // The oracle's watermark is a function of the logs alone.
    let cluster = fs::read_to_string(root().join("config/cluster.toml")).unwrap();
    assert!(cluster.contains(RELEASE), "{cluster}");
    fs::write(&config, readme.adapt(&cluster.replace(RELEASE, "quiet = \"hold\""))).unwrap();
    assert!(readme.block("sh", "tidemark cluster").contains("--processes 2 --workers 2"), "as here");

    let server = run.start();
    let said = shell(&readme.block("sh", "kcat -P"));
    assert!(said.contains("\"accepted\":1"), "the answer to curl: {said}");
    servers::python(&readme.block("python", "Producer"), [""; 0]);
    java(folder.path(), &readme.block("java", "KafkaProducer"));
    server.client.send(&[event("f", "v1", "view", now_ms())]);
    // And each of them once more: repeats.
    servers::python(&readme.block("python", "Producer"), [""; 0]);
    server.client.send(&[event("f", "v1", "view", now_ms())]);

    let truth = KafkaTruth::of(&place);
    let ids: Vec<&str> = vec!["a", "b", "c", "d", "e", "f"];
    for client in &server.clients {
        client.wait_until_visible(&truth.log.ends, VISIBLE_WITHIN);
        let answer = client.stats("v1", "granularity=all").expect(200);
        assert_eq!(answer["total"], ids.len());
    }
    truth.truth.assert_index(&server.client);
    let counted: u64 = truth.truth.outcome.ledger.iter().map(|ledger| ledger.counted).sum();
    assert_eq!(counted, 100_000 + ids.len() as u64, "each event counts once, whatever was repeated");

    let asked = readme.block("sh", "tidemark query v1");
    let (query, cqlsh) = asked.split_once('\n').unwrap();
    let table = shell(query);
    println!("{table}");
    assert!(table.contains("total") || table.contains('6'), "{table}");
    let rows = wait_for("the rows in cassandra", SOON, || {
        let rows = shell(cqlsh);
        (counts(&rows).iter().sum::<u64>() == ids.len() as u64).then_some(rows)
    });
    println!("{rows}");
    server.stop();
    truth.assert_rows();
    truth.assert_letters();

    // What the section on replays says of both.
    let recomputed = Place { keyspace: format!("{}_again", place.keyspace), ..place.clone() };
    let (from, to) = (format!("kafka:{}", place.topic), format!("cassandra:{}", recomputed.keyspace));
    let config = config.to_str().unwrap();
    tidemark_with(&["replay", "--from", &from, "--out", &to, "--config", config], &[]).expect(0, &[]);
    truth.assert_rows_in(&recomputed);
    assert_eq!(outside::rows(&place).len(), outside::rows(&recomputed).len());
}

/// The counts in a table that `cqlsh` prints.
fn counts(printed: &str) -> Vec<u64> {
    let rows = printed.lines().filter(|line| line.contains('|'));
    rows.filter_map(|line| line.split('|').nth(1)?.trim().parse().ok()).collect()
}

/// Runs statements by Java, with Kafka's classes.
fn java(folder: &Path, statements: &str) {
    let file = folder.join("Send.java");
    let class =
        format!("class Send {{ public static void main(String[] none) throws Exception {{\n{statements}\n}} }}\n");
    fs::write(&file, class).unwrap();
    servers::tool("java", [file.to_str().unwrap()], "");
}
