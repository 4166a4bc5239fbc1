//! A set of identities, each with a window, three to a cache line.
//!
//! Open addressing over buckets of one line (64 bytes) with linear probing: Knuth, *The Art of Computer Programming* 3, section 6.4. The
//! first half of an identity is its hash; as a fraction of all buckets it says which one is its home.
//!
//! Invariants: within a bucket what is there comes first, and zeros, which are no identity, behind it; all buckets between an identity's home and its own are full; the last
//! bucket is never full. So looking up ends in the first bucket with room, mostly the first one.

use crate::{identity::EventKey, prefetch::prefetch, time::Minute};

/// Identities in a bucket.
const BUCKET_IDS: usize = 3;

/// Buckets behind the last home, for what is crowded out there.
const SLACK: usize = 8;

/// One line of the cache.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
#[repr(C, align(64))]
struct Bucket {
    ids: [EventKey; BUCKET_IDS],
    minutes: [Minute; BUCKET_IDS],
    len: u32,
}

impl Bucket {
    #[inline]
    fn is_full(&self) -> bool {
        self.len as usize == BUCKET_IDS
    }

    #[inline]
    fn push(&mut self, id: EventKey, minute: Minute) {
        let place = self.len as usize;
        (self.ids[place], self.minutes[place]) = (id, minute);
        self.len += 1;
    }

    fn iter(self) -> impl Iterator<Item = (EventKey, Minute)> {
        self.ids.into_iter().zip(self.minutes).take(self.len as usize)
    }
}

/// Where an identity is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Place {
    bucket: usize,
    place: usize,
}

/// The table.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    buckets: Vec<Bucket>,
    homes: usize,
    len: usize,
}

/// Homes of the next greater table.
fn greater(homes: usize) -> usize {
    homes + homes / 4 + SLACK
}

impl Ids {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    #[inline]
    fn home(&self, id: EventKey) -> usize {
        ((u128::from(id[0]) * self.homes as u128) >> 64) as usize
    }

    /// Has the memory fetched that looking up `id` will read.
    #[inline]
    pub fn prefetch(&self, id: EventKey) {
        prefetch(&self.buckets, self.home(id));
    }

    /// Where `id` is, or the bucket that it would be put into.
    #[inline]
    pub fn find(&self, id: EventKey) -> Result<Place, usize> {
        let home = self.home(id);
        for (more, there) in self.buckets[home..].iter().enumerate() {
            if let Some(place) = there.ids.iter().position(|there| *there == id) {
                return Ok(Place { bucket: home + more, place });
            }
            if !there.is_full() {
                return Err(home + more);
            }
        }
        Err(self.buckets.len())
    }

    /// The window of what is at a place.
    #[inline]
    pub fn minute(&self, at: Place) -> Minute {
        self.buckets[at.bucket].minutes[at.place]
    }

    /// Changes that window.
    #[inline]
    pub fn set_minute(&mut self, at: Place, minute: Minute) {
        self.buckets[at.bucket].minutes[at.place] = minute;
    }

    /// Puts in what is not there; `at` is the bucket that [`Ids::find`] says. Forgets windows before `first` where room is needed.
    #[inline]
    pub fn insert(&mut self, mut at: usize, id: EventKey, minute: Minute, first: Minute) {
        if !self.has_room(at) {
            at = self.make_room(id, first);
        }
        self.buckets[at].push(id, minute);
        self.len += 1;
    }

    /// Whether one more may go into a bucket: with 85 % of all places taken, no more do.
    #[inline]
    fn has_room(&self, at: usize) -> bool {
        let last = self.buckets.len().saturating_sub(1);
        self.len * 20 < self.homes * BUCKET_IDS * 17 && (at < last || self.buckets[at].len < 2)
    }

    #[cold]
    fn make_room(&mut self, id: EventKey, first: Minute) -> usize {
        self.retain(first);
        // Where little was forgotten, forgetting would be due again soon.
        if self.homes * BUCKET_IDS * 7 <= self.len * 10 {
            self.resize(greater(self.homes));
        }
        loop {
            match self.find(id) {
                Err(at) if self.has_room(at) => return at,
                _ => self.resize(greater(self.homes)),
            }
        }
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        let homes = (self.len + more) * 5 / (4 * BUCKET_IDS) + SLACK;
        if self.homes < homes {
            self.resize(homes);
        }
    }

    fn resize(&mut self, mut homes: usize) {
        *self = loop {
            match self.spread(homes) {
                Some(spread) => break spread,
                None => homes = greater(homes),
            }
        };
    }

    /// The same over so many homes, unless the last ones are crowded out.
    fn spread(&self, homes: usize) -> Option<Self> {
        let mut to = Self { buckets: vec![Bucket::default(); homes + SLACK], homes, len: self.len };
        let last = to.buckets.len() - 1;
        for (id, minute) in self.iter() {
            let home = to.home(id);
            let at = home + to.buckets[home..].iter().position(|bucket| !bucket.is_full())?;
            to.buckets[at].push(id, minute);
            if at == last && to.buckets[at].is_full() {
                return None;
            }
        }
        Some(to)
    }

    /// Forgets the windows before `first`, and gives memory back where little is left.
    pub fn retain(&mut self, first: Minute) {
        // What stays moves towards its home, never away, so what is behind is still to be read.
        for from in 0..self.buckets.len() {
            for (id, minute) in std::mem::take(&mut self.buckets[from]).iter() {
                if minute < first {
                    self.len -= 1;
                    continue;
                }
                let mut at = self.home(id);
                while self.buckets[at].is_full() {
                    at += 1;
                }
                self.buckets[at].push(id, minute);
            }
        }
        if SLACK < self.homes && self.len * 4 < self.homes * BUCKET_IDS {
            self.resize(self.len * 2 / BUCKET_IDS + SLACK);
        }
    }

    /// All, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (EventKey, Minute)> + '_ {
        self.buckets.iter().flat_map(|bucket| bucket.iter())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn assert_invariants(ids: &Ids) {
        for (at, bucket) in ids.buckets.iter().enumerate() {
            assert!(bucket.ids[bucket.len as usize..].iter().all(|id| *id == [0, 0]), "what is there comes first");
            for (id, _) in bucket.iter() {
                assert!(ids.home(id) <= at && ids.buckets[ids.home(id)..at].iter().all(Bucket::is_full));
            }
        }
        assert!(ids.buckets.last().is_none_or(|last| !last.is_full()), "the last one is never full");
        assert_eq!(ids.iter().count(), ids.len());
    }

    /// Few first halves, so that many meet and crowd at both ends.
    fn id() -> impl Strategy<Value = EventKey> {
        let half = prop_oneof![0..3_u64, u64::MAX - 2..=u64::MAX, any::<u64>(), (0..16_u64).prop_map(|n| n << 60)];
        (half, 1..200_u64).prop_map(|(first, second)| [first, second])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(EventKey, u32),
        Forget(u32),
        Reserve(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            60 => (id(), 0..20_u32).prop_map(|(id, minute)| Step::Put(id, minute)),
            1 => (0..20_u32).prop_map(Step::Forget),
            1 => (0..300_usize).prop_map(Step::Reserve),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec(step(), 0..600)) {
            let (mut ids, mut map) = (Ids::default(), BTreeMap::new());
            for step in steps {
                match step {
                    Step::Put(id, minute) => {
                        match ids.find(id) {
                            Ok(at) => ids.set_minute(at, Minute(minute)),
                            Err(at) => ids.insert(at, id, Minute(minute), Minute(0)),
                        }
                        map.insert(id, Minute(minute));
                        let at = ids.find(id).expect("it was put in");
                        prop_assert_eq!(ids.minute(at), Minute(minute));
                    }
                    Step::Forget(first) => {
                        ids.retain(Minute(first));
                        map.retain(|_, minute| *minute >= Minute(first));
                    }
                    Step::Reserve(more) => ids.reserve(more),
                }
                assert_invariants(&ids);
            }
            let held: BTreeMap<EventKey, Minute> = ids.iter().collect();
            prop_assert_eq!(held, map);
        }
    }

    #[test]
    fn what_is_forgotten_makes_room_before_the_table_grows() {
        let mut ids = Ids::default();
        let mut places = 0;
        for round in 0..100_u64 {
            for number in 0..1_000 {
                let id = [(round * 1_000 + number).wrapping_mul(0x9E37_79B9_7F4A_7C15), 1];
                let at = ids.find(id).expect_err("it is new");
                ids.insert(at, id, Minute(round as u32), Minute(round.saturating_sub(1) as u32));
            }
            places = places.max(ids.buckets.len() * BUCKET_IDS);
        }
        assert!(places < 4_000, "{places} places for two rounds of a thousand");
        ids.retain(Minute(1_000));
        assert!(ids.len() == 0 && ids.buckets.len() < 100);
    }
}
