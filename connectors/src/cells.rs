//! Windows on their way between processes of one job: width, start, count and functions of each. No stored format: both ends are of one
//! build, and say so by the first word.

use dataflows::{
    checkpoint::frame::{FieldReader, Fields},
    functions::stats::Stats,
    port::CountRow,
    rollup::Width,
};

const FORMAT: u32 = 2;

const WIDTHS: [Width; 3] = [Width::Minute, Width::Hour, Width::Day];

/// Puts windows of one video and event type together.
pub fn encode(rows: &[CountRow]) -> Vec<u8> {
    let mut fields = Fields(Vec::new());
    fields.word(FORMAT).long(rows.len() as u64);
    for row in rows {
        fields.long(row.window_start).long(row.count).long(row.as_of);
        fields.word(row.width as u32).word(u32::from(row.is_final)).word(u32::from(row.stats.is_some()));
        if let Some(stats) = &row.stats {
            stats.encode(&mut fields);
        }
    }
    fields.0
}

/// Takes windows apart; `None` if they are none.
pub fn decode(video_id: &str, event_type: &str, bytes: &[u8]) -> Option<Vec<CountRow>> {
    let mut fields = FieldReader(bytes);
    if fields.word()? != FORMAT {
        return None;
    }
    let count = fields.long()?;
    let rows = (0..count).map(|_| {
        let (window_start, count, as_of) = (fields.long()?, fields.long()?, fields.long()?);
        let width = *WIDTHS.get(fields.word()? as usize)?;
        let (is_final, has_stats) = (fields.word()? != 0, fields.word()? != 0);
        let stats = if has_stats { Some(Stats::decode(&mut fields)?) } else { None };
        let (video_id, event_type) = (video_id.to_owned(), event_type.to_owned());
        Some(CountRow { width, video_id, event_type, window_start, count, stats, is_final, as_of })
    });
    let rows = rows.collect::<Option<Vec<_>>>()?;
    fields.is_done().then_some(rows)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use dataflows::functions::{Kept, stats::Detail};

    use super::*;

    #[test]
    fn windows_come_as_they_went_and_what_is_cut_or_longer_is_none() {
        let mut stats = Stats::default();
        stats.add(Detail { kept: Kept::ALL, value: Some(1.5), user: Some(7) });
        let row = |window_start, stats: Option<&Stats>| CountRow {
            width: WIDTHS[window_start as usize / 60_000],
            video_id: "v".into(),
            event_type: "view".into(),
            window_start,
            count: 3,
            stats: stats.cloned(),
            is_final: window_start == 0,
            as_of: 9,
        };
        let rows = [row(0, Some(&stats)), row(60_000, None), row(120_000, Some(&stats))];
        let bytes = encode(&rows);
        assert_eq!(decode("v", "view", &bytes).unwrap(), rows);
        assert_eq!(decode("v", "view", &encode(&[])).unwrap(), []);
        for end in 0..bytes.len() {
            assert_eq!(decode("v", "view", &bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(decode("v", "view", &[&bytes[..], &[0]].concat()), None);
    }
}
