//! A top list as a table or as CSV.

use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;

use super::{Incomplete, lacking, named, printable, subject, utc, written, yes_or_no};
use crate::cli::TopBy;

/// The list, as far as it is printed.
#[derive(Debug, Deserialize)]
pub struct Top {
    event_type: String,
    start: u64,
    end: u64,
    as_of: u64,
    watermark: u64,
    #[serde(rename = "final")]
    is_final: bool,
    order: String,
    top: Vec<Row>,
    #[serde(default)]
    incomplete: Vec<Incomplete>,
}

#[derive(Debug, Deserialize)]
struct Row {
    /// Where channels are ranked, there is none.
    video_id: Option<String>,
    video_name: Option<String>,
    channel_id: Option<String>,
    channel_name: Option<String>,
    value: u64,
    before: Option<u64>,
}

impl Top {
    fn is_rising(&self) -> bool {
        self.order == "rising"
    }
}

impl Row {
    /// What its id is called, the id, and the name.
    fn subject(&self) -> (&'static str, &str, Option<&str>) {
        subject((&self.video_id, &self.video_name), (&self.channel_id, &self.channel_name))
    }

    /// One column, or two where there is something to compare with.
    fn values(&self) -> impl Iterator<Item = String> {
        [Some(self.value), self.before].into_iter().flatten().map(|value| value.to_string())
    }
}

pub fn table(top: &Top, by: TopBy) -> String {
    let mut table = Table::new();
    let header = [by.to_string(), "count".to_owned(), "before".to_owned()];
    table.load_style(presets::NOTHING).set_header(if top.is_rising() { &header[..] } else { &header[..2] });
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in &top.top {
        let (_, id, name) = row.subject();
        table.add_row(std::iter::once(named(id, name)).chain(row.values()));
    }
    format!(
        "{}, by {}, from {} to {}\n{table}\nas of {} ({}); watermark {}; final: {}\n{}",
        printable(&top.event_type),
        printable(&top.order),
        utc(top.start),
        utc(top.end),
        utc(top.as_of),
        top.as_of,
        utc(top.watermark),
        yes_or_no(top.is_final),
        lacking(&top.incomplete),
    )
}

pub fn csv(top: &Top, by: TopBy) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header = [format!("{by}_id"), "event_type".to_owned(), "value".to_owned(), "before".to_owned()];
    writer.write_record(if top.is_rising() { &header[..] } else { &header[..3] })?;
    for row in &top.top {
        writer.write_record([row.subject().1.to_owned(), top.event_type.clone()].into_iter().chain(row.values()))?;
    }
    written(writer)
}
