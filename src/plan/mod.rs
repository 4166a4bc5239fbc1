//! What a job will take, worked out before there is one: memory, disk, writes to Cassandra.
//!
//! All of it is arithmetic on what is expected of a load ([`load`], [`cell`]) and on what was measured ([`measured`]). Memory is what the
//! structures hold, times what the allocator and merging add, and what comes and goes with checkpoints; `scripts/bench-growth` holds it
//! against real processes.

pub mod args;
mod cell;
mod load;
mod measured;
mod parts;

use dataflows::{
    functions::{Functions, Kept},
    lane::STEP_RECORDS,
};
use serde::Serialize;

use self::load::{Popularity, any};
use crate::config::{Settings, SinkKind, SourceKind};

const MINUTE_S: f64 = 60.0;
const HOUR_S: f64 = 3_600.0;
const DAY_S: f64 = 86_400.0;

/// What comes in.
#[derive(Clone, Debug)]
pub struct Load {
    /// Different events a second of stream time.
    pub rate: f64,
    /// Share of them that come a second time.
    pub duplicates: f64,
    pub videos: u32,
    pub zipf: f64,
    /// Event types with their weights.
    pub types: Vec<(String, u32)>,
    /// Bytes of an event as it is sent.
    pub event_bytes: f64,
    /// Stream time that has been counted, s; `None`: without end.
    pub history_s: Option<f64>,
    /// Records a second while it is caught up with; `None`: they are counted as they come.
    pub catch_up: Option<f64>,
}

/// What counts them.
#[derive(Clone, Debug)]
pub struct Job {
    pub processes: f64,
    /// In each process.
    pub workers: f64,
    pub partitions: f64,
    pub lateness_s: f64,
    pub remember_s: f64,
    pub hot_s: f64,
    /// How far back the index can be asked: `index.as_of`, and what a partition may be read ahead.
    pub retain_s: f64,
    /// The step of times at the end of the log, and while it is caught up with.
    pub tick_s: f64,
    pub coarse_s: f64,
    pub interval_s: f64,
    pub functions: Functions,
    pub sink: SinkKind,
    pub source: SourceKind,
}

impl Job {
    /// So many processes under these settings.
    pub fn of(settings: &Settings, processes: u16) -> Self {
        let seconds = |ms: u64| ms as f64 / 1_000.0;
        let Settings { time, index, checkpoint, .. } = settings;
        Self {
            processes: f64::from(processes),
            workers: settings.workers.get() as f64,
            partitions: f64::from(settings.source.partitions.get()),
            lateness_s: seconds(time.lateness_ms),
            remember_s: seconds(time.remember_ms),
            hot_s: seconds(index.hot_ms),
            retain_s: seconds(index.as_of_ms + time.alignment_ms),
            tick_s: seconds(time.tick_ms),
            coarse_s: seconds(time.coarsest_step_ms()),
            interval_s: seconds(checkpoint.interval_ms),
            functions: settings.functions.clone(),
            sink: settings.sink,
            source: settings.source.kind,
        }
    }
}

/// What is expected.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Plan {
    pub holds: Holds,
    pub memory: Memory,
    pub disk: Disk,
    pub cassandra: Writes,
}

/// How much there is of what takes memory.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
pub struct Holds {
    pub remembered_ids: f64,
    pub series: f64,
    /// One per series and minute that has any events.
    pub windows_a_minute: f64,
    /// Those in memory.
    pub windows: f64,
    /// Of windows, by the times that may still be asked for.
    pub updates: f64,
}

/// Bytes of memory, of all processes together.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
pub struct Memory {
    pub process_bytes: f64,
    pub ids_bytes: f64,
    pub names_bytes: f64,
    pub windows_bytes: f64,
    pub history_bytes: f64,
    pub functions_bytes: f64,
    /// Hours and days, where the sink has such rows.
    pub rollups_bytes: f64,
    /// What a reader of Kafka has fetched while there is more than it can take.
    pub kafka_bytes: f64,
    /// What the embedded store has not yet in files.
    pub store_bytes: f64,
    /// What comes and goes with a checkpoint and its rows.
    pub checkpoint_bytes: f64,
    /// The same of merging parts.
    pub merging_bytes: f64,
    pub total_bytes: f64,
}

/// Bytes of disks.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
pub struct Disk {
    /// Whole, in one part.
    pub checkpoint_bytes: f64,
    /// Of a checkpoint, what it adds.
    pub checkpoint_adds_bytes: f64,
    /// All that are kept, where they are most.
    pub checkpoints_bytes: f64,
    pub log_bytes_a_day: f64,
    pub store_bytes_a_day: f64,
}

/// Rows of Cassandra.
#[derive(Copy, Clone, Debug, PartialEq, Serialize)]
pub struct Writes {
    pub upserts_a_second: f64,
    pub minute_rows_a_day: f64,
    pub hour_rows_a_day: f64,
    pub day_rows_a_day: f64,
    pub functions_rows_a_day: f64,
}

/// Why there is no plan.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[non_exhaustive]
pub enum PlanError {
    /// Memory would grow for ever.
    #[error("with sink.kind = \"none\" no window ever leaves memory; say how much is counted, by --history")]
    Endless,
}

/// Works it out.
pub fn plan(load: &Load, job: &Job) -> Result<Plan, PlanError> {
    if job.sink == SinkKind::None && load.history_s.is_none() {
        return Err(PlanError::Endless);
    }
    let model = Model::new(load, job);
    let disk = model.disk();
    Ok(Plan { holds: model.holds(), memory: model.memory(&disk), disk, cassandra: model.writes() })
}

/// A load and a job, with what follows from both.
struct Model<'a> {
    load: &'a Load,
    job: &'a Job,
    popularity: Popularity,
    /// Of all processes.
    workers: f64,
    /// Stream time between two times that events travel at, s.
    step_s: f64,
    /// Stream time that has been counted, s.
    all_s: f64,
    /// Of it, between two checkpoints, s.
    between_s: f64,
    /// Windows of so much stream time are in memory, s.
    hot_s: f64,
    /// Of it, that whose every step may still be asked for, s.
    history_s: f64,
}

impl<'a> Model<'a> {
    fn new(load: &'a Load, job: &'a Job) -> Self {
        let all_s = load.history_s.unwrap_or(f64::INFINITY);
        let records = load.rate * (1.0 + load.duplicates);
        let (step_s, between_s) = match load.catch_up {
            None => (job.tick_s, job.interval_s),
            Some(read) => {
                let crowded_s = STEP_RECORDS as f64 * job.partitions / records;
                (crowded_s.clamp(job.tick_s, job.coarse_s), job.interval_s * read / records)
            }
        };
        // Nothing leaves memory where nobody else has it; what leaves Cassandra's memory leaves by the day.
        let hot_s = match job.sink {
            SinkKind::None => all_s,
            SinkKind::Store => all_s.min(job.hot_s),
            SinkKind::Cassandra => all_s.min(job.hot_s + DAY_S / 2.0),
        };
        Self {
            popularity: Popularity::new(load.videos, load.zipf, &load.types),
            workers: job.workers * job.processes,
            step_s,
            between_s: between_s.min(all_s),
            hot_s,
            all_s,
            history_s: all_s.min(job.retain_s),
            load,
            job,
        }
    }

    /// Different events of so much stream time.
    fn events(&self, seconds: f64) -> f64 {
        (self.load.rate * seconds).min(f64::MAX)
    }

    /// Windows of one series each, so wide, that have any events.
    fn windows(&self, width_s: f64) -> f64 {
        self.popularity.touched(self.events(width_s))
    }

    /// The sum over windows so wide of what is expected of one: `of` is given its events and what is kept of it.
    fn sum(&self, width_s: f64, of: impl Fn(f64, Kept) -> f64) -> f64 {
        self.popularity.sum(self.events(width_s), |event_type, events| of(events, self.job.functions.kept(event_type)))
    }

    /// How many windows are in memory for each that a minute has.
    fn minutes(&self) -> f64 {
        self.hot_s / MINUTE_S
    }

    fn holds(&self) -> Holds {
        let windows_a_minute = self.windows(MINUTE_S);
        Holds {
            // On average a window ends half a minute after its event, and is remembered as a whole.
            remembered_ids: self.events(self.all_s.min(self.job.remember_s + MINUTE_S / 2.0)),
            series: self.windows(self.all_s),
            windows_a_minute,
            windows: windows_a_minute * self.minutes(),
            updates: self.windows(self.step_s) * self.history_s / self.step_s,
        }
    }

    fn memory(&self, disk: &Disk) -> Memory {
        let Holds { remembered_ids, series, windows_a_minute, windows, updates } = self.holds();
        let job = self.job;
        let is_any = job.functions.any();
        let linked = if 1.0 < job.processes { measured::LINKED_BYTES } else { 0.0 };
        let process = job.processes * (measured::PROCESS_BYTES + linked)
            + self.workers * measured::WORKER_BYTES
            + job.partitions * measured::PARTITION_BYTES;
        let map = measured::WINDOW_BYTES + if is_any { measured::SUMMARY_BYTES } else { 0.0 };
        let buckets = self.workers * buckets(windows_a_minute / self.workers) * self.minutes();
        let rows = buckets * map + windows * measured::INDEX_BYTES;
        let mut memory = Memory {
            process_bytes: process,
            ids_bytes: remembered_ids * measured::ID_BYTES,
            names_bytes: series * measured::SERIES_BYTES,
            windows_bytes: rows * measured::WINDOWS_SLACK,
            history_bytes: updates * measured::UPDATE_BYTES * measured::WINDOWS_SLACK,
            functions_bytes: self.functions() * measured::FUNCTIONS_SLACK,
            rollups_bytes: if job.sink == SinkKind::Cassandra { self.rollups() } else { 0.0 },
            kafka_bytes: self.fetched(),
            store_bytes: self.store(),
            checkpoint_bytes: self.under_way(disk),
            merging_bytes: 0.0,
            total_bytes: 0.0,
        };
        let all = [
            memory.process_bytes,
            memory.ids_bytes,
            memory.names_bytes,
            memory.windows_bytes,
            memory.history_bytes,
            memory.functions_bytes,
            memory.rollups_bytes,
            memory.kafka_bytes,
            memory.store_bytes,
            memory.checkpoint_bytes,
        ];
        let all: f64 = all.iter().sum();
        memory.merging_bytes = self.merging(disk, all);
        memory.total_bytes = all + memory.merging_bytes;
        memory
    }

    /// Functions: of each window in the index, one of each time that may be asked for; and of each window in the state, which shares it
    /// with the index where it is of one time only.
    fn functions(&self) -> f64 {
        // Clients are late by some seconds, so a window's events travel at times of more than a minute.
        let steps = (measured::WINDOW_TRAVELS_S / self.step_s).max(1.0);
        let of_several = |events: f64, kept: Kept| {
            let (there, one) = (any(events), steps * any(events / steps) * (-(events - events / steps)).exp());
            if there == 0.0 { 0.0 } else { cell::heap_bytes(events, kept) * (1.0 - one / there).max(0.0) }
        };
        let old_s = (self.hot_s - self.history_s).max(0.0);
        self.sum(MINUTE_S, cell::heap_bytes) * old_s / MINUTE_S
            + self.sum(self.step_s, cell::heap_bytes) * self.history_s.min(self.hot_s) / self.step_s
            + self.sum(MINUTE_S, of_several) * self.minutes()
    }

    /// Hours and days of what is in memory, beside the minutes.
    fn rollups(&self) -> f64 {
        let of = |width_s: f64| {
            let rows = self.windows(width_s) * measured::ROLLED_BYTES * measured::WINDOWS_SLACK;
            let functions = self.sum(width_s, cell::heap_bytes) * measured::FUNCTIONS_SLACK;
            (rows + functions) * (self.hot_s / width_s).max(1.0)
        };
        of(HOUR_S) + of(DAY_S)
    }

    fn fetched(&self) -> f64 {
        match (self.job.source, self.load.catch_up) {
            (SourceKind::Kafka, Some(_)) => {
                let reader = (measured::KAFKA_QUEUED_BYTES / self.job.partitions)
                    .clamp(measured::KAFKA_READER_BYTES_MIN, measured::KAFKA_READER_BYTES_MAX);
                reader * self.job.partitions * measured::KAFKA_HELD
            }
            _ => 0.0,
        }
    }

    /// Rows that wait in the store's memory, until it is full: each checkpoint writes those that have changed.
    fn store(&self) -> f64 {
        if self.job.sink != SinkKind::Store {
            return 0.0;
        }
        let functions = self.sum(MINUTE_S, cell::stored_bytes) / self.windows(MINUTE_S);
        let row = measured::STORE_ROW_BYTES + functions + measured::STORE_HELD_BYTES;
        (self.changed_windows() * self.checkpoints() * row).min(measured::STORE_BYTES_MAX)
    }

    /// What changed is encoded and made into rows while its process goes on.
    fn under_way(&self, disk: &Disk) -> f64 {
        let rows = if self.job.sink == SinkKind::None { 0.0 } else { self.changed_windows() * measured::ROW_BYTES };
        disk.checkpoint_adds_bytes * measured::ENCODED + rows
    }

    /// While parts are merged, the state is there once more, beside all else. What still grows was last merged before it was all there.
    fn merging(&self, disk: &Disk, else_bytes: f64) -> f64 {
        let merging = disk.checkpoint_bytes * measured::MERGED;
        match parts::merges(self.workers, self.checkpoints()) {
            false => 0.0,
            true if self.hot_s < self.all_s => merging,
            true => ((else_bytes + merging) * measured::LAST_MERGE - else_bytes).max(0.0),
        }
    }

    fn checkpoints(&self) -> f64 {
        self.all_s / self.between_s
    }

    /// Windows that change between two checkpoints, or become final.
    fn changed_windows(&self) -> f64 {
        // What is read in one go touches several minutes; each becomes final as well.
        let (minutes, rest_s) = ((self.between_s / MINUTE_S).floor(), self.between_s % MINUTE_S);
        let finals = self.between_s.min(self.job.lateness_s) / MINUTE_S;
        let is_written_as_final = if self.between_s < self.job.lateness_s { finals } else { 0.0 };
        self.windows(MINUTE_S) * (minutes + is_written_as_final) + self.windows(rest_s)
    }

    fn disk(&self) -> Disk {
        let ids = self.holds().remembered_ids;
        let window =
            |events: f64, kept: Kept| measured::STORED_WINDOW_BYTES * any(events) + cell::stored_bytes(events, kept);
        let names = |events: f64| self.popularity.touched(events) * measured::STORED_NAME_BYTES;
        let a_minute = self.sum(MINUTE_S, window);
        let checkpoint = ids * measured::STORED_ID_BYTES
            + a_minute * self.minutes()
            + names(self.events(self.hot_s))
            + measured::STORED_EMPTY_BYTES;
        let changed = self.changed_windows() / self.windows(MINUTE_S) * a_minute;
        let adds = self.events(self.between_s.min(self.job.remember_s + MINUTE_S / 2.0)) * measured::STORED_ID_BYTES
            + changed
            + names(self.events(self.between_s));
        let records_a_day = self.load.rate * (1.0 + self.load.duplicates) * DAY_S;
        Disk {
            checkpoint_bytes: checkpoint,
            checkpoint_adds_bytes: adds,
            checkpoints_bytes: parts::most(checkpoint, adds, self.workers, self.checkpoints()),
            log_bytes_a_day: records_a_day * (self.load.event_bytes + measured::LOG_RECORD_BYTES),
            store_bytes_a_day: (self.windows(MINUTE_S) * measured::STORE_ROW_BYTES
                + self.sum(MINUTE_S, cell::stored_bytes))
                * (DAY_S / MINUTE_S),
        }
    }

    /// A checkpoint writes the minutes that have changed and those that have become final, with the hours and days that they are in.
    fn writes(&self) -> Writes {
        let between_s = self.job.interval_s;
        let checkpoints_a_minute = (MINUTE_S / between_s).max(1.0);
        let (changed, finals) = (self.windows(between_s.min(MINUTE_S)), self.windows(MINUTE_S));
        let functions = self.popularity.sum(self.events(MINUTE_S), |event_type, events| {
            if self.job.functions.kept(event_type).any() { any(events) } else { 0.0 }
        });
        let minutes = changed * checkpoints_a_minute + finals;
        // A minute's series become final with one of these checkpoints.
        let rolled = changed * (checkpoints_a_minute - 1.0) + self.windows(between_s.min(MINUTE_S) + MINUTE_S);
        // As an hour or a day becomes final, so is each of its series written once more.
        let again = 3.0 * (self.windows(HOUR_S) / 60.0 + self.windows(DAY_S) / 1_440.0);
        Writes {
            upserts_a_second: (minutes + functions + 2.0 * rolled + again) / MINUTE_S,
            minute_rows_a_day: finals * DAY_S / MINUTE_S,
            hour_rows_a_day: self.windows(HOUR_S) * DAY_S / HOUR_S,
            day_rows_a_day: self.windows(DAY_S),
            functions_rows_a_day: functions * DAY_S / MINUTE_S,
        }
    }
}

/// The room of a hash table that holds so many: a power of two, at most seven eighths of it full.
fn buckets(held: f64) -> f64 {
    if held <= 0.0 { 0.0 } else { (held * 8.0 / 7.0).log2().ceil().max(2.0).exp2() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(rate: f64, videos: u32) -> Load {
        Load {
            rate,
            duplicates: 0.05,
            videos,
            zipf: 1.1,
            types: [("view", 80), ("like", 15), ("share", 5)].map(|(name, weight)| (name.to_owned(), weight)).into(),
            event_bytes: 154.0,
            history_s: None,
            catch_up: None,
        }
    }

    fn job(kept: Kept) -> Job {
        Job {
            processes: 1.0,
            workers: 2.0,
            partitions: 4.0,
            lateness_s: 600.0,
            remember_s: 600.0,
            hot_s: 48.0 * HOUR_S,
            retain_s: 17.0 * MINUTE_S,
            tick_s: 0.1,
            coarse_s: 10.0,
            interval_s: 5.0,
            functions: Functions::of_all(kept),
            sink: SinkKind::Store,
            source: SourceKind::Log,
        }
    }

    fn planned(load: &Load, job: &Job) -> Plan {
        plan(load, job).expect("windows leave memory")
    }

    /// Real processes on the author's machine, by `scripts/bench-growth`'s way: million events, videos, hours, what is kept, thousand records a
    /// second, then MiB at the peak and bytes of a whole checkpoint.
    const POINTS: [(f64, u32, f64, Kept, f64, f64, f64); 6] = [
        (1.0, 100_000, 1.0, Kept::ALL, 718.0, 412.0, 38_666_280.0),
        (3.0, 1_000, 1.0, Kept::ALL, 2_027.0, 419.0, 65_195_168.0),
        (3.0, 10_000, 1.0, Kept::ALL, 1_440.0, 631.0, 85_370_200.0),
        (3.0, 100_000, 1.0, Kept::ALL, 1_352.0, 800.0, 99_395_288.0),
        (3.0, 100_000, 24.0, Kept::ALL, 558.0, 1_109.0, 127_729_968.0),
        (3.0, 100_000, 1.0, Kept::NONE, 2_121.0, 432.0, 33_133_224.0),
    ];

    #[test]
    fn what_was_measured_is_what_is_planned() {
        for (millions, videos, hours, kept, thousands, peak_mib, checkpoint) in POINTS {
            let seconds = hours * HOUR_S;
            let (history_s, catch_up) = (Some(seconds), Some(thousands * 1e3));
            let load = Load { history_s, catch_up, ..load(millions * 1e6 / seconds, videos) };
            let Plan { memory, disk, .. } = planned(&load, &job(kept));
            let off = [memory.total_bytes / f64::from(1 << 20) / peak_mib, disk.checkpoint_bytes / checkpoint];
            assert!(off.iter().all(|off| (off - 1.0).abs() < 0.2), "{millions} M, {videos}, {hours} h: {off:?}");
        }
    }

    #[test]
    fn more_of_anything_takes_no_less() {
        let (few, small) = (load(1_000.0, 10_000), job(Kept::ALL));
        let before = planned(&few, &small);
        let more = [
            (Load { rate: 2_000.0, ..few.clone() }, small.clone()),
            (Load { videos: 20_000, ..few.clone() }, small.clone()),
            (Load { zipf: 0.5, ..few.clone() }, small.clone()),
            (few.clone(), Job { remember_s: 1_200.0, ..small.clone() }),
            (few.clone(), Job { hot_s: 96.0 * HOUR_S, ..small.clone() }),
            (few.clone(), Job { retain_s: HOUR_S, ..small.clone() }),
            (few.clone(), Job { processes: 2.0, ..small.clone() }),
            (few.clone(), Job { sink: SinkKind::Cassandra, ..small.clone() }),
        ];
        for (load, job) in more {
            let after = planned(&load, &job);
            assert!(before.memory.total_bytes < after.memory.total_bytes, "{load:?} {job:?}");
        }
        let counts = planned(&few, &job(Kept::NONE));
        assert_eq!((counts.memory.functions_bytes, counts.cassandra.functions_rows_a_day), (0.0, 0.0));
        assert!(counts.disk.checkpoint_bytes < before.disk.checkpoint_bytes / 2.0);
    }

    #[test]
    fn windows_pile_up_until_they_leave_and_ids_until_they_are_forgotten() {
        let after = |hours: f64| {
            let load = Load { history_s: Some(hours * HOUR_S), ..load(1_000.0, 10_000) };
            planned(&load, &job(Kept::ALL)).holds
        };
        assert_eq!(after(48.0).windows, after(48.0).windows_a_minute * 48.0 * 60.0);
        assert_eq!(after(24.0).windows * 2.0, after(48.0).windows);
        assert_eq!(after(48.0).windows, after(480.0).windows);
        assert_eq!(after(0.1).remembered_ids, 360_000.0);
        assert_eq!(after(1.0).remembered_ids, after(48.0).remembered_ids);
        assert_eq!(planned(&load(1_000.0, 10_000), &job(Kept::ALL)).holds.windows, after(48.0).windows);
    }

    #[test]
    fn where_windows_never_leave_the_plan_wants_an_end() {
        let nowhere = Job { sink: SinkKind::None, ..job(Kept::ALL) };
        assert_eq!(plan(&load(1.0, 1), &nowhere), Err(PlanError::Endless));
        assert!(plan(&Load { history_s: Some(60.0), ..load(1.0, 1) }, &nowhere).is_ok());
    }

    #[test]
    fn a_checkpoint_writes_each_row_that_changed_and_each_that_became_final() {
        // One series that has events all the time: every 5 s its minute, hour and day, and once a minute the final ones with functions.
        let one = Load { types: vec![("view".to_owned(), 1)], zipf: 0.0, ..load(1e6, 1) };
        let writes = planned(&one, &job(Kept::ALL)).cassandra;
        let a_minute = 12.0 * 3.0 + 1.0 + 1.0;
        assert!((writes.upserts_a_second * 60.0 - a_minute).abs() < 0.1, "{writes:?}");
        assert!((writes.minute_rows_a_day - 1_440.0).abs() < 1e-6);
    }
}
