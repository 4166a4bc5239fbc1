//! The state of a worker and the one place that changes it: verdicts, remembered ids, counts, letters.
//!
//! * input: [`Parcel`]s, exchanged to the worker that they name
//! * outputs: increments of the index, `((series, minute), time, measures)`, and [`News`] of each partition, at the time
//!   that the records travelled at
//! * state: [`Tally`], and the parcels beyond the frontier
//!
//! Invariant: the state is the fold of exactly the records at times before `applied`. Parcels wait in the stash until the
//! frontier has passed them, so no cut ever meets a record from beyond it, and a checkpoint costs no barrier. Verdicts,
//! counts and cuts are one operator and not three, because they are one state with one frontier.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
    sync::Arc,
};

use hashbrown::HashMap;
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        StreamVec,
        channels::pact::Exchange,
        operators::{
            Capability,
            generic::{OutputBuilder, OutputBuilderSession, builder_rc::OperatorBuilder},
        },
    },
    progress::frontier::MutableAntichain,
};

use crate::{
    announce::{News, Partitions},
    checkpoint::{
        manifest::Hot,
        part::{self, PartState},
    },
    control::{Cut, Gate, Hub, Message},
    dedup::{Remembered, Verdict},
    functions::stats::Stats,
    graph::Start,
    identity::{KEY_GROUPS, KeyGroup},
    index::{Increment, Measures, StatsIncrement},
    letter::DeadLetter,
    parcel::{Naming, Parcel},
    port::{CountRow, PartitionId, Timer},
    rollup::{Rollups, Width},
    rules::Rules,
    ruling::{Ruled, Ruling},
    series::{Interned, SeriesNames, SeriesNo, SeriesTable},
    summaries::Summaries,
    table::CountTable,
    time::{END_OF_TIME, EVENT_TIME_MAX, EventTime, Minute},
    window::{CellState, Counts},
};

/// Rows applied in one activation, about: then queries and other operators get their turn.
const FUEL_ROWS: usize = 65_536;

/// Rows whose identities are fetched from memory at once, before they are judged one by one.
const BLOCK_ROWS: usize = 16;

/// What changed of one worker's state up to a frontier, to be stored and written.
#[derive(Clone, Debug)]
pub struct WorkerCut {
    /// Of which checkpoint.
    pub number: u64,
    /// The frontier.
    pub frontier: EventTime,
    /// Which worker.
    pub worker: usize,
    /// Hours and days of the cells that are to be written, where they are rolled up.
    pub rollups: Vec<CountRow>,
    /// What changed in its key groups since the last cut, with the letters since then. Unwritten cells are to be written.
    pub part: PartState,
    /// How many events all its cells hold, also those that have left memory.
    pub counted: u64,
    /// The first window in memory, and how many events have left it.
    pub hot: Hot,
    /// The first window in memory that holds any.
    pub first: Option<Minute>,
    /// For how long this worker applied nothing because of it, ms.
    pub paused_ms: u64,
    /// All partitions at the frontier: the same in every worker's cut.
    pub partitions: Partitions,
}

/// Takes a worker's cuts. Must not block.
pub type TakeCut = Box<dyn FnMut(WorkerCut)>;

/// Takes all that a worker has counted when the input has ended, and the frontier behind it.
pub type TakeAll = Box<dyn FnOnce(CountTable<'_>, EventTime)>;

/// A worker's state.
pub struct Tally {
    series: SeriesNames,
    numbers: BTreeMap<PartitionId, Numbers>,
    remembered: Remembered,
    counts: Counts,
    summaries: Summaries,
    rollups: Option<Rollups<SeriesNo>>,
    letters: Vec<DeadLetter>,
    /// Since the last cut.
    rulings: Vec<Ruling>,
}

/// When windows leave memory.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Cooling {
    /// How far behind the frontier a window stays, ms.
    pub hot_ms: u64,
    /// What leaves as a whole.
    pub step: Width,
}

impl Cooling {
    /// The first window that stays, once the rows of this checkpoint are acknowledged: those before are final, and in the sink.
    /// Where there are none before, as `first` was the first one in memory, all stays as it is: a question about all times need
    /// not ask the sink.
    fn hot_from(self, settled: Cut, first: Minute) -> Option<Minute> {
        let cold = settled.watermark.min(settled.frontier.saturating_sub(self.hot_ms)).min(EVENT_TIME_MAX);
        let stays = Minute::of(self.step.start(Minute::of(cold)));
        (first < stays).then_some(stays)
    }
}

/// What is kept for those who ask later.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Keeps {
    /// What changed, for checkpoints.
    pub changes: bool,
    /// Hours and days, for sinks.
    pub rollups: bool,
}

/// What a source's numbers stand for here.
#[derive(Default)]
struct Numbers {
    incarnation: u32,
    series: Vec<Option<(SeriesNo, KeyGroup)>>,
}

impl Numbers {
    fn name(&mut self, names: &[Naming], table: &mut SeriesTable) {
        for naming in names {
            let at = naming.number.0 as usize;
            if self.series.len() <= at {
                self.series.resize(at + 1, None);
            }
            let Interned { number, group, .. } = table.intern(&naming.video_id, &naming.event_type);
            self.series[at] = Some((number, group));
        }
    }
}

impl Tally {
    /// An empty state that names its series in `series`.
    pub fn new(series: SeriesNames, keeps: Keeps) -> Self {
        Self {
            series,
            numbers: BTreeMap::new(),
            remembered: Remembered::default(),
            counts: Counts::new(keeps.changes),
            summaries: Summaries::default(),
            rollups: keeps.rollups.then(Rollups::default),
            letters: Vec::new(),
            rulings: Vec::new(),
        }
    }

    /// Goes on from a checkpoint with the groups that `worker` of `peers` owns.
    pub fn restore(&mut self, start: &Start, watermark: EventTime, worker: usize, peers: usize) {
        self.counts.resume(watermark);
        if worker == 0 {
            // Of all workers: nobody knows any more who counted them.
            self.counts.resume_left(start.hot.left);
        }
        if let Some(rollups) = &mut self.rollups {
            rollups.resume(watermark);
        }
        let mut table = self.series.write();
        for (number, stored) in start.state.groups.iter().enumerate() {
            let group = part::group(number);
            if group.owner(peers) != worker {
                continue;
            }
            let series: Vec<SeriesNo> =
                stored.names.iter().map(|(video, kind)| table.intern(video, kind).number).collect();
            self.remembered.restore(group, &stored.ids);
            for cell in &stored.cells {
                self.counts.restore(CellState { series: series[cell.series.0 as usize], ..*cell });
            }
            for (place, minute, stats) in &stored.stats {
                self.summaries.restore(series[place.0 as usize], *minute, stats.clone());
            }
        }
    }

    /// Applies a parcel and says what became of it.
    pub fn apply(&mut self, parcel: Parcel) -> News {
        let mut news = News::new(parcel.partition);
        news.account = parcel.account;
        self.letters.extend(parcel.refused);
        let numbers = self.numbers.entry(parcel.partition).or_default();
        if numbers.incarnation != parcel.incarnation {
            *numbers = Numbers { incarnation: parcel.incarnation, series: Vec::new() };
        }
        if !parcel.names.is_empty() {
            numbers.name(&parcel.names, &mut self.series.write());
        }
        let mut late = parcel.late.into_iter();
        let mut to_rule = parcel.to_rule.iter().peekable();
        let mut details = parcel.details.iter().peekable();
        let mut placed = [(SeriesNo(0), KeyGroup(0)); BLOCK_ROWS];
        let mut place = 0_u32;
        for rows in parcel.rows.chunks(BLOCK_ROWS) {
            for (row, placed) in rows.iter().zip(&mut placed) {
                *placed = numbers.series[row.series.0 as usize].expect("a name comes before the rows that use it");
                self.remembered.prefetch(placed.1, row.id);
            }
            for (row, (series, group)) in rows.iter().zip(placed) {
                let letter = if row.late { late.next() } else { None };
                let verdict = self.remembered.judge(group, row.id, row.minute, row.first_remembered, row.late);
                if let Some((_, offset)) = to_rule.next_if(|(at, _)| *at == place)
                    && let Some(ruled) = Ruled::of(verdict, row.late)
                {
                    self.rulings.push(Ruling { partition: parcel.partition, offset: *offset, ruled });
                }
                let detail = details.next_if(|detail| detail.place == place);
                place += 1;
                match verdict {
                    Verdict::Counted => {
                        self.counts.add(series, row.minute);
                        if let Some(detail) = detail {
                            self.summaries.add(series, row.minute, detail.detail());
                        }
                        news.counted += 1;
                    }
                    Verdict::Duplicate => news.duplicate += 1,
                    Verdict::Late => {
                        self.letters.push(letter.expect("a late row brings its letter"));
                        news.late += 1;
                    }
                }
            }
        }
        news
    }

    /// What changed up to a frontier, and the hours and days to be written with it. Its letters count as published from here on, and
    /// its cells as written if the sink is written (`writes`): whoever takes them sees to it.
    fn cut(&mut self, frontier: EventTime, watermark: EventTime, writes: bool) -> (PartState, Vec<CountRow>) {
        self.counts.finish(watermark);
        if let Some(rollups) = &mut self.rollups {
            self.counts.write_again(rollups.finish(watermark));
        }
        let mut part = PartState {
            letters: std::mem::take(&mut self.letters),
            rulings: std::mem::take(&mut self.rulings),
            ..PartState::default()
        };
        for (number, group) in part.groups.iter_mut().enumerate() {
            group.ids = self.remembered.take_changes(part::group(number));
        }
        let table = self.series.read();
        let rollups = self.rollups.as_ref().filter(|_| writes);
        let mut rolled = BTreeSet::new();
        let mut filling = Filling::new(part, &table, self.counts.changed_series(writes));
        self.counts.take_changed(writes, |cell| {
            filling.put(cell, self.summaries.get(cell.series, cell.minute));
            if rollups.is_some() {
                rolled.extend(Width::ROLLED.map(|width| (cell.series, width, width.start(cell.minute))));
            }
        });
        let rows = |rollups| rollup_rows(rollups, &table, rolled, frontier, watermark);
        (filling.part, rollups.map_or_else(Vec::new, rows))
    }
}

/// A part that is filled with cells, under names of its own.
struct Filling<'a> {
    part: PartState,
    table: &'a SeriesTable,
    places: HashMap<SeriesNo, SeriesNo, foldhash::fast::FixedState>,
}

impl<'a> Filling<'a> {
    /// With room for one cell of each of these series, more or less.
    fn new(mut part: PartState, table: &'a SeriesTable, series: impl Iterator<Item = SeriesNo>) -> Self {
        let mut sizes = [0; KEY_GROUPS];
        series.for_each(|series| sizes[usize::from(table.name(series).group.0)] += 1);
        part.groups.iter_mut().zip(sizes).for_each(|(group, cells)| group.cells.reserve_exact(cells));
        Self { part, table, places: HashMap::default() }
    }

    fn put(&mut self, cell: CellState, stats: Option<&Stats>) {
        let name = self.table.name(cell.series);
        let group = &mut self.part.groups[usize::from(name.group.0)];
        let place = *self.places.entry(cell.series).or_insert_with(|| {
            group.names.push((Arc::clone(&name.video_id), Arc::clone(&name.event_type)));
            SeriesNo(group.names.len() as u32 - 1)
        });
        group.stats.extend(stats.map(|stats| (place, cell.minute, stats.clone())));
        group.cells.push(CellState { series: place, ..cell });
    }
}

/// The rows of hours and days.
fn rollup_rows(
    rollups: &Rollups<SeriesNo>,
    table: &SeriesTable,
    windows: BTreeSet<(SeriesNo, Width, EventTime)>,
    frontier: EventTime,
    watermark: EventTime,
) -> Vec<CountRow> {
    let row = |(series, width, start): (SeriesNo, Width, EventTime)| {
        let rolled = rollups.get(&series, width, Minute::of(start)).expect("a cell is rolled up");
        let name = table.name(series);
        rolled.row((&name.video_id, &name.event_type), (width, start), watermark, frontier)
    };
    windows.into_iter().map(row).collect()
}

/// What the operator does besides counting.
pub struct TallyJob {
    /// The settings of time.
    pub rules: Rules,
    /// Whether there is an index to feed.
    pub feeds_index: bool,
    /// The frontier that the sink has rows of already: before it nothing is written, cells stay unwritten.
    pub write_from: EventTime,
    /// Unwritten cells that this worker may hold; with more, nobody reads until a cut takes them.
    pub unwritten_max: usize,
    /// When windows leave memory; never where nobody else has them.
    pub cooling: Option<Cooling>,
    /// Where cuts go.
    pub take_cut: TakeCut,
    /// Tells how long a cut took.
    pub timer: Rc<dyn Timer>,
    /// Where everything goes once the input has ended: then nothing is cut.
    pub take_all: Option<TakeAll>,
}

/// The outputs of the operator.
pub struct Tallied<'scope> {
    /// Increments of counts, for the index.
    pub counts: StreamVec<'scope, EventTime, Increment>,
    /// Increments of functions, for theirs.
    pub functions: StreamVec<'scope, EventTime, StatsIncrement>,
    /// For the announcer.
    pub news: StreamVec<'scope, EventTime, News>,
}

/// Builds the operator. `resumed` is the frontier that `tally` was restored at, 0 for an empty one.
pub fn tally<'scope>(
    parcels: StreamVec<'scope, EventTime, Parcel>,
    hub: &Hub,
    tally: Tally,
    job: TallyJob,
) -> Tallied<'scope> {
    let scope = parcels.scope();
    let mut builder = OperatorBuilder::new("Tally".to_owned(), scope);
    let info = builder.operator_info();
    let mut input = builder.new_input(parcels, Exchange::new(|parcel: &Parcel| u64::from(parcel.to)));
    let (counts, to_index) = builder.new_output();
    let (functions, to_functions) = builder.new_output();
    let (news, to_announcer) = builder.new_output();
    let (mut counts, mut functions) = (OutputBuilder::from(counts), OutputBuilder::from(functions));
    let mut news = OutputBuilder::from(news);
    hub.wake_on_change(scope.activator_for(info.address.clone()));
    let again = scope.activator_for(info.address);
    let mut worker = TallyWorker {
        hub: hub.clone(),
        tally,
        job,
        worker: scope.index(),
        stash: BTreeMap::new(),
        capabilities: None,
        last_time: 0,
        is_full: false,
        held_since: None,
    };
    builder.build(move |capabilities| {
        worker.capabilities = capabilities.try_into().ok();
        let mut restored = false;
        move |frontiers| {
            // `for_each` keeps the order of arrival, which a partition's records depend on.
            input.for_each(|capability, batch| {
                let time = *capability.least().expect("parcels travel at a time");
                worker.stash.entry(time).or_default().append(batch);
            });
            let mut outputs =
                Outputs { counts: counts.activate(), functions: functions.activate(), news: news.activate() };
            if !restored {
                restored = true;
                worker.give_restored(&mut outputs);
            }
            if worker.work(&frontiers[0], &mut outputs) {
                again.activate();
            }
        }
    });
    Tallied { counts: to_index, functions: to_functions, news: to_announcer }
}

type Output<'a, D> = OutputBuilderSession<'a, EventTime, CapacityContainerBuilder<Vec<D>>>;

struct Outputs<'a> {
    counts: Output<'a, Increment>,
    functions: Output<'a, StatsIncrement>,
    news: Output<'a, News>,
}

/// The operator's own state, around the worker's.
struct TallyWorker {
    hub: Hub,
    tally: Tally,
    job: TallyJob,
    worker: usize,
    stash: BTreeMap<EventTime, Vec<Parcel>>,
    /// Of each output.
    capabilities: Option<[Capability<EventTime>; 3]>,
    last_time: EventTime,
    is_full: bool,
    /// Since when the gate is not open.
    held_since: Option<u64>,
}

impl TallyWorker {
    /// Gives the index what a checkpoint restored, just before the frontier resumed at.
    fn give_restored(&mut self, outputs: &mut Outputs<'_>) {
        let resumed = self.hub.with(|shared| shared.applied);
        self.last_time = resumed;
        if let Some(before) = resumed.checked_sub(1) {
            self.give_increments(before, outputs);
            self.let_go(resumed);
        }
    }

    /// Applies what the frontier and the gate allow, cuts where a cut is due; says whether it stopped short of that.
    fn work(&mut self, frontier: &MutableAntichain<EventTime>, outputs: &mut Outputs<'_>) -> bool {
        let complete = frontier.frontier().as_option().copied().unwrap_or(END_OF_TIME);
        let mut fuel = FUEL_ROWS;
        loop {
            let (gate, applied) = self.hub.with(|shared| (shared.gate, shared.applied));
            match gate {
                Gate::Open => self.held_since = None,
                _ => drop(self.held_since.get_or_insert_with(|| self.job.timer.monotonic_ms())),
            }
            let until = match gate {
                Gate::Open => complete,
                Gate::Held => applied,
                Gate::CutAt { frontier, .. } => frontier.min(complete),
            };
            if !self.apply_until(until, &mut fuel, outputs) {
                return true;
            }
            match gate {
                Gate::CutAt { number, frontier, first } if self.is_cut_due(frontier) => {
                    self.cut((number, frontier), first, outputs);
                }
                _ => break,
            }
        }
        if complete == END_OF_TIME && self.stash.is_empty() {
            self.finish();
        }
        false
    }

    /// Applies the stash before `until`; says whether the fuel lasted.
    fn apply_until(&mut self, until: EventTime, fuel: &mut usize, outputs: &mut Outputs<'_>) -> bool {
        while let Some(step) = self.stash.first_entry().filter(|step| *step.key() < until) {
            let (time, parcels) = step.remove_entry();
            self.apply_step(time, parcels, fuel, outputs);
            if *fuel == 0 {
                self.let_go(time + 1);
                return false;
            }
        }
        self.let_go(until);
        true
    }

    fn apply_step(&mut self, time: EventTime, parcels: Vec<Parcel>, fuel: &mut usize, outputs: &mut Outputs<'_>) {
        let mut told: BTreeMap<PartitionId, News> = BTreeMap::new();
        for parcel in parcels {
            *fuel = fuel.saturating_sub(parcel.rows.len() + 1);
            let more = self.tally.apply(parcel);
            if self.job.take_all.is_some() {
                // No cut comes to take them.
                self.tally.letters.clear();
                self.tally.rulings.clear();
            }
            told.entry(more.partition).or_insert_with(|| News::new(more.partition)).merge(more);
        }
        self.last_time = time;
        self.give_increments(time, outputs);
        if let Some([.., capability]) = &self.capabilities {
            outputs.news.session(&capability.delayed(&time)).give_iterator(told.into_values());
        }
    }

    fn give_increments(&mut self, time: EventTime, outputs: &mut Outputs<'_>) {
        let Tally { summaries, counts, rollups, .. } = &mut self.tally;
        let summaries = summaries.take_unsent();
        let Some([for_counts, for_functions, _]) = self.capabilities.as_ref().filter(|_| self.job.feeds_index) else {
            return summaries.for_each(drop);
        };
        let increment = |(series, minute, stats)| {
            if let Some(rollups) = rollups {
                rollups.add(&series, minute, 0, Some(&stats));
            }
            ((series, minute), time, stats)
        };
        outputs.functions.session(&for_functions.delayed(&time)).give_iterator(summaries.map(increment));
        let increment = |(series, minute, count)| {
            if let Some(rollups) = rollups {
                rollups.add(&series, minute, u64::from(count), None);
            }
            ((series, minute), time, Measures::counted(count))
        };
        outputs.counts.session(&for_counts.delayed(&time)).give_iterator(counts.take_unsent().map(increment));
    }

    /// Everything before `applied` is applied: forgets what nobody remembers, and lets the frontier pass.
    fn let_go(&mut self, applied: EventTime) {
        let first = self.hub.with(|shared| {
            shared.applied = shared.applied.max(applied);
            shared.facts.partitions.first_remembered(shared.applied, &self.job.rules)
        });
        self.tally.remembered.sweep(first);
        self.tell_if_full();
        match &mut self.capabilities {
            Some(capabilities) if applied < END_OF_TIME => {
                for capability in capabilities.iter_mut().filter(|capability| *capability.time() < applied) {
                    capability.downgrade(&applied);
                }
            }
            _ => self.capabilities = None,
        }
    }

    /// Back-pressure: what waits for a slow sink is bounded by not reading on. Not before cuts take it: the frontier that
    /// the sink is at must be reached first.
    fn tell_if_full(&mut self) {
        let applied = self.hub.with(|shared| shared.applied);
        let is_full = self.job.write_from <= applied && self.job.unwritten_max <= self.tally.counts.unwritten_len();
        if is_full != self.is_full {
            self.is_full = is_full;
            self.hub.tell(Message::Full { worker: self.worker, is_full });
        }
    }

    /// Everything below the frontier is applied, here and in the facts of all partitions.
    fn is_cut_due(&self, frontier: EventTime) -> bool {
        self.hub.with(|shared| shared.applied == frontier && shared.facts.frontier == frontier)
    }

    fn cut(&mut self, (number, frontier): (u64, EventTime), first: Minute, outputs: &mut Outputs<'_>) {
        // No checkpoint is begun before the rows of the one before are acknowledged: the newest that is durable.
        let is_settled = |settled: &Cut| self.job.write_from <= settled.frontier;
        let (watermark, partitions, hot_from) = self.hub.with(|shared| {
            shared.gate = Gate::Open;
            let watermark = shared.facts.partitions.watermark(frontier, &self.job.rules);
            let settled = Some(shared.durable).filter(is_settled);
            let cooled = self.job.cooling.zip(settled).and_then(|(cooling, settled)| cooling.hot_from(settled, first));
            shared.cut = Cut { number, frontier, watermark };
            shared.hot_from = shared.hot_from.max(cooled.unwrap_or_default());
            (watermark, shared.facts.partitions.clone(), shared.hot_from)
        });
        self.let_leave(hot_from, frontier, outputs);
        let (part, rollups) = self.tally.cut(frontier, watermark, self.job.write_from <= frontier);
        self.tell_if_full();
        let counted = self.tally.counts.total();
        let paused_ms = self.held_since.take().map_or(0, |since| self.job.timer.monotonic_ms().saturating_sub(since));
        let (worker, hot) = (self.worker, Hot { from: hot_from, left: self.tally.counts.left() });
        let first = self.tally.counts.first();
        let cut = WorkerCut { number, frontier, worker, rollups, part, counted, hot, first, paused_ms, partitions };
        (self.job.take_cut)(cut);
    }

    /// Takes the windows before `first` out of the state and, from the frontier on, out of the index: an answer at an older one
    /// still has them.
    fn let_leave(&mut self, first: Minute, frontier: EventTime, outputs: &mut Outputs<'_>) {
        let Tally { counts, summaries, rollups, .. } = &mut self.tally;
        let (counts, summaries) = (counts.leave(first), summaries.leave(first));
        if let Some(rollups) = rollups {
            rollups.leave(first.start());
        }
        if let Some([for_counts, for_functions, _]) = self.capabilities.as_ref().filter(|_| self.job.feeds_index) {
            let increment = |(series, minute, stats)| ((series, minute), frontier, stats);
            outputs.functions.session(&for_functions.delayed(&frontier)).give_iterator(summaries.map(increment));
            let increment = |(series, minute, count)| ((series, minute), frontier, Measures::taken_out(count));
            outputs.counts.session(&for_counts.delayed(&frontier)).give_iterator(counts.into_iter().map(increment));
        }
    }

    /// The input has ended, and all of it is applied.
    fn finish(&mut self) {
        if let Some(take_all) = self.job.take_all.take() {
            let names = self.tally.series.read();
            take_all(
                CountTable::sorted(&names, &self.tally.counts, &self.tally.summaries),
                self.last_time + self.job.rules.tick_ms,
            );
        }
    }
}
