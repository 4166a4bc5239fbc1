//! Dimensions: what is known of videos and channels beside their events.
//!
//! A name is a label, told to whoever asked as soon as it is heard. Which channel a video belongs to is data: each change has a
//! time, so that a channel's counts at a frontier are those of the videos that belong to it there, whole history included. A
//! video that moves is taken out of one channel and put into another at one time.
//!
//! Changes enter on worker 0 at the newest frontier it has heard of, so none is below a frontier that was ever answered
//! at. What was known before the start is below all of them.

use std::collections::HashMap;

use differential_dataflow::{
    operators::arrange::{Arranged, TraceAgent, arrangement::arrange_core},
    trace::implementations::{ValBatcher, ValSpine},
};
use serde::{Deserialize, Serialize};
use timely::{
    container::CapacityContainerBuilder,
    dataflow::{
        Scope, StreamVec,
        channels::pact::Pipeline,
        operators::{
            generic::operator::{Operator, source},
            vec::Broadcast,
        },
    },
};

use crate::{
    control::{Hub, Mailbox, Message},
    identity::KeyGroup,
    time::{END_OF_TIME, EventTime},
};

/// What is known of one video or channel from now on, whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Change {
    /// Of a video.
    Video {
        /// Which, as events name it.
        video_id: String,
        /// What people call it.
        name: Option<String>,
        /// Which channel it belongs to.
        channel_id: Option<String>,
    },
    /// Of a channel.
    Channel {
        /// Which.
        channel_id: String,
        /// What people call it.
        name: Option<String>,
    },
}

/// The greatest length of a name, bytes of UTF-8.
pub const NAME_BYTES_MAX: usize = 256;

/// Told of changes as soon as they are heard, with the time that they travel at. Must not block.
pub type TellChanges = Box<dyn FnMut(EventTime, &[Change])>;

/// What a worker is given of dimensions.
#[derive(Default)]
pub struct Dimensions {
    /// What was known before the start, and what comes; on worker 0.
    pub given: Option<(Vec<Change>, Mailbox<Vec<Change>>)>,
    /// Whom this worker tells.
    pub tell: Option<TellChanges>,
}

pub(crate) type MemberSpine = ValSpine<String, String, EventTime, isize>;

/// The videos of each channel, on the workers that own them.
pub(crate) type Members<'scope> = Arranged<'scope, TraceAgent<MemberSpine>>;

/// One update of it.
type Member = ((String, String), EventTime, isize);

/// Takes changes in, and arranges which video belongs to which channel.
///
/// * exchange: each change to all workers, since each process has its labels
/// * state: the channel of each video that this worker owns; the trace
pub(crate) fn members<'scope>(scope: Scope<'scope, EventTime>, hub: &Hub, dimensions: Dimensions) -> Members<'scope> {
    let Dimensions { given, mut tell } = dimensions;
    let (index, peers) = (scope.index(), scope.peers());
    let heard = changes(scope, hub, given).broadcast();
    let mut channels: HashMap<String, String> = HashMap::new();
    let moves = heard.unary::<CapacityContainerBuilder<Vec<Member>>, _, _, _>(Pipeline, "Members", move |_, _| {
        move |input, output| {
            input.for_each(|capability, changes| {
                let time = *capability.least().expect("changes travel at a time");
                if let Some(tell) = &mut tell {
                    tell(time, changes);
                }
                let mut session = output.session(&capability);
                for change in changes.drain(..) {
                    let Change::Video { video_id, channel_id, .. } = change else { continue };
                    if KeyGroup::of(&video_id).owner(peers) == index {
                        for (channel, difference) in put(&mut channels, &video_id, channel_id) {
                            session.give(((channel, video_id.clone()), time, difference));
                        }
                    }
                }
            });
        }
    });
    arrange_core::<_, _, ValBatcher<String, String, EventTime, isize>, MemberSpine>(
        moves,
        Pipeline,
        "IndexMembers",
        ValBatcher::new,
    )
}

/// Puts a video into a channel, or into none: what it is taken out of, and what it is put into.
fn put(
    channels: &mut HashMap<String, String>,
    video_id: &str,
    channel_id: Option<String>,
) -> impl Iterator<Item = (String, isize)> {
    let before = match &channel_id {
        Some(channel_id) => channels.insert(video_id.to_owned(), channel_id.clone()),
        None => channels.remove(video_id),
    };
    let is_same = before == channel_id;
    let moves = before.map(|channel| (channel, -1)).into_iter().chain(channel_id.map(|channel| (channel, 1)));
    moves.filter(move |_| !is_same)
}

fn changes<'scope>(
    scope: Scope<'scope, EventTime>,
    hub: &Hub,
    given: Option<(Vec<Change>, Mailbox<Vec<Change>>)>,
) -> StreamVec<'scope, EventTime, Change> {
    let hub = hub.clone();
    source::<_, CapacityContainerBuilder<Vec<Change>>, _, _>(scope, "Dimensions", move |capability, info| {
        let (mut known, mailbox) = given.unzip();
        if let Some(mailbox) = &mailbox {
            mailbox.attach(scope.worker().sync_activator_for(info.address.to_vec()));
            hub.wake_on_change(scope.activator_for(info.address.clone()));
            hub.wake_on_frontier(scope.activator_for(info.address));
        }
        let mut capability = mailbox.is_some().then_some(capability);
        move |output| {
            let Some((mailbox, at)) = mailbox.as_ref().zip(capability.as_mut()) else { return };
            output.session(&*at).give_iterator(known.take().into_iter().flatten());
            let (reached, ending) = hub.with(|shared| (shared.facts.frontier, shared.ending));
            if ending || reached == END_OF_TIME {
                capability = None;
                return;
            }
            if *at.time() < reached {
                at.downgrade(&reached);
            }
            // Taken behind that: a change is never below what has been answered at.
            let news = mailbox.take();
            if !news.is_empty() {
                output.session(&*at).give_iterator(news.into_iter().flatten());
                hub.tell(Message::Used(reached));
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_video_leaves_one_channel_for_another_and_no_move_is_none() {
        let mut channels = HashMap::new();
        let mut moves = |channel: Option<&str>| -> Vec<(String, isize)> {
            put(&mut channels, "v", channel.map(str::to_owned)).collect()
        };
        let of = |moves: &[(&str, isize)]| -> Vec<(String, isize)> {
            moves.iter().map(|(channel, difference)| ((*channel).to_owned(), *difference)).collect()
        };
        assert_eq!(moves(None), []);
        assert_eq!(moves(Some("a")), of(&[("a", 1)]));
        assert_eq!(moves(Some("a")), []);
        assert_eq!(moves(Some("b")), of(&[("a", -1), ("b", 1)]));
        assert_eq!(moves(None), of(&[("b", -1)]));
    }
}
