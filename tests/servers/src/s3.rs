//! An S3 of one's own.

use std::{
    fs::File,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    process::{Child, Command, Stdio},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::command::root;

/// An S3 on a free port: moto's server, with a bucket. It is killed when dropped, and ends when the test's process does.
pub struct S3 {
    folder: TempDir,
    address: String,
    child: Child,
}

impl S3 {
    /// The bucket that is there.
    pub const BUCKET: &str = "tidemark";

    /// Starts it, and waits until it answers.
    #[track_caller]
    pub fn start() -> Self {
        let folder = tempfile::tempdir().expect("the temporary folder can be written");
        let (child, address) = launch(&folder, "0");
        let server = Self { folder, address, child };
        let created = server.put(&format!("/{}", Self::BUCKET));
        assert!(created.starts_with("HTTP/1.1 200 "), "no bucket can be created: {created}");
        server
    }

    /// Host and port; a restart keeps them.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The environment of a client of it.
    pub fn environment(&self) -> Vec<(String, String)> {
        environment(&self.address)
    }

    /// Ends it by SIGKILL, and waits until it is gone.
    #[track_caller]
    pub fn kill(&mut self) {
        self.child.kill().expect("our own child can be killed");
        self.child.wait().expect("our own child can be waited for");
    }

    /// Starts it again with its small objects and its address, after it was killed.
    #[track_caller]
    pub fn restart(&mut self) {
        let (_, port) = self.address.split_once(':').expect("an address has a port");
        (self.child, _) = launch(&self.folder, port);
    }

    /// Freezes it by SIGSTOP: its connections stay open, and nobody answers.
    #[track_caller]
    pub fn stop_signal(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets it go on after [`Self::stop_signal`].
    #[track_caller]
    pub fn continue_signal(&self) {
        self.signal(Signal::CONT);
    }

    #[track_caller]
    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).expect("our own child takes signals");
    }

    /// A PUT without a body, and its whole answer.
    #[track_caller]
    fn put(&self, path: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("it has said that it answers");
        let request =
            format!("PUT {path} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", self.address);
        stream.write_all(request.as_bytes()).expect("it takes a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("it answers");
        answer
    }
}

/// The environment of a client of an S3 at this address.
pub(crate) fn environment(address: &str) -> Vec<(String, String)> {
    let variables = [
        ("AWS_ACCESS_KEY_ID", "tests"),
        ("AWS_SECRET_ACCESS_KEY", "no-secret-but-a-word-to-look-for"),
        ("AWS_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", &format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true"),
    ];
    variables.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
}

#[track_caller]
fn launch(folder: &TempDir, port: &str) -> (Child, String) {
    let log = folder.path().join("log");
    let stderr = File::options().create(true).append(true).open(&log).expect("the temporary folder can be written");
    // It execs Python, so the child is the server.
    let mut child = Command::new(root().join("scripts/services"))
        .arg("python")
        .arg(root().join("scripts/services.d/s3.py"))
        .arg(folder.path())
        .arg(port)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(stderr)
        .spawn()
        .expect("scripts/services can be run");
    let mut address = String::new();
    let said = BufReader::new(child.stdout.take().expect("it is piped")).read_line(&mut address);
    if !matches!(said, Ok(1..)) {
        let _ = child.wait();
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        panic!("no S3 (it comes with scripts/services clients): {log}");
    }
    (child, address.trim_end().to_owned())
}

impl Drop for S3 {
    fn drop(&mut self) {
        // It may have been killed by its test.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
