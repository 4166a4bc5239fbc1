//! Real Kafka, Cassandra and S3 for tests, through `scripts/services`.
//!
//! Most tests use the one server that `scripts/test` has started, under names of their own ([`shared_kafka`],
//! [`shared_cassandra`]). A test that kills or freezes a server has one to itself ([`Kafka`], [`Cassandra`]), which takes some
//! seconds to start and a gigabyte of memory; an [`S3`] is small, so each test has its own. A [`Proxy`] before one of them is a bad
//! network. What goes in and out by a third hand goes through [`tool`] and [`python`].
//!
//! Everything here panics with what was run and what it said: a server that is not there is a failed test.

mod command;
mod proxy;
mod s3;
mod wire;

use std::{fs, path::Path, process};

use tempfile::TempDir;

pub use command::{python, python_each, tool};
pub use proxy::{Harm, Proxy};
pub use s3::S3;
pub use wire::{Answers, Wire};

/// The address of the Kafka that is there for all tests. Topics are to have names that no other test uses.
#[track_caller]
pub fn shared_kafka() -> String {
    shared("TIDEMARK_TEST_KAFKA")
}

/// The address of the Cassandra that is there for all tests. Keyspaces are to have names that no other test uses.
#[track_caller]
pub fn shared_cassandra() -> String {
    shared("TIDEMARK_TEST_CASSANDRA")
}

#[track_caller]
fn shared(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set; run the tests by scripts/test, which starts the servers"))
}

/// Creates a topic by Kafka's own tool.
#[track_caller]
pub fn create_topic(address: &str, topic: &str, partitions: u32) {
    let partitions = partitions.to_string();
    let arguments = ["--bootstrap-server", address, "--create", "--topic", topic, "--partitions", &partitions];
    tool("kafka-topics", arguments, "");
}

/// Sends lines, each a record without a key, by Kafka's own producer; returns when all are acknowledged.
#[track_caller]
pub fn console_producer(address: &str, topic: &str, lines: &str) {
    tool("kafka-console-producer", ["--bootstrap-server", address, "--topic", topic], lines);
}

/// The values of the first records of all partitions, a line each, by Kafka's own consumer. Fewer are a failure.
#[track_caller]
pub fn console_consumer(address: &str, topic: &str, records: usize) -> String {
    let count = records.to_string();
    let arguments = ["--bootstrap-server", address, "--topic", topic, "--from-beginning", "--max-messages", &count];
    // It ends before the command would, and then with what it has read.
    let read = tool("kafka-console-consumer", arguments.into_iter().chain(["--timeout-ms", "60000"]), "");
    assert_eq!(read.lines().count(), records, "the topic {topic} has another number of records:\n{read}");
    read
}

/// Runs CQL statements by `cqlsh` and returns what it prints, which is meant for people.
#[track_caller]
pub fn cqlsh(address: &str, statements: &str) -> String {
    let (host, port) = address.split_once(':').expect("an address has a port");
    tool("cqlsh", [host, port], statements)
}

/// A Kafka of one's own, on a free port. It is killed when dropped, and when the test's process ends in any other way.
pub struct Kafka(Server);

/// A Cassandra of one's own, on a free port. It is killed when dropped, and when the test's process ends in any other way.
pub struct Cassandra(Server);

/// What both have; `$start` is what `scripts/services start` is given the first time.
macro_rules! server {
    ($name:ident, $server:literal) => {
        impl $name {
            /// Starts it, and waits until it answers.
            #[track_caller]
            pub fn start() -> Self {
                Self(Server::start($server, &[]))
            }

            /// Host and port; a restart keeps them.
            pub fn address(&self) -> &str {
                &self.0.address
            }

            /// The folder with its data and its log.
            pub fn folder(&self) -> &Path {
                self.0.folder.path()
            }

            /// Ends it by SIGKILL, and waits until it is gone.
            #[track_caller]
            pub fn kill(&mut self) {
                self.0.signal("KILL");
            }

            /// Freezes it by SIGSTOP: its connections stay open, and nobody answers.
            #[track_caller]
            pub fn stop_signal(&mut self) {
                self.0.signal("STOP");
            }

            /// Lets it go on after [`Self::stop_signal`].
            #[track_caller]
            pub fn continue_signal(&mut self) {
                self.0.signal("CONT");
            }

            /// Starts it again with its data and its address, after it was killed.
            #[track_caller]
            pub fn restart(&mut self) {
                self.0.launch(&[]);
            }
        }
    };
}

server!(Kafka, "kafka");
server!(Cassandra, "cassandra");

impl Kafka {
    /// One that has a second address, which clients are told to be the proxy's; and is behind that.
    #[track_caller]
    pub fn start_behind(proxy: &Proxy) -> Self {
        let (_, port) = proxy.address().split_once(':').expect("an address has a port");
        let kafka = Self(Server::start("kafka", &["--proxy", port]));
        let notes = fs::read_to_string(kafka.folder().join("kafka.env")).expect("a server that was started has notes");
        let port = notes.lines().find_map(|line| line.strip_prefix("proxied_port="));
        proxy.pass_on_to(&format!("127.0.0.1:{}", port.expect("it was asked for")));
        kafka
    }
}

impl Cassandra {
    /// One that wants the user `cassandra` with the password `cassandra`.
    #[track_caller]
    pub fn start_with_password() -> Self {
        Self(Server::start("cassandra", &["--auth"]))
    }
}

struct Server {
    name: &'static str,
    folder: TempDir,
    address: String,
}

impl Server {
    #[track_caller]
    fn start(name: &'static str, options: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let mut server = Self { name, folder, address: String::new() };
        server.launch(&[&["--port", "0"], options].concat());
        server
    }

    #[track_caller]
    fn launch(&mut self, options: &[&str]) {
        let owner = process::id().to_string();
        let arguments = [&[self.name, "--dir", self.folder(), "--owner", &owner], options].concat();
        let said = tool("start", arguments, "");
        let address =
            said.split(' ').nth(1).unwrap_or_else(|| panic!("scripts/services start {} said {said:?}", self.name));
        self.address = address.to_owned();
    }

    #[track_caller]
    fn signal(&self, signal: &str) {
        tool("signal", [self.name, signal, "--dir", self.folder()], "");
    }

    fn folder(&self) -> &str {
        self.folder.path().to_str().expect("temporary folders have names in UTF-8")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // A panic while another unwinds would abort the process, and hide the first.
        let arguments = ["signal", self.name, "KILL", "--dir", self.folder()];
        if let Err(fault) = command::run(command::services(arguments), "") {
            eprintln!("{fault}");
        }
    }
}
