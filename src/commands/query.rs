//! `tidemark query`: asks a running process over HTTP and prints the answer as a table, as JSON or as CSV.

mod top;

use std::{io, time::Duration};

use chrono::{DateTime, SecondsFormat};
use comfy_table::{CellAlignment, Table, presets};
use serde::{Deserialize, de::DeserializeOwned};

use crate::{
    cli::{PrintAs, QueryArgs},
    commands,
    exit::{Exit, Failure},
    http::percent,
    token,
};

/// Longer than a server waits for an `after`.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An answer is not read any further, bytes: well above the windows that a server puts in one.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum QueryError {
    /// Nobody there.
    #[error("no tidemark answers at {url}; start one with `tidemark run`, or name another with --url")]
    Unreachable {
        /// Where we asked.
        url: String,
        /// Why it failed.
        #[source]
        cause: Box<ureq::Error>,
    },
    /// The server said no.
    #[error("the server refused the query ({status}): {detail}")]
    Refused {
        /// The HTTP status.
        status: u16,
        /// Its reason.
        detail: String,
    },
    /// The URL is none.
    #[error("{url} is not a URL such as http://127.0.0.1:7070")]
    Url {
        /// What was given.
        url: String,
        /// What is wrong with it.
        #[source]
        cause: Box<ureq::Error>,
    },
    /// Something else listens there.
    #[error("{url} did not answer as a tidemark does")]
    Strange {
        /// Where we asked.
        url: String,
        /// What is wrong with the answer.
        #[source]
        cause: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl QueryError {
    /// What the process exits with.
    fn exit(&self) -> Exit {
        match self {
            QueryError::Unreachable { .. } | QueryError::Refused { status: 503 | 504, .. } => Exit::Unreachable,
            QueryError::Url { .. } | QueryError::Refused { status: 400, .. } => Exit::Usage,
            QueryError::Refused { .. } | QueryError::Strange { .. } => Exit::Failed,
        }
    }
}

/// Asks and prints the answer.
pub fn run(args: &QueryArgs) -> Result<(), Failure> {
    let token = args.server.token_file.as_deref().map(token::read).transpose()?;
    let text = query(args, token.as_deref()).map_err(|error| Failure::new(error.exit(), error))?;
    commands::print(&text)
}

/// The answer, as far as it is printed.
#[derive(Debug, Deserialize)]
struct Answer {
    /// Of a channel's answer, there is none.
    video_id: Option<String>,
    video_name: Option<String>,
    channel_id: Option<String>,
    channel_name: Option<String>,
    event_type: String,
    function: String,
    start: u64,
    end: u64,
    as_of: u64,
    watermark: u64,
    #[serde(rename = "final")]
    is_final: bool,
    /// As it came: whole, with a fraction, or null.
    total: serde_json::Value,
    series: Vec<Point>,
    #[serde(default)]
    incomplete: Vec<Incomplete>,
}

impl Answer {
    /// What its id is called, the id, and the name.
    fn subject(&self) -> (&'static str, &str, Option<&str>) {
        subject((&self.video_id, &self.video_name), (&self.channel_id, &self.channel_name))
    }
}

/// Whose numbers these are: a video's, or else a channel's.
fn subject<'a>(
    (video_id, video_name): (&'a Option<String>, &'a Option<String>),
    (channel_id, channel_name): (&'a Option<String>, &'a Option<String>),
) -> (&'static str, &'a str, Option<&'a str>) {
    match video_id {
        Some(id) => ("video_id", id, video_name.as_deref()),
        None => ("channel_id", channel_id.as_deref().unwrap_or_default(), channel_name.as_deref()),
    }
}

/// An id with the name, if it has one.
fn named(id: &str, name: Option<&str>) -> String {
    match name {
        Some(name) => format!("{} ({})", printable(id), printable(name)),
        None => printable(id),
    }
}

#[derive(Debug, Deserialize)]
struct Point {
    start: u64,
    value: serde_json::Value,
    #[serde(rename = "final")]
    is_final: bool,
}

/// What may lack events.
#[derive(Debug, Deserialize)]
struct Incomplete {
    start: u64,
    end: u64,
}

/// A line for each.
fn lacking(incomplete: &[Incomplete]) -> String {
    let line = |span: &Incomplete| {
        let (start, end) = (utc(span.start), utc(span.end));
        format!("from {start} to {end} events may be missing: records were gone before they were read\n")
    };
    incomplete.iter().map(line).collect()
}

/// A problem, as far as it is printed.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Refusal {
    title: String,
    detail: String,
}

/// Asks, and gives the text to print, line end included.
fn query(args: &QueryArgs, token: Option<&str>) -> Result<String, QueryError> {
    let text = fetch(args, token)?;
    match (args.print_as(), args.top) {
        (PrintAs::Json, _) => Ok(format!("{}\n", text.trim_end())),
        (PrintAs::Table, None) => Ok(table(&read(args, &text)?)),
        (PrintAs::Table, Some(_)) => Ok(top::table(&read(args, &text)?, args.by)),
        (PrintAs::Csv, None) => csv(&read(args, &text)?).map_err(|cause| strange(args, cause)),
        (PrintAs::Csv, Some(_)) => top::csv(&read(args, &text)?, args.by).map_err(|cause| strange(args, cause)),
    }
}

fn read<A: DeserializeOwned>(args: &QueryArgs, text: &str) -> Result<A, QueryError> {
    serde_json::from_str(text).map_err(|cause| strange(args, cause))
}

fn strange(args: &QueryArgs, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> QueryError {
    QueryError::Strange { url: args.server.url.clone(), cause: cause.into() }
}

fn fetch(args: &QueryArgs, token: Option<&str>) -> Result<String, QueryError> {
    let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(TIMEOUT)).build();
    let mut request = config.new_agent().get(address(args));
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let failed = |error: ureq::Error| {
        let (url, cause) = (args.server.url.clone(), Box::new(error));
        match *cause {
            ureq::Error::BadUri(_) | ureq::Error::Http(_) => QueryError::Url { url, cause },
            ureq::Error::Io(_)
            | ureq::Error::Timeout(_)
            | ureq::Error::HostNotFound
            | ureq::Error::ConnectionFailed => QueryError::Unreachable { url, cause },
            _ => QueryError::Strange { url, cause },
        }
    };
    let mut response = request.call().map_err(failed)?;
    let text = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_string().map_err(failed)?;
    if response.status().is_success() {
        return Ok(text);
    }
    // What is no problem document comes from something in between; its status has to do.
    let refusal: Refusal = serde_json::from_str(&text).unwrap_or_default();
    let detail = if refusal.detail.is_empty() { refusal.title } else { refusal.detail };
    Err(QueryError::Refused { status: response.status().as_u16(), detail })
}

/// The whole URL. Everything that a user may type is percent-encoded.
fn address(args: &QueryArgs) -> String {
    let base = args.server.url.trim_end_matches('/');
    let mut address = match (&args.video_id, &args.channel) {
        (Some(video_id), _) => format!("{base}/v1/videos/{}/stats", percent::encode(video_id)),
        (None, Some(channel_id)) => format!("{base}/v1/channels/{}/stats", percent::encode(channel_id)),
        (None, None) => format!("{base}/v1/top"),
    };
    let is_series = args.top.is_none();
    let parameters = [
        ("event_type", Some(args.event_type.clone())),
        ("function", is_series.then(|| args.function.as_str().to_owned())),
        ("start", args.start.map(|start| start.to_string())),
        ("end", args.end.map(|end| end.to_string())),
        ("granularity", is_series.then(|| args.granularity.to_string())),
        ("k", args.top.map(|k| k.to_string())),
        ("by", args.top.map(|_| args.by.to_string())),
        ("order", args.top.map(|_| args.order.to_string())),
        ("span", args.span.map(|span| span.to_string())),
        ("as_of", args.as_of.map(|as_of| as_of.to_string())),
        ("after", args.after.clone()),
    ];
    let mut separator = '?';
    for (name, value) in parameters {
        if let Some(value) = value {
            address.push_str(&format!("{separator}{name}={}", percent::encode(&value)));
            separator = '&';
        }
    }
    address
}

fn table(answer: &Answer) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_header(["window (UTC)", answer.function.as_str(), "final"]);
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for point in &answer.series {
        table.add_row([utc(point.start), point.value.to_string(), yes_or_no(point.is_final).to_owned()]);
    }
    let Answer { event_type, total, .. } = answer;
    let ((_, id, name), event_type) = (answer.subject(), printable(event_type));
    let subject = named(id, name);
    format!(
        "{subject}, {event_type}: {total} from {} to {}\n{table}\nas of {} ({}); watermark {}; final: {}\n{}",
        utc(answer.start),
        utc(answer.end),
        utc(answer.as_of),
        answer.as_of,
        utc(answer.watermark),
        yes_or_no(answer.is_final),
        lacking(&answer.incomplete),
    )
}

fn csv(answer: &Answer) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let (column, id, _) = answer.subject();
    writer.write_record([column, "event_type", "window_start_ms", "window_start", &answer.function, "final"])?;
    for point in &answer.series {
        let (start, value) = (point.start.to_string(), point.value.to_string());
        let is_final = if point.is_final { "true" } else { "false" };
        writer.write_record([id, &answer.event_type, &start, &utc(point.start), &value, is_final])?;
    }
    written(writer)
}

fn written(writer: csv::Writer<Vec<u8>>) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let bytes = writer.into_inner().map_err(|error| io::Error::other(error.to_string()))?;
    Ok(String::from_utf8(bytes)?)
}

fn yes_or_no(is_final: bool) -> &'static str {
    if is_final { "yes" } else { "no" }
}

/// A time for people; past the year 9999 the number itself.
fn utc(time: u64) -> String {
    let known = i64::try_from(time).ok().and_then(DateTime::from_timestamp_millis);
    match known.filter(|_| time <= dataflows::time::EVENT_TIME_MAX) {
        Some(known) if time.is_multiple_of(1000) => known.to_rfc3339_opts(SecondsFormat::Secs, true),
        Some(known) => known.to_rfc3339_opts(SecondsFormat::Millis, true),
        None => time.to_string(),
    }
}

/// No text from a server may steer the terminal.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::{
        cli::{Cli, Command},
        http::testkit::Server,
    };

    fn args(url: &str, more: &[&str]) -> QueryArgs {
        parse(&[&["a/b?", "--granularity", "hour", "--url", url], more].concat())
    }

    fn parse(line: &[&str]) -> QueryArgs {
        match Cli::try_parse_from(["tidemark", "query"].iter().chain(line)).unwrap().command {
            Command::Query(args) => args,
            other => panic!("{other:?}"),
        }
    }

    /// A server with three views of one video in two hours, the first of them final.
    fn with_server(check: impl FnOnce(&str) + Send + 'static) {
        Server::run(|server| async move {
            for minute in [0, 1, 60] {
                server.queries.count("a/b?", "view", minute, 50);
            }
            server.queries.announce_at(1_767_225_600_123, 3_600_000);
            let url = format!("http://{}/", server.address);
            tokio::task::spawn_blocking(move || check(&url)).await.unwrap();
        });
    }

    #[test]
    fn an_answer_is_printed_as_a_table() {
        with_server(|url| {
            let text = query(&args(url, &[]), None).unwrap();
            let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
            assert_eq!(words[0].join(" "), "a/b?, view: 3 from 1970-01-01T00:00:00Z to 1970-01-01T02:00:00Z");
            assert!(words.contains(&vec!["1970-01-01T00:00:00Z", "2", "yes"]), "{text}");
            assert!(words.contains(&vec!["1970-01-01T01:00:00Z", "1", "no"]), "{text}");
            let last = "as of 2026-01-01T00:00:00.123Z (1767225600123); watermark 1970-01-01T01:00:00Z; final: no";
            assert!(text.ends_with(&format!("{last}\n")), "{text}");
        });
    }

    #[test]
    fn an_answer_is_printed_as_csv_and_json() {
        with_server(|url| {
            let csv = query(&args(url, &["--csv"]), None).unwrap();
            assert_eq!(
                csv,
                "video_id,event_type,window_start_ms,window_start,count,final\n\
                 a/b?,view,0,1970-01-01T00:00:00Z,2,true\n\
                 a/b?,view,3600000,1970-01-01T01:00:00Z,1,false\n"
            );
            let json = query(&args(url, &["--json"]), None).unwrap();
            assert!(
                json.starts_with("{\"video_id\":\"a/b?\",\"event_type\":\"view\"") && json.ends_with("}\n"),
                "{json}"
            );
        });
    }

    #[test]
    fn a_top_list_is_printed_as_a_table_and_as_csv() {
        with_server(|url| {
            let top = |more: &[&str]| query(&parse(&[&["--top", "2", "--url", url], more].concat()), None).unwrap();
            let text = top(&[]);
            let words: Vec<Vec<_>> = text.lines().map(|line| line.split_whitespace().collect()).collect();
            assert_eq!(words[0].join(" "), "view, by count, from 1970-01-01T00:00:00Z to 1970-01-01T01:01:00Z");
            assert!(words.contains(&vec!["a/b?", "3"]), "{text}");
            assert_eq!(top(&["--csv"]), "video_id,event_type,value\na/b?,view,3\n");
            let rising = top(&["--csv", "--order", "rising", "--start", "60000", "--end", "120000"]);
            assert_eq!(rising, "video_id,event_type,value,before\na/b?,view,1,1\n");
            let of_hour = top(&["--span", "hour"]);
            assert!(
                of_hour.starts_with("view, by count, from 2025-12-31T23:01:00Z to 2026-01-01T00:01:00Z"),
                "{of_hour}"
            );
            assert!(top(&["--json"]).contains("\"top\":[{\"video_id\":\"a/b?\",\"value\":3}]"));
        });
        let wrong = [
            &[][..],
            &["v", "--top", "3"],
            &["--top", "x"],
            &["--top", "3", "--granularity", "day"],
            &["v", "--span", "day"],
            &["--top", "3", "--span", "day", "--start", "1"],
            &["--top", "3", "--span", "week"],
        ];
        for wrong in wrong {
            assert!(Cli::try_parse_from(["tidemark", "query"].iter().chain(wrong)).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn errors_say_what_to_do_and_end_with_their_code() {
        with_server(|url| {
            let error = query(&args(url, &["--start", "60000", "--end", "0"]), None).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage);
            assert!(error.to_string().starts_with("the server refused the query (400): "), "{error}");
            let error = query(&args("http://not a url", &[]), None).unwrap_err();
            assert_eq!(error.exit(), Exit::Usage, "{error:?}");
        });
        let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let error = query(&args(&format!("http://{nobody}"), &[]), None).unwrap_err();
        assert_eq!(error.exit(), Exit::Unreachable, "{error:?}");
        assert!(error.to_string().contains("start one with `tidemark run`"), "{error}");
    }
}
