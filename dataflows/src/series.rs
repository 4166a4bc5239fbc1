//! Names once: each (video, event type) gets a dense number where it is first seen.

use hashbrown::HashTable;
use serde::{Deserialize, Serialize};

use crate::identity::KeyGroup;

/// A series of counts: one video and event type, numbered densely by whoever interned it.
///
/// A number means something on one worker only; what crosses to another carries the name with its first use.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesNo(pub u32);

/// What a number stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Series {
    /// Which video.
    pub video_id: Box<str>,
    /// Which event type.
    pub event_type: Box<str>,
    /// The video's key group.
    pub group: KeyGroup,
}

/// The interned series. Invariant: `names[n]` is found under number `n`, and nothing else is found.
#[derive(Default)]
pub struct SeriesTable {
    table: HashTable<u32>,
    names: Vec<Series>,
}

fn hash(video_id: &str, event_type: &str) -> u64 {
    let video = xxhash_rust::xxh3::xxh3_64(video_id.as_bytes());
    xxhash_rust::xxh3::xxh3_64_with_seed(event_type.as_bytes(), video)
}

impl SeriesTable {
    /// The number of a series, if it has one.
    pub fn find(&self, video_id: &str, event_type: &str) -> Option<SeriesNo> {
        let is_it = |number: &u32| self.is(*number, video_id, event_type);
        self.table.find(hash(video_id, event_type), is_it).map(|number| SeriesNo(*number))
    }

    /// The number of a series, and whether it is new.
    #[inline]
    pub fn intern(&mut self, video_id: &str, event_type: &str) -> (SeriesNo, bool) {
        let hash_of_name = hash(video_id, event_type);
        if let Some(number) = self.table.find(hash_of_name, |number| self.is(*number, video_id, event_type)) {
            return (SeriesNo(*number), false);
        }
        let number = u32::try_from(self.names.len()).expect("memory ends before four billion names do");
        self.names.push(Series {
            video_id: video_id.into(),
            event_type: event_type.into(),
            group: KeyGroup::of(video_id),
        });
        let names = &self.names;
        self.table.insert_unique(hash_of_name, number, |number| {
            let name = &names[*number as usize];
            hash(&name.video_id, &name.event_type)
        });
        (SeriesNo(number), true)
    }

    #[inline]
    fn is(&self, number: u32, video_id: &str, event_type: &str) -> bool {
        let name = &self.names[number as usize];
        *name.video_id == *video_id && *name.event_type == *event_type
    }

    /// What the number stands for.
    #[inline]
    pub fn name(&self, number: SeriesNo) -> &Series {
        &self.names[number.0 as usize]
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Forgets all names; the numbers start anew.
    pub fn clear(&mut self) {
        self.table.clear();
        self.names.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let mut table = SeriesTable::default();
        assert_eq!(table.intern("a", "view"), (SeriesNo(0), true));
        assert_eq!(table.intern("a", "like"), (SeriesNo(1), true));
        assert_eq!(table.intern("a", "view"), (SeriesNo(0), false));
        assert_eq!(table.find("a", "like"), Some(SeriesNo(1)));
        assert_eq!(table.find("b", "like"), None);
        assert_eq!(&*table.name(SeriesNo(1)).event_type, "like");
    }

    #[test]
    fn names_survive_the_growth_of_the_table() {
        let mut table = SeriesTable::default();
        for n in 0..10_000 {
            table.intern(&format!("v{n}"), "view");
        }
        for n in 0..10_000 {
            assert_eq!(table.find(&format!("v{n}"), "view"), Some(SeriesNo(n)));
        }
    }
}
