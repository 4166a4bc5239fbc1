//! Reads this worker's partitions, in step with all others, and sends their records to the workers that own the videos.
//!
//! * output: [`Parcel`]s, each at the time that its records travel at; a partition's times never go back
//! * exchange: none here; a parcel names the worker that it goes to
//! * state: per partition a [`Lane`] and a capability at the lane's time

use std::{ops::ControlFlow, rc::Rc, time::Duration};

use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        Scope, StreamVec,
        operators::{
            Capability,
            generic::{OutputBuilderSession, operator::source},
        },
    },
};

use crate::{
    board::Standing,
    clock::Clock,
    control::Hub,
    lane::{Ended, Lane, LaneStart},
    onward::Onward,
    parcel::Parcel,
    port::{Decode, PartitionId, PartitionReader, Reached, SourceError, Timer},
    rules::Rules,
    ruling::Rulings,
    time::{EventTime, floor_to},
};

/// How long to wait before looking again for what was not there: well below the time a count may take to show.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Opens a partition that joins, if this worker is the one to read it.
pub type Join = Box<dyn FnMut(PartitionId) -> Option<Result<Box<dyn PartitionReader>, SourceError>>>;

/// What reading needs besides its partitions.
pub struct Reading<D> {
    /// The settings of time.
    pub rules: Rules,
    /// What the end of an input means.
    pub ended: Ended,
    /// Time as the outside tells it.
    pub timer: Rc<dyn Timer>,
    /// Told why a partition can't be read; it then stays where it is and holds the frontier.
    pub on_error: Box<dyn FnMut(SourceError)>,
    /// Opens partitions that join while running.
    pub join: Join,
    /// Makes their lanes.
    pub lane: Box<dyn Fn(LaneStart) -> Lane<D>>,
    /// Told once, on the worker that has it, when the job is stopping and all that was read has been announced.
    pub on_quiet: Option<Box<dyn FnOnce()>>,
}

/// One partition under this worker's care.
struct Ward<D> {
    reader: Box<dyn PartitionReader>,
    lane: Lane<D>,
    capability: Option<Capability<EventTime>>,
    used: Option<EventTime>,
    /// When it was last read to its end.
    at_end_ms: Option<u64>,
    /// When its clock last moved.
    moved_ms: u64,
    /// When it last stepped past the greatest time.
    stepped_ms: u64,
    failed: bool,
    /// Not before the facts know the partition: they give it its floor.
    joining: bool,
}

impl<D: Decode> Ward<D> {
    fn new(
        reader: Box<dyn PartitionReader>,
        lane: Lane<D>,
        capability: &Capability<EventTime>,
        now_ms: u64,
        joining: bool,
    ) -> Self {
        Self {
            capability: Some(capability.delayed(&lane.time())),
            reader,
            lane,
            used: None,
            at_end_ms: None,
            moved_ms: now_ms,
            stepped_ms: now_ms,
            failed: false,
            joining,
        }
    }
}

/// Builds the operator.
pub fn sources<'scope, D: Decode>(
    scope: Scope<'scope, EventTime>,
    hub: &Hub,
    lanes: Vec<(Box<dyn PartitionReader>, Lane<D>)>,
    mut reading: Reading<D>,
) -> StreamVec<'scope, EventTime, Parcel> {
    let hub = hub.clone();
    source::<_, CapacityContainerBuilder<Vec<Parcel>>, _, _>(scope, "Sources", move |capability, info| {
        let again = scope.activator_for(info.address.clone());
        hub.wake_on_change(scope.activator_for(info.address));
        let start_ms = reading.timer.monotonic_ms();
        let mut wards: Vec<Ward<D>> =
            lanes.into_iter().map(|(reader, lane)| Ward::new(reader, lane, &capability, start_ms, false)).collect();
        drop(capability);
        let mut heard = 0;
        let mut onward = Onward::default();
        move |output| {
            let now_ms = reading.timer.monotonic_ms();
            let mut more = false;
            let joined = hub.with(|shared| shared.joined[heard..].to_vec());
            heard += joined.len();
            for partition in joined {
                let new = join(partition, &mut wards, &hub, &mut reading, now_ms, output);
                wards.extend(new);
            }
            for ward in wards.iter_mut().filter(|ward| ward.capability.is_some()) {
                more |= ward.turn(&hub, &mut reading, &mut onward, now_ms);
                ward.send(&hub, output);
            }
            if let Some(on_quiet) = reading.on_quiet.take_if(|_| hub.with(|shared| shared.is_quiet(&reading.rules))) {
                on_quiet();
            }
            if more {
                again.activate();
            } else if wards.iter().any(|ward| ward.capability.is_some()) {
                again.activate_after(LOOK_AGAIN);
            }
        }
    })
}

/// Takes a partition in, if it is this worker's to read. It joins through the account that is sent here, at the present
/// time of a partition that is read already; the facts then give it its floor, and it is read from a tick later on.
fn join<D: Decode>(
    partition: PartitionId,
    wards: &mut [Ward<D>],
    hub: &Hub,
    reading: &mut Reading<D>,
    now_ms: u64,
    output: &mut OutputBuilderSession<'_, EventTime, CapacityContainerBuilder<Vec<Parcel>>>,
) -> Option<Ward<D>> {
    if wards.iter().any(|ward| ward.lane.partition() == partition) {
        return None;
    }
    let host = wards.iter_mut().find(|ward| ward.capability.is_some())?;
    let reader = match (reading.join)(partition)? {
        Ok(reader) => reader,
        Err(error) => {
            (reading.on_error)(error);
            return None;
        }
    };
    let capability = host.capability.as_ref()?;
    let time = host.lane.time();
    let mut lane = (reading.lane)(LaneStart {
        partition,
        next_offset: reader.next_offset(),
        clock: Clock::default(),
        hole: None,
        time,
        keeps_tail: reader.keeps_tail(),
        rulings: Rulings::default(),
    });
    lane.pass(time + reading.rules.tick_ms);
    for (time, parcel) in lane.drain() {
        output.session(&capability.delayed(&time)).give(parcel);
    }
    let ward = Ward::new(reader, lane, capability, now_ms, true);
    // Something travels at this time, so that the others step past it even where all is quiet.
    host.used = host.used.max(Some(time));
    hub.stand(host.lane.partition(), host.standing(false));
    Some(ward)
}

impl<D: Decode> Ward<D> {
    /// Whether the partition is one of the facts by now.
    fn has_joined(&mut self, hub: &Hub) -> bool {
        if self.joining {
            let clock = hub
                .with(|shared| shared.facts.partitions.0.get(&self.lane.partition()).map(|state| state.clock.clone()));
            if let Some(clock) = clock {
                self.lane.set_floor(clock.floor());
                self.joining = false;
            }
        }
        !self.joining
    }

    /// Reads a batch if it may, steps if there is nothing to read; says whether there is more to read at once.
    fn turn(&mut self, hub: &Hub, reading: &mut Reading<D>, onward: &mut Onward, now_ms: u64) -> bool {
        if !self.has_joined(hub) {
            self.follow(hub, &reading.rules);
            return false;
        }
        let (stopping, may_read, limit) =
            hub.with(|shared| (shared.stopping, shared.may_read(), shared.board.clock_limit(&reading.rules)));
        let mut more = false;
        if may_read && !self.failed && self.lane.clock().is_none_or(|clock| clock <= limit) {
            match self.read(limit, now_ms) {
                Ok(Reached::More) => {
                    more = true;
                    self.lane.set_coarse(true);
                }
                Ok(Reached::End) => {
                    self.at_end_ms = Some(now_ms);
                    self.lane.set_coarse(false);
                    if self.lane.skip_to(self.reader.next_offset()) {
                        // The account with it is to be announced, even if no record follows.
                        self.used = Some(self.lane.time());
                    }
                }
                Ok(Reached::Passed(passed)) => {
                    more = true;
                    self.lane.pass_over(passed);
                    // As where what is no record is left behind.
                    self.used = Some(self.lane.time());
                }
                Ok(Reached::Waiting) => {}
                Ok(Reached::Finished) => {
                    self.lane.end(reading.ended);
                    hub.stand(self.lane.partition(), Standing { ended: true, ..self.standing(true) });
                    return true;
                }
                Err(error) => {
                    self.failed = true;
                    (reading.on_error)(error);
                }
            }
        }
        if self.lane.is_step_full() {
            self.lane.pass(self.lane.time() + reading.rules.tick_ms);
        }
        let drained = stopping || self.is_drained(&reading.rules, now_ms);
        hub.stand(self.lane.partition(), self.standing(drained));
        if drained {
            self.step(hub, reading, onward, now_ms);
            hub.stand(self.lane.partition(), self.standing(drained));
        } else if self.keep_up(hub, &reading.rules, limit, now_ms) {
            hub.stand(self.lane.partition(), self.standing(drained));
        }
        more
    }

    fn read(&mut self, limit: EventTime, now_ms: u64) -> Result<Reached, SourceError> {
        let Self { reader, lane, used, .. } = self;
        let before = lane.clock();
        let mut is_behind_hole = lane.is_behind_hole();
        let reached = reader.read(&mut |record| {
            if is_behind_hole {
                lane.bound_hole(&record);
                is_behind_hole = false;
            }
            lane.take(record);
            *used = Some(lane.time());
            match lane.clock() {
                Some(clock) if clock > limit => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        });
        if self.lane.clock() != before {
            self.moved_ms = now_ms;
        }
        reached
    }

    /// Read to its end within the last `idle_after`, and its clock has not moved for as long.
    fn is_drained(&self, rules: &Rules, now_ms: u64) -> bool {
        let since = |then: u64| now_ms.saturating_sub(then);
        !self.failed
            && self.at_end_ms.is_some_and(|at_end| since(at_end) <= rules.idle_after_ms)
            && since(self.moved_ms) >= rules.idle_after_ms
    }

    /// Steps as far as a drained partition may. Past the greatest time not faster than time itself goes, so that a
    /// trickle of events that move no clock can't drive the frontier ahead.
    fn step(&mut self, hub: &Hub, reading: &Reading<D>, onward: &mut Onward, now_ms: u64) {
        let rules = &reading.rules;
        let (all, stopping, pace) = hub.with(|shared| {
            let pace = match shared.stopping {
                true => shared.board.drained_pace(rules.tick_ms),
                false => onward.pace(&shared.board, (&shared.facts, shared.durable), rules, &*reading.timer),
            };
            (shared.board.all_drained(), shared.stopping, pace)
        });
        let pace = floor_to(pace, rules.tick_ms);
        if self.lane.time() < pace && (!all || stopping || now_ms.saturating_sub(self.stepped_ms) >= rules.tick_ms) {
            self.stepped_ms = now_ms;
            self.lane.pass(pace);
        }
    }

    /// Where another clock is far ahead, time may be there too, while this partition is busy far behind: what it brings travels at that time,
    /// and would not be visible until its clock has made that up. So time goes on with time itself, as where all is drained. Says
    /// whether it has.
    fn keep_up(&mut self, hub: &Hub, rules: &Rules, limit: EventTime, now_ms: u64) -> bool {
        let (clock, time) = (self.lane.clock().unwrap_or(0), self.lane.time());
        let waits = clock < time || limit < clock;
        let is_due = waits
            && rules.tick_ms <= now_ms.saturating_sub(self.stepped_ms)
            && hub.with(|shared| shared.board.past_use(rules.tick_ms)).is_some_and(|past| time < past);
        if is_due {
            self.stepped_ms = now_ms;
            self.lane.pass(time + rules.tick_ms);
        }
        is_due
    }

    /// A partition that is not one of the facts yet holds nobody back.
    fn follow(&mut self, hub: &Hub, rules: &Rules) {
        let pace = hub.with(|shared| shared.board.drained_pace(rules.tick_ms));
        self.lane.pass(floor_to(pace, rules.tick_ms));
    }

    fn standing(&self, drained: bool) -> Standing {
        let clock = self.lane.clock();
        let pace = clock.unwrap_or(0).max(self.lane.time());
        Standing { clock, pace, used: self.used, drained, ended: false }
    }

    /// Sends what is closed, then lets go of the times that it has left.
    fn send(
        &mut self,
        hub: &Hub,
        output: &mut OutputBuilderSession<'_, EventTime, CapacityContainerBuilder<Vec<Parcel>>>,
    ) {
        let Some(capability) = &mut self.capability else { return };
        for (time, parcel) in self.lane.drain() {
            output.session(&capability.delayed(&time)).give(parcel);
        }
        capability.downgrade(&self.lane.time());
        let over = hub.with(|shared| shared.ending) || self.lane.has_ended();
        if over {
            self.capability = None;
        }
    }
}
