//! Names once: each (video, event type) gets a dense number where it is first seen.

use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use hashbrown::HashSet;
use serde::{Deserialize, Serialize};

use crate::{identity::KeyGroup, prefetch::prefetch};

/// A series of counts: one video and event type, numbered densely by whoever interned it.
///
/// A number means something on one worker only; what crosses to another carries the name with its first use.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct SeriesNo(pub u32);

/// What a number stands for.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Series {
    /// Which video.
    pub video_id: Arc<str>,
    /// Which event type.
    pub event_type: Arc<str>,
    /// The video's key group.
    pub group: KeyGroup,
}

impl Series {
    /// The first 16 bytes of `video id NUL event type`, as a number that sorts like them: no name has a NUL.
    fn head(&self) -> u128 {
        let (mut head, video) = ([0; 16], self.video_id.as_bytes());
        let shared = video.len().min(head.len());
        head[..shared].copy_from_slice(&video[..shared]);
        if let Some(rest) = head.get_mut(shared + 1..) {
            let kind = self.event_type.as_bytes();
            let shared = kind.len().min(rest.len());
            rest[..shared].copy_from_slice(&kind[..shared]);
        }
        u128::from_be_bytes(head)
    }
}

/// The interned series. Invariant: `names[n]` is found under number `n`, and nothing else is found.
///
/// Open addressing with linear probing, at most half full: one place in memory is looked at for every event, and callers may
/// have it fetched before.
#[derive(Default)]
pub struct SeriesTable {
    /// A power of two of them, or none.
    slots: Vec<Slot>,
    names: Vec<Series>,
    /// Each event type that the names have, once.
    kinds: HashSet<Arc<str>, foldhash::fast::FixedState>,
}

/// A number beside the name that it is found by, 32 bytes. Vacant where there is no video id.
#[derive(Copy, Clone, Default)]
#[repr(C, align(32))]
struct Slot {
    number: SeriesNo,
    group: KeyGroup,
    video_bytes: u8,
    type_bytes: u8,
    /// Video id and event type, where they fit.
    name: [u8; INLINE_BYTES],
}

const INLINE_BYTES: usize = 25;

/// Slots of the first table.
const SLOTS_MIN: usize = 64;

impl Slot {
    fn new(number: SeriesNo, name: &Series) -> Self {
        let (video, kind) = (name.video_id.as_bytes(), name.event_type.as_bytes());
        let mut inline = [0; INLINE_BYTES];
        if let Some(fits) = inline.get_mut(..video.len() + kind.len()) {
            fits[..video.len()].copy_from_slice(video);
            fits[video.len()..].copy_from_slice(kind);
        }
        let bytes = |text: &[u8]| u8::try_from(text.len()).expect("ids and event types are short");
        Self { number, group: name.group, video_bytes: bytes(video), type_bytes: bytes(kind), name: inline }
    }

    #[inline]
    fn is_vacant(&self) -> bool {
        self.video_bytes == 0
    }

    #[inline]
    fn is(&self, names: &[Series], video_id: &str, event_type: &str) -> bool {
        let (video, kind) = (usize::from(self.video_bytes), usize::from(self.type_bytes));
        if video != video_id.len() || kind != event_type.len() {
            return false;
        }
        match self.name.get(..video + kind) {
            Some(name) => name[..video] == *video_id.as_bytes() && name[video..] == *event_type.as_bytes(),
            None => {
                let name = &names[self.number.0 as usize];
                *name.video_id == *video_id && *name.event_type == *event_type
            }
        }
    }
}

/// A series as it was interned.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Interned {
    /// Its number.
    pub number: SeriesNo,
    /// Its video's key group.
    pub group: KeyGroup,
    /// Whether it has the number as of now.
    pub is_new: bool,
}

/// The hash of a name, as tables look for it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct NameHash(u64);

impl NameHash {
    /// Of this name.
    #[inline]
    pub fn of(video_id: &str, event_type: &str) -> Self {
        let video = xxhash_rust::xxh3::xxh3_64(video_id.as_bytes());
        Self(xxhash_rust::xxh3::xxh3_64_with_seed(event_type.as_bytes(), video))
    }
}

impl SeriesTable {
    /// Has the memory fetched that looking up a name will read.
    #[inline]
    pub fn prefetch(&self, hash: NameHash) {
        prefetch(&self.slots, self.home(hash));
    }

    #[inline]
    fn home(&self, hash: NameHash) -> usize {
        hash.0 as usize & self.slots.len().wrapping_sub(1)
    }

    /// The number of a series, if it has one.
    pub fn find(&self, video_id: &str, event_type: &str) -> Option<SeriesNo> {
        self.slot(NameHash::of(video_id, event_type), video_id, event_type).map(|slot| slot.number)
    }

    #[inline]
    fn slot(&self, hash: NameHash, video_id: &str, event_type: &str) -> Option<&Slot> {
        let (before, from) = self.slots.split_at(self.home(hash).min(self.slots.len()));
        let taken = from.iter().chain(before).take_while(|slot| !slot.is_vacant());
        taken.into_iter().find(|slot| slot.is(&self.names, video_id, event_type))
    }

    /// The number of a series.
    #[inline]
    pub fn intern(&mut self, video_id: &str, event_type: &str) -> Interned {
        self.intern_hashed(NameHash::of(video_id, event_type), video_id, event_type)
    }

    /// The same where the hash of the name is known.
    #[inline]
    pub fn intern_hashed(&mut self, hash: NameHash, video_id: &str, event_type: &str) -> Interned {
        match self.slot(hash, video_id, event_type) {
            Some(&Slot { number, group, .. }) => Interned { number, group, is_new: false },
            None => self.insert(hash, video_id, event_type),
        }
    }

    #[cold]
    fn insert(&mut self, hash: NameHash, video_id: &str, event_type: &str) -> Interned {
        let number = SeriesNo(u32::try_from(self.names.len()).expect("memory ends before four billion names do"));
        let group = KeyGroup::of(video_id);
        let event_type = Arc::clone(self.kinds.get_or_insert_with(event_type, |kind| kind.into()));
        self.names.push(Series { video_id: video_id.into(), event_type, group });
        if self.slots.len() < 2 * self.names.len() {
            self.slots = vec![Slot::default(); (2 * self.slots.len()).max(SLOTS_MIN)];
            for before in 0..number.0 {
                let name = &self.names[before as usize];
                self.put(NameHash::of(&name.video_id, &name.event_type), SeriesNo(before));
            }
        }
        self.put(hash, number);
        Interned { number, group, is_new: true }
    }

    /// Puts a name that is not there into the first vacant slot.
    fn put(&mut self, hash: NameHash, number: SeriesNo) {
        let slot = Slot::new(number, &self.names[number.0 as usize]);
        let home = self.home(hash);
        let (before, from) = self.slots.split_at_mut(home);
        let vacant = from.iter_mut().chain(before).find(|slot| slot.is_vacant());
        *vacant.expect("half of them are") = slot;
    }

    /// All numbers in the order of video id and event type, byte by byte.
    pub fn in_order(&self) -> Vec<SeriesNo> {
        // Most comparisons end with the first bytes, without a look at the names.
        let mut order: Vec<(u128, SeriesNo)> =
            self.names.iter().zip(0..).map(|(name, number)| (name.head(), SeriesNo(number))).collect();
        order.sort_unstable_by(|(one_head, one), (other_head, other)| {
            let name = |number: &SeriesNo| {
                let name = self.name(*number);
                (&*name.video_id, &*name.event_type)
            };
            one_head.cmp(other_head).then_with(|| name(one).cmp(&name(other)))
        });
        order.into_iter().map(|(_, number)| number).collect()
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
        self.slots.clear();
        self.names.clear();
        self.kinds.clear();
    }
}

/// The series of one worker, which threads outside may look up. Only the worker adds to it.
#[derive(Clone, Default)]
pub struct SeriesNames(Arc<RwLock<SeriesTable>>);

impl SeriesNames {
    /// To look names up.
    pub fn read(&self) -> RwLockReadGuard<'_, SeriesTable> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// To add names.
    pub fn write(&self) -> RwLockWriteGuard<'_, SeriesTable> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_keeps_its_number() {
        let mut table = SeriesTable::default();
        let mut intern = |video, kind| {
            let Interned { number, is_new, .. } = table.intern(video, kind);
            (number.0, is_new)
        };
        assert_eq!(intern("a", "view"), (0, true));
        assert_eq!(intern("a", "like"), (1, true));
        assert_eq!(intern("a", "view"), (0, false));
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
