//! The arguments of `produce`.

use std::{path::PathBuf, str::FromStr};

use clap::Args;
use dataflows::time::EventTime;

use crate::{
    cli::{Server, parse_time},
    config::parse_duration_ms,
};

/// Flags that shape generated events and mean nothing beside `--from`.
const GENERATED: [&str; 10] =
    ["events", "videos", "zipf", "hot", "duplicates", "disorder_ms", "seed", "start", "span_ms", "types"];

/// Partitions of a data set in files, as many as `run` has by default.
pub const PARTITIONS: u32 = 4;

#[derive(Clone, Debug, Args)]
pub struct ProduceArgs {
    /// A folder (one .jsonl file a partition), "http": a running tidemark, or "log": the log in the data folder of one
    /// that isn't running (log:DIR for another log)
    #[arg(long, value_name = "DIR|http|log")]
    pub to: To,
    #[command(flatten)]
    pub server: Server,
    /// Give up (exit 69) when the server has taken nothing for this long
    #[arg(long = "give-up-after", value_name = "DURATION", default_value = "60s", value_parser = parse_duration_ms)]
    pub give_up_after_ms: u64,
    /// Send the lines of this file as they are ("-": stdin) instead of generated ones
    #[arg(long, value_name = "FILE", conflicts_with_all = GENERATED)]
    pub from: Option<PathBuf>,
    /// Lines a second, such as 500, 20k or 20k/s; left out: as fast as it goes
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    pub rate: Option<f64>,
    /// Files to write, or partitions of a new log [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1024))]
    pub partitions: Option<u32>,
    /// Distinct events, such as 5000, 10_000_000 or 10M
    #[arg(long, value_name = "N", default_value = "1M", value_parser = parse_count)]
    pub events: u64,
    /// Distinct videos
    #[arg(long, value_name = "N", default_value = "100k", value_parser = parse_videos)]
    pub videos: u32,
    /// Exponent of the videos' popularity; 0: all alike
    #[arg(long, value_name = "S", default_value = "1.1", value_parser = parse_exponent)]
    pub zipf: f64,
    /// Share of the events that go to one video, before --zipf shares out the rest
    #[arg(long, value_name = "SHARE", default_value = "0", value_parser = parse_share)]
    pub hot: f64,
    /// Share of the events that come a second time within a minute
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = parse_share)]
    pub duplicates: f64,
    /// How far an event may lie behind the newest one before it
    #[arg(long = "disorder", value_name = "DURATION", default_value = "20s", value_parser = parse_duration_ms)]
    pub disorder_ms: u64,
    /// Seed; the same one gives the same bytes [default: 1 for files, a new one for http]
    #[arg(long, value_name = "N")]
    pub seed: Option<u64>,
    /// The first event time [default: 2026-01-01T00:00:00Z for files; for http so that the last one is about now]
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    pub start: Option<EventTime>,
    /// From the first event time to the last [default: 1h; for http with --rate as long as sending takes]
    #[arg(long = "span", value_name = "DURATION", value_parser = parse_duration_ms)]
    pub span_ms: Option<u64>,
    /// Event types with their weights
    #[arg(long, value_name = "TYPE:WEIGHT,…", default_value = "view:80,like:15,share:5")]
    pub types: Types,
}

impl ProduceArgs {
    /// What clap can't check: flags that only some targets know.
    pub fn check(&self) -> Result<(), String> {
        match self.to {
            To::Http if self.partitions.is_some() => {
                Err("--partitions is for folders; the server knows how many it has".to_owned())
            }
            _ if !matches!(self.to, To::Http) && self.server.token_file.is_some() => {
                Err("--token-file is for --to http".to_owned())
            }
            _ => Ok(()),
        }
    }
}

/// Where lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum To {
    /// One file a partition in this folder.
    Dir(PathBuf),
    /// A running Tidemark.
    Http,
    /// The embedded log in this folder; left out, that of the data folder.
    Log(Option<PathBuf>),
    /// The topic of the configuration.
    #[cfg(feature = "kafka")]
    Kafka,
}

impl FromStr for To {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let scheme = text.split_once(':').map_or(text, |(scheme, _)| scheme);
        match (text, scheme) {
            ("", _) => Err("it is empty".to_owned()),
            ("http", _) => Ok(To::Http),
            (_, "http" | "https") => Err(format!("say --to http --url {text}")),
            ("log", _) => Ok(To::Log(None)),
            ("log:", _) => Err("nothing follows \"log:\"".to_owned()),
            (_, "log") => Ok(To::Log(Some(text["log:".len()..].into()))),
            #[cfg(feature = "kafka")]
            ("kafka", _) => Ok(To::Kafka),
            #[cfg(not(feature = "kafka"))]
            (_, "kafka") => {
                Err("kafka is not in this build; available are http, log and a folder (./kafka if it is one)"
                    .to_owned())
            }
            _ => Ok(To::Dir(text.into())),
        }
    }
}

/// Event types and how often each comes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Types(Vec<(String, u32)>);

impl Types {
    /// At least one, no weight 0, the sum fits.
    pub fn weighted(&self) -> &[(String, u32)] {
        &self.0
    }
}

impl FromStr for Types {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut types = Vec::new();
        let mut sum = 0u32;
        for item in text.split(',') {
            let (name, weight) = item.split_once(':').unwrap_or((item, "1"));
            let begins_well = name.starts_with(|first: char| first.is_ascii_lowercase());
            let well = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "_.-".contains(c);
            if !begins_well || !name.chars().all(well) || 64 < name.len() {
                return Err(format!("{name:?} is not an event type such as \"view\""));
            }
            let weight: u32 = weight.parse().map_err(|_| format!("{weight:?} is not a weight"))?;
            if weight == 0 {
                return Err(format!("{name:?} has weight 0; leave it out"));
            }
            sum = sum.checked_add(weight).ok_or("the weights are too great")?;
            types.push((name.to_owned(), weight));
        }
        Ok(Self(types))
    }
}

/// A whole number, with underscores or a k or M at its end if that reads better.
fn parse_count(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.strip_suffix(['k', 'K']) {
        Some(digits) => (digits, 1000),
        None => text.strip_suffix('M').map_or((text, 1), |digits| (digits, 1_000_000)),
    };
    let digits = digits.replace('_', "");
    let number = if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse::<u64>().ok() } else { None };
    number
        .and_then(|number| number.checked_mul(unit))
        .ok_or_else(|| "a count is a whole number such as 5000, 10_000_000 or 10M".to_owned())
}

pub fn parse_videos(text: &str) -> Result<u32, String> {
    match u32::try_from(parse_count(text)?) {
        Ok(videos) if 0 < videos => Ok(videos),
        _ => Err("there are from 1 to 4 billion videos".to_owned()),
    }
}

pub fn parse_rate(text: &str) -> Result<f64, String> {
    let number = text.strip_suffix("/s").unwrap_or(text);
    let rate = match parse_count(number) {
        Ok(rate) => rate as f64,
        Err(_) => number.parse().map_err(|_| "a rate is a number a second such as 500, 0.5 or 20k/s".to_owned())?,
    };
    // Slower than one in a thousand seconds is a slip, and 1e9 is faster than any machine.
    if (0.001..=1e9).contains(&rate) { Ok(rate) } else { Err("a rate is from 0.001 to 1000M a second".to_owned()) }
}

pub fn parse_share(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if (0.0..=1.0).contains(&share) => Ok(share),
        _ => Err("a share is from 0 to 1".to_owned()),
    }
}

pub fn parse_exponent(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(exponent) if (0.0..=100.0).contains(&exponent) => Ok(exponent),
        _ => Err("an exponent is from 0 to 100".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_folder_http_a_log_or_kafka() {
        for (text, expect) in [
            ("http", Some(To::Http)),
            ("out", Some(To::Dir("out".into()))),
            ("./log", Some(To::Dir("./log".into()))),
            ("/a/b", Some(To::Dir("/a/b".into()))),
            ("log", Some(To::Log(None))),
            ("log:d", Some(To::Log(Some("d".into())))),
            ("log:", None),
            #[cfg(feature = "kafka")]
            ("kafka", Some(To::Kafka)),
            ("http://h:1", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<To>().ok(), expect, "{text}");
        }
        #[cfg(not(feature = "kafka"))]
        assert!("kafka".parse::<To>().unwrap_err().contains("not in this build; available are http, log and a folder"));
    }

    #[test]
    fn numbers_read_well() {
        for (text, expect) in [
            ("5000", Some(5000)),
            ("10_000", Some(10_000)),
            ("10M", Some(10_000_000)),
            ("20k", Some(20_000)),
            ("18446744073709551615M", None),
            ("+5", None),
            ("-5", None),
            ("1.5", None),
            ("M", None),
            ("", None),
        ] {
            assert_eq!(parse_count(text).ok(), expect, "{text}");
        }
        for (text, expect) in [
            ("500", Some(500.0)),
            ("20k/s", Some(20_000.0)),
            ("0.5", Some(0.5)),
            ("0", None),
            ("inf", None),
            ("nan", None),
            ("-1", None),
        ] {
            assert_eq!(parse_rate(text).ok(), expect, "{text}");
        }
        assert_eq!(
            [parse_share("1"), parse_share("1.1"), parse_share("nan")].map(|share| share.ok()),
            [Some(1.0), None, None]
        );
        assert_eq!(
            [parse_videos("100k"), parse_videos("0"), parse_videos("5000M")].map(|n| n.ok()),
            [Some(100_000), None, None]
        );
    }

    #[test]
    fn types_have_names_and_weights() {
        let two = Types(vec![("view".to_owned(), 8), ("like".to_owned(), 1)]);
        assert_eq!("view:8,like".parse(), Ok(two));
        for text in ["", "View", "view:0", "view:x", "view,", "1view", "view:4294967295,like:1"] {
            assert!(text.parse::<Types>().is_err(), "{text}");
        }
    }
}
