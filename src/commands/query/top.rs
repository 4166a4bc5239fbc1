//! A top list as a table or as CSV.

use comfy_table::{CellAlignment, Table, presets};
use serde::Deserialize;

use super::{printable, utc, written, yes_or_no};

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
}

#[derive(Debug, Deserialize)]
struct Row {
    video_id: String,
    value: u64,
    before: Option<u64>,
}

impl Top {
    fn is_rising(&self) -> bool {
        self.order == "rising"
    }
}

impl Row {
    /// One column, or two where there is something to compare with.
    fn values(&self) -> impl Iterator<Item = String> {
        [Some(self.value), self.before].into_iter().flatten().map(|value| value.to_string())
    }
}

pub fn table(top: &Top) -> String {
    let mut table = Table::new();
    let header: &[&str] = if top.is_rising() { &["video", "count", "before"] } else { &["video", "count"] };
    table.load_style(presets::NOTHING).set_header(header);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    for row in &top.top {
        table.add_row(std::iter::once(printable(&row.video_id)).chain(row.values()));
    }
    format!(
        "{}, by {}, from {} to {}\n{table}\nas of {} ({}); watermark {}; final: {}\n",
        printable(&top.event_type),
        printable(&top.order),
        utc(top.start),
        utc(top.end),
        utc(top.as_of),
        top.as_of,
        utc(top.watermark),
        yes_or_no(top.is_final),
    )
}

pub fn csv(top: &Top) -> Result<String, Box<dyn std::error::Error + Send + Sync>> {
    let mut writer = csv::Writer::from_writer(Vec::new());
    let header: &[&str] = &["video_id", "event_type", "value", "before"];
    writer.write_record(if top.is_rising() { header } else { &header[..3] })?;
    for row in &top.top {
        writer.write_record([row.video_id.clone(), top.event_type.clone()].into_iter().chain(row.values()))?;
    }
    written(writer)
}
