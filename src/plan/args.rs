//! The arguments of `plan`.

use clap::Args;

use crate::{
    config::{Overrides, parse_duration_ms},
    produce::args::{Types, parse_exponent, parse_rate, parse_share, parse_videos},
};

#[derive(Clone, Debug, Args)]
pub struct PlanArgs {
    /// Different events a second, such as 500, 20k or 20k/s
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    pub rate: f64,
    /// Distinct videos that get events
    #[arg(long, value_name = "N", default_value = "100k", value_parser = parse_videos)]
    pub videos: u32,
    /// Exponent of the videos' popularity; 0: all alike
    #[arg(long, value_name = "S", default_value = "1.1", value_parser = parse_exponent)]
    pub zipf: f64,
    /// Share of the events that come a second time
    #[arg(long, value_name = "SHARE", default_value = "0.05", value_parser = parse_share)]
    pub duplicates: f64,
    /// Event types with their weights
    #[arg(long, value_name = "TYPE:WEIGHT,…", default_value = "view:80,like:15,share:5")]
    pub types: Types,
    /// Bytes of an event as it is sent
    #[arg(long, value_name = "N", default_value_t = 154, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    pub event_bytes: u32,
    /// Stream time that has been counted so far [default: so much that nothing piles up any more]
    #[arg(long = "history", value_name = "DURATION", value_parser = parse_history_ms)]
    pub history_ms: Option<u64>,
    /// Records a second while that history is caught up with [default: none is, events are counted as they come]
    #[arg(long, value_name = "N/s", value_parser = parse_rate)]
    pub catch_up: Option<f64>,
    /// Processes, on one machine or on several
    #[arg(long, value_name = "P", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    pub processes: u16,
    /// Worker threads in each process [config: workers]
    #[arg(long, value_name = "W")]
    pub workers: Option<u32>,
    /// Partitions of the log or topic [config: source.partitions]
    #[arg(long, value_name = "N")]
    pub partitions: Option<u32>,
    /// How far behind its partition's clock an event still counts [config: time.lateness]
    #[arg(long, value_name = "DURATION")]
    pub lateness: Option<String>,
    /// How long windows stay in memory [config: index.hot]
    #[arg(long, value_name = "DURATION")]
    pub hot: Option<String>,
    /// How far back an answer can be asked for [config: index.as_of]
    #[arg(long, value_name = "DURATION")]
    pub as_of: Option<String>,
    /// Between two checkpoints [config: checkpoint.interval]
    #[arg(long, value_name = "DURATION")]
    pub interval: Option<String>,
    /// What is kept beside the counts, names separated by commas, such as sum,p99; count: nothing [config: functions.default]
    #[arg(long, value_name = "FUNCTIONS")]
    pub functions: Option<String>,
    /// Print all figures as JSON
    #[arg(long)]
    pub json: bool,
}

impl PlanArgs {
    /// The configuration keys that these flags set.
    pub fn overrides(&self) -> Overrides {
        Overrides {
            workers: self.workers,
            partitions: self.partitions,
            lateness: self.lateness.clone(),
            hot: self.hot.clone(),
            as_of: self.as_of.clone(),
            interval: self.interval.clone(),
            functions: self.functions.clone(),
            ..Overrides::default()
        }
    }
}

fn parse_history_ms(text: &str) -> Result<u64, String> {
    match parse_duration_ms(text)? {
        0 => Err("history is more than nothing".to_owned()),
        ms => Ok(ms),
    }
}
