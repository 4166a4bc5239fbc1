//! What is in memory, read from the snapshots of the worker that owns it.

use std::ops::Range;

use dataflows::{
    functions::{Kept, stats::Stats},
    port::{ColdSeries, ColdWindow},
    query::{Answer, Cell, Question},
    rollup::Width,
    snapshot::Snapshots,
    time::{EventTime, MINUTE_MS, Minute},
};

use super::days::{Days, Minutes};

/// The minutes of one worker's videos at a frontier.
struct Hot<'a> {
    snapshots: &'a Snapshots,
    as_of: EventTime,
}

/// Why there are none: the answer in their place, or none where the frontier has not been reached.
struct Missing(Option<Answer>);

impl Hot<'_> {
    fn ask(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<(Cell, Option<Stats>)>, Missing> {
        if starts.is_empty() {
            return Ok(Vec::new());
        }
        let ColdSeries { video_id, event_type, functions } = series;
        let question = Question {
            video_id: video_id.to_owned(),
            event_type: event_type.to_owned(),
            first: Minute::of(starts.start),
            // The end of the last window of all is no event's time.
            end: Minute((starts.end / MINUTE_MS) as u32),
            functions: if functions { Kept::ALL } else { Kept::NONE },
            as_of: self.as_of,
        };
        match self.snapshots.answer(&question) {
            Some(Answer::Cells(cells)) => Ok(cells.into_iter().map(|cell| (cell, None)).collect()),
            Some(Answer::Functions(cells)) => Ok(cells.into_iter().map(|(cell, stats)| (cell, Some(stats))).collect()),
            other => Err(Missing(other)),
        }
    }
}

impl Minutes for Hot<'_> {
    type Error = Missing;

    fn read(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<ColdWindow>, Missing> {
        let window = |(cell, stats): (Cell, _)| ColdWindow { start: cell.minute.start(), count: cell.count, stats };
        Ok(self.ask(series, starts)?.into_iter().map(window).collect())
    }

    fn days(&self, series: ColdSeries<'_>, starts: Range<EventTime>) -> Result<Vec<EventTime>, Missing> {
        let cells = self.ask(ColdSeries { functions: false, ..series }, starts)?;
        let mut days: Vec<_> = cells.into_iter().map(|(cell, _)| Width::Day.start(cell.minute)).collect();
        days.dedup();
        Ok(days)
    }
}

/// The answer to a question that its owner has reached, in windows of the width where whole days before `settled` have them: up to
/// there, all is final at its `as_of`.
pub fn answer(
    snapshots: &Snapshots,
    days: &Days,
    question: &Question,
    width: Width,
    settled: EventTime,
) -> Option<Answer> {
    if width == Width::Minute {
        return snapshots.answer(question);
    }
    let Question { video_id, event_type, first, end, functions, as_of } = question;
    let hot = Hot { snapshots, as_of: *as_of };
    let series = ColdSeries { video_id, event_type, functions: functions.any() };
    let windows = match days.read(&hot, series, first.start()..end.start(), width, settled) {
        Ok(windows) => windows.into_iter(),
        Err(Missing(answer)) => return answer,
    };
    let cell = |window: &ColdWindow| Cell { minute: Minute::of(window.start), count: window.count };
    Some(if functions.any() {
        let stats = |window: ColdWindow| window.stats.unwrap_or_default().only(*functions);
        Answer::Functions(windows.map(|window| (cell(&window), stats(window))).collect())
    } else {
        Answer::Cells(windows.map(|window| cell(&window)).collect())
    })
}
