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
    control::Hub,
    lane::{Ended, Lane},
    parcel::Parcel,
    port::{Decode, PartitionReader, Reached, SourceError, Timer},
    rules::Rules,
    time::{EventTime, floor_to},
};

/// How long to wait before looking again for what was not there: well below the time a count may take to show.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What reading needs besides its partitions.
pub struct Reading {
    /// The settings of time.
    pub rules: Rules,
    /// What the end of an input means.
    pub ended: Ended,
    /// Time as the outside tells it.
    pub timer: Rc<dyn Timer>,
    /// Told why a partition can't be read; it then stays where it is and holds the frontier.
    pub on_error: Box<dyn FnMut(SourceError)>,
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
}

/// Builds the operator.
pub fn sources<'scope, D: Decode>(
    scope: Scope<'scope, EventTime>,
    hub: &Hub,
    lanes: Vec<(Box<dyn PartitionReader>, Lane<D>)>,
    mut reading: Reading,
) -> StreamVec<'scope, EventTime, Parcel> {
    let hub = hub.clone();
    source::<_, CapacityContainerBuilder<Vec<Parcel>>, _, _>(scope, "Sources", move |capability, info| {
        let again = scope.activator_for(info.address.clone());
        hub.wake_on_change(scope.activator_for(info.address));
        let start_ms = reading.timer.monotonic_ms();
        let mut wards: Vec<Ward<D>> = lanes
            .into_iter()
            .map(|(reader, lane)| Ward {
                capability: Some(capability.delayed(&lane.time())),
                reader,
                lane,
                used: None,
                at_end_ms: None,
                moved_ms: start_ms,
                stepped_ms: start_ms,
                failed: false,
            })
            .collect();
        drop(capability);
        move |output| {
            let now_ms = reading.timer.monotonic_ms();
            let mut more = false;
            for ward in wards.iter_mut().filter(|ward| ward.capability.is_some()) {
                more |= ward.turn(&hub, &mut reading, now_ms);
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

impl<D: Decode> Ward<D> {
    /// Reads a batch if it may, steps if there is nothing to read; says whether there is more to read at once.
    fn turn(&mut self, hub: &Hub, reading: &mut Reading, now_ms: u64) -> bool {
        let (stopping, limit) = hub.with(|shared| (shared.stopping, shared.board.clock_limit(&reading.rules)));
        let mut more = false;
        if !stopping && !self.failed && self.lane.clock().is_none_or(|clock| clock <= limit) {
            match self.read(limit, now_ms) {
                Ok(Reached::More) => {
                    more = true;
                    self.lane.set_coarse(true);
                }
                Ok(Reached::End) => {
                    self.at_end_ms = Some(now_ms);
                    self.lane.set_coarse(false);
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
            self.step(hub, &reading.rules, now_ms);
            hub.stand(self.lane.partition(), self.standing(drained));
        }
        more
    }

    fn read(&mut self, limit: EventTime, now_ms: u64) -> Result<Reached, SourceError> {
        let Self { reader, lane, used, .. } = self;
        let before = lane.clock();
        let reached = reader.read(&mut |record| {
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
    fn step(&mut self, hub: &Hub, rules: &Rules, now_ms: u64) {
        let (all, stopping, pace) =
            hub.with(|shared| (shared.board.all_drained(), shared.stopping, shared.board.drained_pace(rules.tick_ms)));
        let pace = floor_to(pace, rules.tick_ms);
        if self.lane.time() < pace && (!all || stopping || now_ms.saturating_sub(self.stepped_ms) >= rules.tick_ms) {
            self.stepped_ms = now_ms;
            self.lane.pass(pace);
        }
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
