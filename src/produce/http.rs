//! Sends lines to a running Tidemark, and sends them again until it has said that it has them.
//!
//! A batch keeps its bytes, so also its event ids, over all tries: one that had arrived although its answer was
//! lost is counted once. Batches go one after the other, which keeps the order of the stream.

use std::{
    io::Read as _,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context as _, anyhow};
use chrono::{DateTime, Utc};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use serde::Deserialize;
use ureq::Agent;

use super::{Line, Target};
use crate::{
    cli::Server,
    exit::{Exit, Failure},
    token,
};

/// Lines of a batch.
const BATCH_LINES_MAX: usize = 1000;

/// Bytes of a batch of several lines; the server takes 4 MiB.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How long a paced line may wait for its batch to fill, s.
const LINGER_S: f64 = 0.1;

/// From sending a batch to the end of its answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// An answer names at most every line of a batch.
const ANSWER_BYTES_MAX: u64 = 4 << 20;

/// The first pause after a failed try; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(50);

/// The longest pause that we choose, and the longest that we let the server choose.
const PAUSE_MAX: Duration = Duration::from_secs(5);
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// A batch under way and what became of those before.
pub struct HttpTarget {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    give_up_after: Duration,
    batch_lines: usize,
    batch: Vec<u8>,
    lines: usize,
    jitter: ChaCha8Rng,
    accepted: u64,
    rejected: u64,
    retries: u64,
}

/// The answer to a batch that was taken.
#[derive(Debug, Deserialize)]
struct Taken {
    accepted: u64,
    #[serde(default)]
    rejected: Vec<Rejected>,
}

#[derive(Debug, Deserialize)]
struct Rejected {
    index: usize,
    reason: String,
    #[serde(default)]
    detail: String,
}

/// What came of one try.
enum Outcome {
    Taken(Taken),
    /// Nothing is known to be stored, but the same may work later; not before the time that the server asked for.
    Again {
        why: anyhow::Error,
        not_before: Option<Duration>,
    },
    /// It will not work.
    Refused(Failure),
}

impl HttpTarget {
    /// To a path of a server that takes items one a line.
    pub fn new(server: &Server, path: &str, give_up_after_ms: u64, rate: Option<f64>) -> Result<Self, Failure> {
        let config = Agent::config_builder().http_status_as_error(false).timeout_global(Some(ANSWER_WITHIN)).build();
        let authorization = token::authorization(server.token_file.as_deref())?;
        let batch_lines = rate.map_or(BATCH_LINES_MAX, |rate| ((rate * LINGER_S) as usize).clamp(1, BATCH_LINES_MAX));
        Ok(Self {
            agent: config.into(),
            url: format!("{}{path}", server.url),
            authorization,
            give_up_after: Duration::from_millis(give_up_after_ms),
            batch_lines,
            batch: Vec::new(),
            lines: 0,
            jitter: ChaCha8Rng::seed_from_u64(getrandom::u64().context("drawing a seed")?),
            accepted: 0,
            rejected: 0,
            retries: 0,
        })
    }

    /// Lines that the server has rejected by now.
    pub fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Sends the batch until it is taken.
    fn flush(&mut self) -> Result<(), Failure> {
        if self.lines == 0 {
            return Ok(());
        }
        let started = Instant::now();
        let mut pause = PAUSE_FIRST;
        loop {
            let (why, not_before) = match self.post() {
                Outcome::Taken(taken) => {
                    self.note(&taken);
                    self.batch.clear();
                    self.lines = 0;
                    return Ok(());
                }
                Outcome::Refused(failure) => return Err(failure),
                Outcome::Again { why, not_before } => (why, not_before),
            };
            // Half of it fixed, half at random, so that many producers don't come back at once.
            let jittered = pause / 2 + pause.mul_f64(self.jitter.random_range(0.0..0.5));
            let wait = jittered.max(not_before.unwrap_or_default().min(RETRY_AFTER_MAX));
            if self.give_up_after <= started.elapsed() + wait {
                let Self { url, accepted, give_up_after, .. } = &self;
                let what = format!("{url} took nothing for {give_up_after:?}; {accepted} lines were accepted before");
                return Err(Failure::new(Exit::Unreachable, why.context(what)));
            }
            tracing::debug!(why = format!("{why:#}"), ?wait, "sending the batch again");
            self.retries += 1;
            thread::sleep(wait);
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    fn post(&self) -> Outcome {
        let mut request = self.agent.post(&self.url).header("content-type", "application/x-ndjson");
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let again = |why: anyhow::Error| Outcome::Again { why, not_before: None };
        let mut response = match request.send(&self.batch[..]) {
            Ok(response) => response,
            // A wrong address stays wrong.
            Err(error @ (ureq::Error::BadUri(_) | ureq::Error::Http(_))) => {
                return Outcome::Refused(Failure::new(Exit::Usage, anyhow!(error).context(self.url.clone())));
            }
            Err(error) => return again(anyhow!(error).context(format!("sending to {}", self.url))),
        };
        let status = response.status().as_u16();
        let not_before = response
            .headers()
            .get("retry-after")
            .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now().into()));
        let mut body = String::new();
        let read = response.body_mut().as_reader().take(ANSWER_BYTES_MAX).read_to_string(&mut body);
        if let Err(error) = read {
            return again(anyhow!(error).context(format!("reading the answer of {}", self.url)));
        }
        let says = || anyhow!("{} answers {status}: {}", self.url, problem(&body));
        match status {
            202 => match serde_json::from_str(&body) {
                Ok(taken) => Outcome::Taken(taken),
                Err(error) => Outcome::Refused(anyhow!(error).context(says()).into()),
            },
            408 | 429 | 500 | 502 | 503 | 504 | 507 => Outcome::Again { why: says(), not_before },
            401 | 403 => Outcome::Refused(Failure::new(Exit::Usage, says().context("the server wants --token-file"))),
            _ => Outcome::Refused(says().into()),
        }
    }

    fn note(&mut self, taken: &Taken) {
        self.accepted += taken.accepted;
        self.rejected += taken.rejected.len() as u64;
        if let Some(Rejected { index, reason, detail }) = taken.rejected.first() {
            let lines = taken.rejected.len();
            tracing::warn!(lines, first = index, reason, detail, "the server rejected lines of a batch");
        }
    }
}

impl Target for HttpTarget {
    fn send(&mut self, line: Line<'_>) -> Result<(), Failure> {
        if BATCH_BYTES_MAX < self.batch.len() + line.record.len() + 1 {
            self.flush()?;
        }
        self.batch.extend_from_slice(line.record);
        self.batch.push(b'\n');
        self.lines += 1;
        if self.batch_lines <= self.lines { self.flush() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<String, Failure> {
        self.flush()?;
        let Self { accepted, rejected, retries, .. } = self;
        Ok(format!("{accepted} accepted, {rejected} rejected, {retries} batches sent again"))
    }
}

/// The pause that a `Retry-After` asks for: seconds, or a date.
fn retry_after(value: &str, now: DateTime<Utc>) -> Option<Duration> {
    match value.trim().parse() {
        Ok(seconds) => Some(Duration::from_secs(seconds)),
        Err(_) => {
            let at = DateTime::parse_from_rfc2822(value.trim()).ok()?;
            Some((at.to_utc() - now).to_std().unwrap_or_default())
        }
    }
}

/// What an RFC 9457 problem says, or the beginning of whatever else it is.
fn problem(body: &str) -> String {
    #[derive(Deserialize)]
    struct Problem {
        title: String,
        #[serde(default)]
        detail: String,
    }
    match serde_json::from_str::<Problem>(body) {
        Ok(Problem { title, detail }) if detail.is_empty() => title,
        Ok(Problem { title, detail }) => format!("{title}: {detail}"),
        Err(_) => body.chars().take(200).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead as _, BufReader, Read as _, Write as _},
        net::TcpListener,
        thread::JoinHandle,
    };

    use super::*;

    /// What the server got: headers in lower case, and the body.
    type Got = Vec<(String, String)>;

    /// Answers each request with the next of the answers, on a connection of its own; "" closes it unanswered.
    fn serve(answers: &'static [&'static str]) -> (Server, JoinHandle<Got>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || {
            answers
                .iter()
                .map(|answer| {
                    let (stream, _) = listener.accept().unwrap();
                    let mut reader = BufReader::new(stream);
                    let mut head = String::new();
                    while !head.ends_with("\r\n\r\n") {
                        assert_ne!(reader.read_line(&mut head).unwrap(), 0, "{head}");
                    }
                    let head = head.to_lowercase();
                    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
                    let mut body = vec![0; length.parse().unwrap()];
                    reader.read_exact(&mut body).unwrap();
                    if let Some((status, body)) = answer.split_once('|') {
                        let length = body.len();
                        let answer =
                            format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
                        reader.get_mut().write_all(answer.as_bytes()).unwrap();
                    }
                    (head, String::from_utf8(body).unwrap())
                })
                .collect()
        });
        (Server { url, token_file: None }, server)
    }

    fn send(server: &Server, give_up_after_ms: u64, lines: &[&str]) -> Result<String, Failure> {
        let mut target = HttpTarget::new(server, "/v1/events", give_up_after_ms, None)?;
        for line in lines {
            target.send(Line { key: None, record: line.as_bytes() })?;
        }
        target.finish()
    }

    #[test]
    fn a_batch_is_sent_again_with_the_same_bytes_until_it_is_taken() {
        let (server, got) = serve(&[
            "429 Too Many Requests\r\nretry-after: 0|",
            "503 Service Unavailable\r\nretry-after: 1|{\"title\":\"busy\"}",
            "",
            "500 Internal Server Error|oh",
            "202 Accepted|{\"accepted\":1,\"rejected\":[{\"index\":1,\"reason\":\"malformed\",\"detail\":\"json\"}]}",
        ]);
        let started = Instant::now();
        assert_eq!(send(&server, 30_000, &["{\"a\":1}", "x"]).unwrap(), "1 accepted, 1 rejected, 4 batches sent again");
        assert!(Duration::from_secs(1) <= started.elapsed(), "Retry-After is heeded");
        let got = got.join().unwrap();
        assert_eq!(got.len(), 5);
        for (head, body) in got {
            assert!(head.starts_with("post /v1/events http/1.1"), "{head}");
            assert!(head.contains("content-type: application/x-ndjson"), "{head}");
            assert_eq!(body, "{\"a\":1}\nx\n");
        }
    }

    #[test]
    fn batches_end_at_a_thousand_lines_and_at_their_bytes() {
        let taken = "202 Accepted|{\"accepted\":7}";
        let (server, got) = serve(&["202 Accepted|{\"accepted\":1000}", "202 Accepted|{\"accepted\":1}"]);
        assert_eq!(send(&server, 1000, &["x"; 1001]).unwrap(), "1001 accepted, 0 rejected, 0 batches sent again");
        let lines: Vec<usize> = got.join().unwrap().iter().map(|(_, body)| body.lines().count()).collect();
        assert_eq!(lines, [1000, 1]);
        let long = "y".repeat(BATCH_BYTES_MAX * 2 / 3);
        let (server, got) = serve(&["202 Accepted|{\"accepted\":1}", "202 Accepted|{\"accepted\":1}"]);
        send(&server, 1000, &[&long, &long]).unwrap();
        assert_eq!(got.join().unwrap().len(), 2, "{taken}");
    }

    #[test]
    fn a_server_that_takes_nothing_is_given_up_with_69() {
        // Bound and dropped: nobody listens there.
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let server = Server { url: format!("http://127.0.0.1:{port}"), token_file: None };
        let failure = send(&server, 300, &["x"]).unwrap_err();
        assert_eq!(failure.code, Exit::Unreachable);
        assert!(
            failure.report().contains("took nothing for 300ms; 0 lines were accepted before"),
            "{}",
            failure.report()
        );
        // A pause that would outlast the limit is not waited for.
        let (server, _got) =
            serve(&["503 Service Unavailable\r\nretry-after: 30|{\"title\":\"busy\",\"detail\":\"disk\"}"]);
        let started = Instant::now();
        let failure = send(&server, 2000, &["x"]).unwrap_err();
        assert_eq!(failure.code, Exit::Unreachable);
        assert!(failure.report().contains("answers 503: busy: disk"), "{}", failure.report());
        assert!(started.elapsed() < Duration::from_secs(2));
    }

    #[test]
    fn what_will_not_work_is_not_tried_again() {
        for (answer, code, says) in [
            ("400 Bad Request|{\"title\":\"bad\",\"detail\":\"no json\"}", Exit::Failed, "answers 400: bad: no json"),
            ("413 Content Too Large|", Exit::Failed, "answers 413"),
            ("401 Unauthorized|{\"title\":\"who\"}", Exit::Usage, "--token-file"),
            ("202 Accepted|<html>", Exit::Failed, "answers 202: <html>"),
        ] {
            let (server, got) = serve(Box::leak(Box::new([answer])));
            let failure = send(&server, 5000, &["x"]).unwrap_err();
            assert_eq!(failure.code, code, "{answer}");
            assert!(failure.report().contains(says), "{}", failure.report());
            assert_eq!(got.join().unwrap().len(), 1);
        }
    }

    #[test]
    fn the_token_is_sent_and_read_from_a_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("token");
        std::fs::write(&path, "secret-1\n").unwrap();
        let (server, got) = serve(&["202 Accepted|{\"accepted\":1}"]);
        send(&Server { token_file: Some(path), ..server }, 1000, &["x"]).unwrap();
        let (head, _) = &got.join().unwrap()[0];
        assert!(head.contains("authorization: bearer secret-1\r\n"), "{head}");
    }

    #[test]
    fn a_paced_line_does_not_wait_long_for_its_batch() {
        let server = Server { url: "http://127.0.0.1:1".to_owned(), token_file: None };
        let lines = |rate| HttpTarget::new(&server, "/v1/events", 1, rate).unwrap().batch_lines;
        assert_eq!([Some(0.5), Some(100.0), Some(1e6), None].map(lines), [1, 10, 1000, 1000]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = DateTime::parse_from_rfc3339("2026-01-01T00:00:00Z").unwrap().to_utc();
        for (value, expect) in [
            ("3", Some(3)),
            (" 0 ", Some(0)),
            ("Thu, 01 Jan 2026 00:00:07 GMT", Some(7)),
            ("Wed, 31 Dec 2025 23:59:00 GMT", Some(0)),
            ("soon", None),
            ("-1", None),
        ] {
            assert_eq!(retry_after(value, now).map(|wait| wait.as_secs()), expect, "{value}");
        }
    }
}
