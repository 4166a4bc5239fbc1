//! The desk: where threads outside the workers ask, and the operator that takes their questions into the dataflow.

use std::sync::{Arc, Mutex};

use serde::{Deserialize, Serialize};
use timely::{
    ExchangeData,
    container::CapacityContainerBuilder,
    dataflow::{Scope, StreamVec, operators::generic::operator::source},
    scheduling::SyncActivator,
};

use crate::{
    control::Hub,
    query::{Answer, Question},
    time::EventTime,
};

/// A question on its way: who asked and under which number the answer is expected.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Asked<Q = Question> {
    pub(crate) from: usize,
    pub(crate) ticket: u64,
    pub(crate) question: Q,
}

/// Lets threads outside the workers ask.
pub struct Questions<Q = Question>(Arc<Mutex<Desk<Q>>>);

struct Desk<Q> {
    waiting: Vec<(u64, Q)>,
    activator: Option<SyncActivator>,
    closed: bool,
}

impl<Q> Default for Questions<Q> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Desk { waiting: Vec::new(), activator: None, closed: false })))
    }
}

impl<Q> Clone for Questions<Q> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<Q> Questions<Q> {
    /// Asks, under a number of the caller's choice; `false` once the dataflow has ended.
    pub fn ask(&self, ticket: u64, question: Q) -> bool {
        let mut desk = self.0.lock().expect("nobody panics while holding the desk");
        if !desk.closed {
            desk.waiting.push((ticket, question));
            if let Some(activator) = &desk.activator {
                // An error means that the worker has ended: the caller's ticket is dropped with it.
                let _ = activator.activate();
            }
        }
        !desk.closed
    }
}

/// Takes an answer by its ticket. Must not block.
pub type Reply<A = Answer> = Box<dyn FnMut(u64, A)>;

/// What is asked at this worker's desk, if it has one.
pub(crate) fn ask<'scope, Q: ExchangeData>(
    scope: Scope<'scope, EventTime>,
    name: &str,
    hub: &Hub,
    desk: Option<Questions<Q>>,
) -> StreamVec<'scope, EventTime, Asked<Q>> {
    let hub = hub.clone();
    let from = scope.index();
    source::<_, CapacityContainerBuilder<Vec<Asked<Q>>>, _, _>(scope, name, move |capability, info| {
        hub.wake_on_change(scope.activator_for(info.address.clone()));
        if let Some(desk) = &desk {
            let mut desk = desk.0.lock().expect("nobody panics while holding the desk");
            desk.activator = Some(scope.worker().sync_activator_for(info.address.to_vec()));
        }
        // Questions travel at the least time for ever: nothing waits for them. A worker without a desk asks nothing.
        let mut capability = desk.is_some().then_some(capability);
        move |output| {
            let Some((desk, at)) = desk.as_ref().zip(capability.as_ref()) else { return };
            let mut desk = desk.0.lock().expect("nobody panics while holding the desk");
            let asked = desk.waiting.drain(..).map(|(ticket, question)| Asked { from, ticket, question });
            output.session(at).give_iterator(asked);
            if hub.with(|shared| shared.ending) {
                desk.closed = true;
                capability = None;
            }
        }
    })
}
