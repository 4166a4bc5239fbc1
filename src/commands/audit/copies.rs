//! Copies of one id that are not the same event: any one of them counts, and an audit names them.

use std::{
    collections::{HashMap, hash_map::Entry},
    ops::ControlFlow,
    thread,
    time::Duration,
};

use connectors::json::JsonEvents;
use dataflows::{
    event::{Event, RECORD_BYTES_MAX},
    identity::{EventKey, IdKey},
    port::{Decode as _, PartitionId, Reached},
    time::EventTime,
};

use crate::{
    engine,
    exit::Failure,
    logging,
    recount::{self, Input},
};

/// While a broker has not answered yet.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// What a copy says besides its ids. No user is nobody's id, so the empty one stands for none.
#[derive(PartialEq)]
struct Said {
    event_time: EventTime,
    /// By its bits: of zero there are two.
    value: Option<u64>,
    /// Type and user.
    others: EventKey,
}

/// The first copy of an event.
struct First {
    said: Said,
    partition: PartitionId,
    offset: u64,
}

/// What has been seen, by identity.
struct Seen {
    key: IdKey,
    first: HashMap<EventKey, First>,
}

impl Seen {
    /// Notes an event; gives the place of the first copy if that says something else.
    fn note(&mut self, event: &Event<'_>, partition: PartitionId, offset: u64) -> Option<(PartitionId, u64)> {
        let id = self.key.identify(&event.video_id, &event.event_id);
        let said = Said {
            event_time: event.event_time,
            value: event.value.map(f64::to_bits),
            others: self.key.identify(&event.event_type, event.user_id.as_deref().unwrap_or_default()),
        };
        match self.first.entry(id) {
            Entry::Vacant(room) => {
                room.insert(First { said, partition, offset });
                None
            }
            Entry::Occupied(first) => (first.get().said != said).then(|| (first.get().partition, first.get().offset)),
        }
    }
}

/// Reads the input and names, on stderr, each copy that differs from the first with its id.
pub fn tell(input: Input) -> Result<(), Failure> {
    let mut seen = Seen { key: recount::secret()?, first: HashMap::new() };
    let mut different = 0_u64;
    for (_, mut reader) in input.readers {
        let partition = reader.partition();
        loop {
            let reached = reader.read(&mut |record| {
                if record.payload.len() <= RECORD_BYTES_MAX
                    && let Ok(event) = JsonEvents.decode(record.payload)
                    && let Some((first, at)) = seen.note(&event, partition, record.offset)
                {
                    different += 1;
                    eprintln!(
                        "copies differ: video {}, event {}, at {}:{at} and {}:{}",
                        logging::escape_line(&event.video_id),
                        logging::escape_line(&event.event_id),
                        first.0,
                        partition.0,
                        record.offset
                    );
                }
                ControlFlow::Continue(())
            });
            match reached.map_err(engine::source_failure)? {
                Reached::Finished | Reached::End => break,
                Reached::Waiting => thread::sleep(LOOK_AGAIN),
                Reached::More | Reached::Passed(_) => {}
            }
        }
    }
    if 0 < different {
        eprintln!("{different} copies differ from the first with their id: of such, any one counts");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_that_says_something_else_is_told_with_the_place_of_the_first() {
        let mut seen = Seen { key: IdKey([1, 2]), first: HashMap::new() };
        let event = |id: &'static str, event_time, value| Event {
            event_id: id.into(),
            video_id: "v".into(),
            event_type: "view".into(),
            event_time,
            user_id: None,
            value,
        };
        let mut note = |event: &Event<'_>, offset| seen.note(event, PartitionId(3), offset);
        assert_eq!(note(&event("a", 5, None), 10), None);
        assert_eq!(note(&event("a", 5, None), 11), None, "a verbatim copy");
        assert_eq!(note(&event("b", 6, None), 12), None);
        assert_eq!(note(&event("a", 6, None), 13), Some((PartitionId(3), 10)));
        assert_eq!(note(&event("a", 5, Some(1.0)), 14), Some((PartitionId(3), 10)));
    }

    /// What it said was hashed as text with quotes escaped, and that was longer than an identity may be.
    #[test]
    fn regression_the_longest_event_of_all_is_audited() {
        let mut seen = Seen { key: IdKey([1, 2]), first: HashMap::new() };
        let (id, user) = ("i".repeat(128), "\"".repeat(128));
        let mut event = Event {
            event_id: id.as_str().into(),
            video_id: id.as_str().into(),
            event_type: "t".repeat(64).into(),
            event_time: u64::MAX,
            user_id: Some(user.as_str().into()),
            value: Some(f64::MIN_POSITIVE),
        };
        assert_eq!(seen.note(&event, PartitionId(3), 10), None);
        event.user_id = None;
        assert_eq!(seen.note(&event, PartitionId(3), 11), Some((PartitionId(3), 10)));
    }
}
