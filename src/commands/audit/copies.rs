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
    identity::IdKey,
    port::{Decode as _, PartitionId, Reached},
};

use crate::{
    engine,
    exit::Failure,
    logging,
    recount::{self, Input},
};

/// While a broker has not answered yet.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// The first copy of an event.
struct First {
    said: [u64; 2],
    partition: PartitionId,
    offset: u64,
}

/// What has been seen, by identity.
struct Seen {
    key: IdKey,
    first: HashMap<[u64; 2], First>,
}

impl Seen {
    /// Notes an event; gives the place of the first copy if that says something else.
    fn note(&mut self, event: &Event<'_>, partition: PartitionId, offset: u64) -> Option<(PartitionId, u64)> {
        let id = self.key.identify(&event.video_id, &event.event_id);
        let rest = format!("{}:{:?}:{:?}", event.event_time, event.user_id, event.value.map(f64::to_bits));
        let said = self.key.identify(&event.event_type, &rest);
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
                Reached::More => {}
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
}
