//! A set of identities, each with a window, three to a cache line.
//!
//! Open addressing over buckets of one line (64 bytes) with linear probing: Knuth, *The Art of Computer Programming* 3, section 6.4. The
//! first half of an identity is its hash; as a fraction of all buckets it says which one is its home.
//!
//! Invariants: within a bucket what is there comes first, and zeros, which are no identity, behind it; all buckets between an
//! identity's home and its own are full; the last bucket is never full, so there may be more behind the last home. So looking up
//! ends in the first bucket with room, mostly the first one.

use crate::{identity::EventKey, prefetch::prefetch, time::Minute};

/// Identities in a bucket.
const BUCKET_IDS: usize = 3;

/// Homes of the smallest table.
const HOMES_MIN: usize = 8;

/// Buckets behind the last home that a table has room for without being moved.
const SPARE_BUCKETS: usize = 7;

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
        // With 85 % of all places taken, no more are.
        if self.homes * BUCKET_IDS * 17 <= self.len * 20 {
            self.make_room(first);
            at = self.find(id).expect_err("it is not there");
        }
        self.put(at, id, minute);
        self.len += 1;
    }

    #[inline]
    fn put(&mut self, at: usize, id: EventKey, minute: Minute) {
        self.buckets[at].push(id, minute);
        if at + 1 == self.buckets.len() && self.buckets[at].is_full() {
            // One by one: a vector that grows by itself takes twice the memory, for a bucket that hardly anybody is in.
            self.buckets.reserve_exact(1);
            self.buckets.push(Bucket::default());
        }
    }

    #[cold]
    fn make_room(&mut self, first: Minute) {
        self.retain(first);
        // Where little was forgotten, forgetting would be due again soon.
        if self.homes * BUCKET_IDS * 7 <= self.len * 10 {
            self.resize(self.homes + self.homes / 4 + HOMES_MIN);
        }
    }

    /// Makes room for so many more.
    pub fn reserve(&mut self, more: usize) {
        let homes = (self.len + more) * 5 / (4 * BUCKET_IDS) + HOMES_MIN;
        if self.homes < homes {
            self.resize(homes);
        }
    }

    /// Spreads all over so many homes.
    fn resize(&mut self, homes: usize) {
        let mut buckets = Vec::with_capacity(homes + 1 + SPARE_BUCKETS);
        buckets.resize(homes + 1, Bucket::default());
        let mut to = Self { buckets, homes, len: self.len };
        for (id, minute) in self.iter() {
            let at = to.find(id).expect_err("each is there once");
            to.put(at, id, minute);
        }
        *self = to;
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
        if HOMES_MIN < self.homes && self.len * 4 < self.homes * BUCKET_IDS {
            self.resize(self.len * 2 / BUCKET_IDS + HOMES_MIN);
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
    fn regression_a_full_last_bucket_does_not_double_the_memory() {
        // What is behind the last home grew as a vector does: one more bucket took as many again.
        let mut ids = Ids::default();
        ids.reserve(30_000);
        let buckets = ids.buckets.len();
        for number in 1..=100 {
            let id = [u64::MAX, number];
            let at = ids.find(id).expect_err("it is new");
            ids.insert(at, id, Minute(1), Minute(0));
        }
        assert!(buckets + 20 < ids.buckets.len(), "they are behind the last home");
        assert!(ids.buckets.capacity() <= ids.buckets.len() + SPARE_BUCKETS, "{}", ids.buckets.capacity());
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
