//! What has left memory on its way between processes of one job: windows of one series with start, count and functions, or what those
//! of each video come to. No stored format: both ends are of one build, and say so by the first word.

use dataflows::{
    checkpoint::frame::{FieldReader, Fields},
    functions::stats::Stats,
    port::{ColdSum, ColdWindow},
};

const FORMAT: u32 = 2;
const SUMS_FORMAT: u32 = 1_002;

/// Puts windows together.
pub fn encode(windows: &[ColdWindow]) -> Vec<u8> {
    let mut fields = Fields(Vec::new());
    fields.word(FORMAT).long(windows.len() as u64);
    for window in windows {
        fields.long(window.start).long(window.count).word(u32::from(window.stats.is_some()));
        if let Some(stats) = &window.stats {
            stats.encode(&mut fields);
        }
    }
    fields.0
}

/// Takes windows apart; `None` if they are none.
pub fn decode(bytes: &[u8]) -> Option<Vec<ColdWindow>> {
    let mut fields = FieldReader(bytes);
    if fields.word()? != FORMAT {
        return None;
    }
    let windows = (0..fields.long()?).map(|_| {
        let (start, count, has_stats) = (fields.long()?, fields.long()?, fields.word()? != 0);
        let stats = if has_stats { Some(Stats::decode(&mut fields)?) } else { None };
        Some(ColdWindow { start, count, stats })
    });
    let windows = windows.collect::<Option<Vec<_>>>()?;
    fields.is_done().then_some(windows)
}

/// Puts sums together.
pub fn encode_sums(sums: &[ColdSum]) -> Vec<u8> {
    let mut fields = Fields(Vec::new());
    fields.word(SUMS_FORMAT).long(sums.len() as u64);
    for ColdSum { video_id, count, first, last } in sums {
        fields.bytes(video_id.as_bytes()).long(*count).long(*first).long(*last);
    }
    fields.0
}

/// Takes sums apart; `None` if they are none.
pub fn decode_sums(bytes: &[u8]) -> Option<Vec<ColdSum>> {
    let mut fields = FieldReader(bytes);
    if fields.word()? != SUMS_FORMAT {
        return None;
    }
    let sums = (0..fields.long()?).map(|_| {
        let video_id = fields.text()?.to_owned();
        Some(ColdSum { video_id, count: fields.long()?, first: fields.long()?, last: fields.long()? })
    });
    let sums = sums.collect::<Option<Vec<_>>>()?;
    fields.is_done().then_some(sums)
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
        let window = |start, stats: Option<&Stats>| ColdWindow { start, count: 3, stats: stats.cloned() };
        let windows = [window(0, Some(&stats)), window(60_000, None), window(120_000, Some(&stats))];
        let bytes = encode(&windows);
        assert_eq!(decode(&bytes).unwrap(), windows);
        assert_eq!(decode(&encode(&[])).unwrap(), []);
        for end in 0..bytes.len() {
            assert_eq!(decode(&bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(decode(&[&bytes[..], &[0]].concat()), None);
    }

    #[test]
    fn sums_come_as_they_went_and_what_is_cut_or_longer_is_none() {
        let sum = |video_id: &str| ColdSum { video_id: video_id.to_owned(), count: 3, first: 60_000, last: 180_000 };
        let bytes = encode_sums(&[sum("a"), sum("\u{e9}")]);
        assert_eq!(decode_sums(&bytes).unwrap(), [sum("a"), sum("\u{e9}")]);
        assert_eq!((decode_sums(&encode_sums(&[])), decode(&bytes)), (Some(Vec::new()), None));
        for end in 0..bytes.len() {
            assert_eq!(decode_sums(&bytes[..end]), None, "cut at {end}");
        }
        assert_eq!(decode_sums(&[&bytes[..], &[0]].concat()), None);
    }
}
