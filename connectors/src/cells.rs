//! Windows of one series on their way between processes of one job: start, count and functions of each. No stored format: both ends
//! are of one build, and say so by the first word.

use dataflows::{
    checkpoint::frame::{FieldReader, Fields},
    functions::stats::Stats,
    port::ColdWindow,
};

const FORMAT: u32 = 2;

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
}
