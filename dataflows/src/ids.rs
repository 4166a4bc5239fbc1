//! A set of identities, each with a window: 18 bytes in pages, in the order in which they came, and a place of 4 bytes in a table.
//!
//! The table has open addressing over lines of the cache, 16 places each, with linear probing: Knuth, *The Art of Computer
//! Programming* 3, section 6.4. The first half of an identity is its hash; as a fraction of all lines it says which one is its home. What
//! the place of an identity leaves of its 32 bits is a tag, taken from the second half: hardly any other identity is looked at.
//!
//! Invariants: within a line what is taken comes first, and zeros, which are no place, behind it; all lines between an
//! identity's home and its own are full; the last line is never full, so there may be more behind the last home. So looking up
//! ends in the first line with room, mostly the first one.

use crate::{
    dedup::RememberedId,
    identity::EventKey,
    lanes,
    pages::{IdPages, PagePlace},
    prefetch::prefetch,
    time::Minute,
};

/// Places in a line.
const LINE_PLACES: usize = 16;

/// Homes of the smallest table.
const HOMES_MIN: usize = 2;

/// Lines behind the last home that a table has room for without being moved.
const SPARE_LINES: usize = 7;

/// One line of the cache: each place with its tag, or 0.
#[derive(Copy, Clone, Debug, Default)]
#[repr(C, align(64))]
struct Line([u32; LINE_PLACES]);

impl Line {
    /// The first of its places that is vacant, or [`LINE_PLACES`].
    #[inline]
    fn len(&self) -> usize {
        (lanes::alike(&self.0, 0, u32::MAX) | 1 << LINE_PLACES).trailing_zeros() as usize
    }
}

/// Where in the table an identity is, or would be put.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    line: usize,
    at: usize,
}

/// Where the identities are in the pages.
#[derive(Clone, Debug, Default)]
struct Table {
    lines: Vec<Line>,
    homes: usize,
    /// How many bits of an entry are the place.
    place_bits: u32,
    len: usize,
}

impl Table {
    #[inline]
    fn home(&self, id: EventKey) -> usize {
        ((u128::from(id[0]) * self.homes as u128) >> 64) as usize
    }

    /// Never zero, so that no vacant place is like it.
    #[inline]
    fn tag(&self, id: EventKey) -> u32 {
        (id[1] as u32 | 1) << self.place_bits
    }

    #[inline]
    fn place(&self, entry: u32) -> PagePlace {
        PagePlace((entry & ((1 << self.place_bits) - 1)) as usize - 1)
    }

    /// Places below this one are small enough.
    #[inline]
    fn places_end(&self) -> PagePlace {
        PagePlace((1_usize << self.place_bits) - 1)
    }

    #[inline]
    fn entry(&self, at: Entry) -> u32 {
        self.lines[at.line].0[at.at]
    }

    #[inline]
    fn find(&self, pages: &IdPages, id: EventKey) -> Result<Entry, Entry> {
        let (tag, mask) = (self.tag(id), u32::MAX << self.place_bits);
        let mut line = self.home(id);
        while let Some(entries) = self.lines.get(line) {
            let mut alike = lanes::alike(&entries.0, tag, mask);
            while alike != 0 {
                let at = Entry { line, at: alike.trailing_zeros() as usize };
                if pages.id(self.place(self.entry(at))) == id {
                    return Ok(at);
                }
                alike &= alike - 1;
            }
            let len = entries.len();
            if len < LINE_PLACES {
                return Err(Entry { line, at: len });
            }
            line += 1;
        }
        Err(Entry { line, at: 0 })
    }

    #[inline]
    fn set(&mut self, at: Entry, id: EventKey, place: PagePlace) {
        self.lines[at.line].0[at.at] = self.tag(id) | (place.0 as u32 + 1);
    }

    #[inline]
    fn put(&mut self, at: Entry, id: EventKey, place: PagePlace) {
        self.set(at, id, place);
        self.len += 1;
        if at.line + 1 == self.lines.len() && at.at + 1 == LINE_PLACES {
            // One by one: a vector that grows by itself takes twice the memory, for a line that hardly anybody is in.
            self.lines.reserve_exact(1);
            self.lines.push(Line::default());
        }
    }

    /// With 85 % of all places taken, no more are.
    #[inline]
    fn is_full(&self) -> bool {
        self.homes * LINE_PLACES * 17 <= self.len * 20
    }

    /// Where the next with this home is put that is not there.
    #[inline]
    fn vacancy(&self, id: EventKey) -> Entry {
        let mut line = self.home(id);
        loop {
            let at = self.lines[line].len();
            if at < LINE_PLACES {
                return Entry { line, at };
            }
            line += 1;
        }
    }

    /// Spreads all over so many homes. Of two that are the same one (where `is_unique`, there are none) the later is found.
    fn build(&mut self, pages: &IdPages, homes: usize, is_unique: bool) {
        if homes != self.homes {
            self.lines = Vec::with_capacity(homes + 1 + SPARE_LINES);
            self.homes = homes;
        }
        self.lines.clear();
        self.lines.resize(homes + 1, Line::default());
        // Twice as many as there are now, or this would be due again soon.
        self.place_bits = usize::BITS - (2 * pages.places().0).leading_zeros();
        assert!(self.place_bits < u32::BITS, "a billion remembered ids of one key group are out of reach");
        self.len = 0;
        pages.iter_places().for_each(|(place, id)| {
            let at = if is_unique { Err(self.vacancy(id)) } else { self.find(pages, id) };
            match at {
                Ok(at) => self.set(at, id, place),
                Err(at) => self.put(at, id, place),
            }
        });
    }
}

/// The set.
#[derive(Clone, Debug, Default)]
pub struct Ids {
    pages: IdPages,
    table: Table,
}

impl Ids {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.table.len
    }

    /// Has the memory fetched that looking up `id` will read.
    #[inline]
    pub fn prefetch(&self, id: EventKey) {
        prefetch(&self.table.lines, self.table.home(id));
    }

    /// Where `id` is, or where it would be put.
    #[inline]
    pub fn find(&self, id: EventKey) -> Result<Entry, Entry> {
        self.table.find(&self.pages, id)
    }

    #[inline]
    fn place(&self, at: Entry) -> PagePlace {
        self.table.place(self.table.entry(at))
    }

    /// The window of what is there.
    #[inline]
    pub fn minute(&self, at: Entry) -> Minute {
        self.pages.minute(self.place(at))
    }

    /// Gives what is there a later window.
    #[inline]
    pub fn put_again(&mut self, at: Entry, id: EventKey, minute: Minute) {
        let place = self.pages.push(RememberedId { id, minute });
        self.table.set(at, id, place);
        if self.table.places_end() <= self.pages.places() {
            self.build(self.table.homes);
        }
    }

    /// Puts in what is not there; `at` is what [`Ids::find`] says. Forgets windows before `first` where room is needed.
    #[inline]
    pub fn insert(&mut self, mut at: Entry, id: EventKey, minute: Minute, first: Minute) {
        if self.table.is_full() || self.table.places_end() <= self.pages.places() {
            self.make_room(first);
            at = self.table.vacancy(id);
        }
        let place = self.pages.push(RememberedId { id, minute });
        self.table.put(at, id, place);
    }

    fn build(&mut self, homes: usize) {
        let is_unique = self.is_unique();
        self.table.build(&self.pages, homes, is_unique);
    }

    /// Few have come twice, and mostly none has.
    fn is_unique(&self) -> bool {
        self.len() == self.pages.len()
    }

    #[cold]
    fn make_room(&mut self, first: Minute) {
        let homes = self.table.homes;
        self.forget(first);
        // Where little was forgotten, forgetting would be due again soon.
        if homes * LINE_PLACES * 7 <= self.len() * 10 || self.table.places_end() <= self.pages.places() {
            self.build(homes + homes / 4 + HOMES_MIN);
        }
    }

    /// Adds ids: those that are there already have these windows from here on.
    pub fn extend(&mut self, ids: &IdPages) {
        self.pages.append(ids);
        let homes = self.pages.len() * 5 / (4 * LINE_PLACES) + HOMES_MIN;
        self.table.build(&self.pages, homes.max(self.table.homes), false);
    }

    fn forget(&mut self, first: Minute) {
        let is_unique = self.is_unique();
        if self.pages.forget(first) {
            self.table.build(&self.pages, self.table.homes, is_unique);
        }
    }

    /// Forgets the windows before `first`, about a page of them not, and gives memory back where little is left.
    pub fn retain(&mut self, first: Minute) {
        self.forget(first);
        if HOMES_MIN < self.table.homes && self.len() * 4 < self.table.homes * LINE_PLACES {
            self.build(self.len() * 2 / LINE_PLACES + HOMES_MIN);
        }
    }

    /// All, in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = RememberedId> + '_ {
        let is_once = self.is_unique();
        let is_last = move |place, id| is_once || self.find(id).is_ok_and(|at| self.place(at) == place);
        let last = self.pages.iter_places().filter(move |(place, id)| is_last(*place, *id));
        last.map(|(place, id)| RememberedId { id, minute: self.pages.minute(place) })
    }

    /// What was added since the last call, or since [`Ids::mark_taken`].
    pub fn take_new(&mut self) -> IdPages {
        self.pages.take_new()
    }

    /// What is there is nothing new.
    pub fn mark_taken(&mut self) {
        self.pages.mark_taken();
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn assert_invariants(ids: &Ids) {
        let Table { lines, len, .. } = &ids.table;
        for (at, line) in lines.iter().enumerate() {
            assert!(line.0[line.len()..].iter().all(|entry| *entry == 0), "what is taken comes first");
            for entry in &line.0[..line.len()] {
                let home = ids.table.home(ids.pages.id(ids.table.place(*entry)));
                assert!(home <= at && lines[home..at].iter().all(|line| line.len() == LINE_PLACES));
            }
        }
        assert!(lines.last().is_none_or(|last| last.len() < LINE_PLACES), "the last one is never full");
        assert_eq!(lines.iter().map(Line::len).sum::<usize>(), *len);
    }

    /// Few first halves, so that many meet and crowd at both ends, and few second ones, so that tags meet.
    fn id() -> impl Strategy<Value = EventKey> {
        let half = prop_oneof![0..3_u64, u64::MAX - 2..=u64::MAX, any::<u64>(), (0..16_u64).prop_map(|n| n << 60)];
        (half, 1..200_u64, 0..3_u64).prop_map(|(first, second, high)| [first, second | high << 40])
    }

    #[derive(Clone, Debug)]
    enum Step {
        Put(EventKey, u32),
        Forget(u32),
        Extend(Vec<(EventKey, u32)>),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            60 => (id(), 0..20_u32).prop_map(|(id, minute)| Step::Put(id, minute)),
            1 => (0..20_u32).prop_map(Step::Forget),
            1 => prop::collection::vec((id(), 0..20_u32), 0..300).prop_map(Step::Extend),
        ]
    }

    proptest! {
        #[test]
        fn it_holds_what_a_map_holds(steps in prop::collection::vec(step(), 0..600)) {
            let (mut ids, mut map, mut forgotten) = (Ids::default(), BTreeMap::new(), Minute(0));
            // An id is counted again with a later window, never with an earlier one.
            let later = |map: &BTreeMap<EventKey, Minute>, id, minute| map.get(&id).copied().unwrap_or_default().max(Minute(minute));
            for step in steps {
                match step {
                    Step::Put(id, minute) => {
                        let minute = later(&map, id, minute);
                        match ids.find(id) {
                            Ok(at) => ids.put_again(at, id, minute),
                            Err(at) => ids.insert(at, id, minute, forgotten),
                        }
                        map.insert(id, minute);
                        let at = ids.find(id).expect("it was put in");
                        prop_assert_eq!(ids.minute(at), minute);
                    }
                    Step::Forget(first) => {
                        forgotten = forgotten.max(Minute(first));
                        ids.retain(forgotten);
                    }
                    Step::Extend(more) => {
                        let mut pages = IdPages::default();
                        for (id, minute) in more {
                            let minute = later(&map, id, minute);
                            pages.push(RememberedId { id, minute });
                            map.insert(id, minute);
                        }
                        ids.extend(&pages);
                    }
                }
                assert_invariants(&ids);
            }
            map.retain(|_, minute| *minute >= forgotten);
            let held: Vec<_> = ids.iter().filter(|known| known.minute >= forgotten).map(|known| (known.id, known.minute)).collect();
            prop_assert_eq!(held.len(), map.len(), "each once");
            prop_assert_eq!(held.into_iter().collect::<BTreeMap<_, _>>(), map);
        }
    }

    #[test]
    fn regression_a_full_last_line_does_not_double_the_memory() {
        // What is behind the last home grew as a vector does: one more line took as many again.
        let mut ids = Ids::default();
        ids.extend(&(1..=30_000).map(|number| RememberedId { id: [number << 40, 1], minute: Minute(1) }).collect());
        let lines = ids.table.lines.len();
        for number in 1..=1_000 {
            let id = [u64::MAX, number];
            let at = ids.find(id).expect_err("it is new");
            ids.insert(at, id, Minute(1), Minute(0));
        }
        let now = &ids.table.lines;
        assert!(lines + 20 < now.len(), "they are behind the last home");
        assert!(now.capacity() <= now.len() + SPARE_LINES, "{}", now.capacity());
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
            places = places.max(ids.table.lines.len() * LINE_PLACES);
        }
        assert!(places < 4_000, "{places} places for two rounds of a thousand");
        ids.retain(Minute(1_000));
        assert!(ids.len() == 0 && ids.table.lines.len() < 10);
    }
}
