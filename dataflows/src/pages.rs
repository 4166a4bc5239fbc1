//! Remembered ids in the order in which they came, in pages that never change once they are full.
//!
//! So a checkpoint shares the pages that are new to it with the keeper and copies only what the open page holds, while the worker goes
//! on; and nothing that is held is ever moved.

use std::sync::Arc;

use crate::{dedup::RememberedId, identity::EventKey, time::Minute};

/// Ids in a page: with it, and the counters of who shares it, a page takes 4 KiB.
pub(crate) const PAGE_IDS: usize = 226;

/// Places in a page, some of which stay vacant: a power of two.
const PAGE_PLACES: usize = 256;

/// Ids whose windows lie within 45 days.
#[derive(Debug)]
pub struct Page {
    /// The first and the last window.
    first: Minute,
    last: Minute,
    len: u32,
    /// From the first window on.
    minutes: [u16; PAGE_IDS],
    ids: [EventKey; PAGE_IDS],
}

const _: () = assert!(size_of::<Page>() + 2 * size_of::<usize>() == 4_096);

impl Page {
    fn new(open: &OpenPage) -> Self {
        let OpenPage { first, last, .. } = *open;
        let mut page = Self { first, last, len: open.ids.len() as u32, minutes: [0; _], ids: [[0; 2]; _] };
        page.ids.iter_mut().zip(&open.ids).for_each(|(at, known)| *at = known.id);
        page.minutes.iter_mut().zip(&open.ids).for_each(|(at, known)| *at = (known.minute.0 - first.0) as u16);
        page
    }

    fn minute(&self, at: usize) -> Minute {
        Minute(self.first.0 + u32::from(self.minutes[at]))
    }

    fn iter(&self) -> impl Iterator<Item = RememberedId> {
        self.ids().iter().enumerate().map(|(at, id)| RememberedId { id: *id, minute: self.minute(at) })
    }

    /// The first window.
    pub fn first(&self) -> Minute {
        self.first
    }

    /// Of each id, how far its window is behind the first.
    pub fn minutes(&self) -> &[u16] {
        &self.minutes[..self.len as usize]
    }

    /// The ids.
    pub fn ids(&self) -> &[EventKey] {
        &self.ids[..self.len as usize]
    }
}

/// The page that is being filled.
#[derive(Clone, Debug)]
struct OpenPage {
    ids: Vec<RememberedId>,
    first: Minute,
    last: Minute,
}

impl Default for OpenPage {
    fn default() -> Self {
        Self { ids: Vec::new(), first: Minute(u32::MAX), last: Minute(0) }
    }
}

impl OpenPage {
    /// Adds one where there is room.
    #[inline]
    fn push(&mut self, known: RememberedId) -> bool {
        let (first, last) = (self.first.min(known.minute), self.last.max(known.minute));
        if self.ids.len() == PAGE_IDS || u32::from(u16::MAX) < last.0 - first.0 {
            return false;
        }
        (self.first, self.last) = (first, last);
        self.ids.push(known);
        true
    }

    fn page(&self) -> Option<Arc<Page>> {
        (!self.ids.is_empty()).then(|| Arc::new(Page::new(self)))
    }

    fn clear(&mut self) {
        self.ids.clear();
        (self.first, self.last) = (Minute(u32::MAX), Minute(0));
    }
}

/// Where an id is: the number of its page, then that within the page.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PagePlace(pub usize);

impl PagePlace {
    #[inline]
    fn new(page: usize, at: usize) -> Self {
        Self(page * PAGE_PLACES + at)
    }

    #[inline]
    fn parts(self) -> (usize, usize) {
        (self.0 / PAGE_PLACES, self.0 % PAGE_PLACES)
    }
}

/// Remembered ids; of two that are the same one, the later is in force.
#[derive(Clone, Debug, Default)]
pub struct IdPages {
    closed: Vec<Arc<Page>>,
    open: OpenPage,
    len: usize,
    /// What was there when they were last taken: so many closed pages, and so many ids of the next.
    taken: (usize, usize),
}

impl IdPages {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The first place that none of them has, nor the next one.
    #[inline]
    pub fn places(&self) -> PagePlace {
        PagePlace::new(self.closed.len() + 2, 0)
    }

    /// Adds one and says where it is.
    #[inline]
    pub fn push(&mut self, known: RememberedId) -> PagePlace {
        if !self.open.push(known) {
            self.turn();
            self.open.push(known);
        }
        self.len += 1;
        PagePlace::new(self.closed.len(), self.open.ids.len() - 1)
    }

    #[cold]
    fn turn(&mut self) {
        self.closed.extend(self.open.page());
        self.open.clear();
    }

    /// The id at a place.
    #[inline]
    pub fn id(&self, place: PagePlace) -> EventKey {
        let (page, at) = place.parts();
        self.closed.get(page).map_or_else(|| self.open.ids[at].id, |page| page.ids[at])
    }

    /// Its window.
    #[inline]
    pub fn minute(&self, place: PagePlace) -> Minute {
        let (page, at) = place.parts();
        self.closed.get(page).map_or_else(|| self.open.ids[at].minute, |page| page.minute(at))
    }

    /// Adds all of another, behind these: full pages are shared.
    pub fn append(&mut self, other: &Self) {
        self.append_pages(&other.closed, &other.open);
    }

    fn append_pages(&mut self, closed: &[Arc<Page>], open: &OpenPage) {
        if !closed.is_empty() {
            self.turn();
            self.closed.extend_from_slice(closed);
            self.len += closed.iter().map(|page| page.len as usize).sum::<usize>();
        }
        self.extend(open.ids.iter().copied());
    }

    /// What was added since the last call, or since [`IdPages::mark_taken`].
    pub fn take_new(&mut self) -> Self {
        let (pages, ids) = self.taken;
        let mut new = Self::default();
        match self.closed.get(pages) {
            Some(begun) if ids > 0 => {
                new.extend(begun.iter().skip(ids));
                new.append_pages(&self.closed[pages + 1..], &self.open);
            }
            Some(_) => new.append_pages(&self.closed[pages..], &self.open),
            None => new.extend(self.open.ids.iter().copied().skip(ids)),
        }
        self.mark_taken();
        new
    }

    /// What is there is nothing new.
    pub fn mark_taken(&mut self) {
        self.taken = (self.closed.len(), self.open.ids.len());
    }

    /// Lets the pages go that have only windows before `first`; whether there were any. Places are others then.
    pub fn forget(&mut self, first: Minute) -> bool {
        let before = self.len;
        let (begun, ids) = self.taken;
        if !self.open.ids.is_empty() && self.open.last < first {
            self.len -= self.open.ids.len();
            self.open.clear();
            self.taken.1 = if begun == self.closed.len() { 0 } else { ids };
        }
        let mut number = 0;
        self.closed.retain(|page| {
            let stays = first <= page.last;
            if !stays {
                self.len -= page.len as usize;
                self.taken.0 -= usize::from(number < begun);
                self.taken.1 = if number == begun { 0 } else { self.taken.1 };
            }
            number += 1;
            stays
        });
        self.len < before
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = RememberedId> + '_ {
        self.closed.iter().flat_map(|page| page.iter()).chain(self.open.ids.iter().copied())
    }

    /// All with their places, in order.
    #[inline]
    pub fn iter_places(&self) -> impl Iterator<Item = (PagePlace, EventKey)> + '_ {
        let closed =
            self.closed.iter().enumerate().flat_map(|(page, ids)| {
                ids.ids().iter().enumerate().map(move |(at, id)| (PagePlace::new(page, at), *id))
            });
        let open = self.open.ids.iter().enumerate();
        closed.chain(open.map(|(at, known)| (PagePlace::new(self.closed.len(), at), known.id)))
    }

    /// Page by page; the last one is a copy of what is not closed.
    pub fn pages(&self) -> impl Iterator<Item = Arc<Page>> + '_ {
        self.closed.iter().cloned().chain(self.open.page())
    }
}

impl Extend<RememberedId> for IdPages {
    fn extend<I: IntoIterator<Item = RememberedId>>(&mut self, ids: I) {
        ids.into_iter().for_each(|known| _ = self.push(known));
    }
}

impl FromIterator<RememberedId> for IdPages {
    fn from_iter<I: IntoIterator<Item = RememberedId>>(ids: I) -> Self {
        let mut pages = Self::default();
        pages.extend(ids);
        pages
    }
}

impl PartialEq for IdPages {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl Eq for IdPages {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn known(number: u64, minute: u32) -> RememberedId {
        RememberedId { id: [number, 1], minute: Minute(minute) }
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push(Vec<u32>),
        Append(Vec<u32>),
        Take,
        Forget(u32),
    }

    fn step() -> impl Strategy<Value = Step> {
        // Minutes that lie near each other, with some far away.
        let minute = prop_oneof![20 => 0..50_u32, 1 => 60_000..70_000_u32, 1 => Just(u32::MAX)];
        let minutes = prop::collection::vec(minute, 0..3 * PAGE_IDS);
        prop_oneof![
            3 => minutes.clone().prop_map(Step::Push),
            1 => minutes.prop_map(Step::Append),
            2 => Just(Step::Take),
            1 => (0..60_u32).prop_map(Step::Forget),
        ]
    }

    proptest! {
        #[test]
        fn they_are_a_list_whose_news_are_taken_once_and_that_forgets_at_most_what_it_may(
            steps in prop::collection::vec(step(), 0..20)
        ) {
            let (mut pages, mut list) = (IdPages::default(), Vec::new());
            let (mut number, mut untaken) = (0, Vec::new());
            for step in steps {
                let mut number_all = |minutes: Vec<u32>| minutes.into_iter().map(|minute| { number += 1; known(number, minute) }).collect::<Vec<_>>();
                match step {
                    Step::Push(minutes) => for known in number_all(minutes) {
                        let place = pages.push(known);
                        prop_assert!(place < pages.places());
                        prop_assert_eq!((pages.id(place), pages.minute(place)), (known.id, known.minute));
                        list.push(known);
                        untaken.push(known);
                    },
                    Step::Append(minutes) => {
                        let more = number_all(minutes);
                        pages.append(&more.iter().copied().collect());
                        list.extend_from_slice(&more);
                        untaken.extend(more);
                    }
                    Step::Take => prop_assert!(pages.take_new().iter().eq(std::mem::take(&mut untaken))),
                    Step::Forget(first) => {
                        pages.forget(Minute(first));
                        // Of what may go anything may stay; all else has to.
                        let held: std::collections::HashSet<_> = pages.iter().map(|known| known.id).collect();
                        let stays = |known: &RememberedId| held.contains(&known.id);
                        prop_assert!(list.iter().all(|known| known.minute < Minute(first) || stays(known)));
                        list.retain(stays);
                        untaken.retain(stays);
                    }
                }
                prop_assert_eq!(pages.len(), list.len());
                prop_assert!(pages.iter().eq(list.iter().copied()));
                prop_assert!(pages.iter_places().map(|(_, id)| id).eq(list.iter().map(|known| known.id)));
                prop_assert!(pages.iter_places().all(|(place, id)| pages.id(place) == id));
                let stored = pages.pages().flat_map(|page| page.iter().collect::<Vec<_>>()).collect::<Vec<_>>();
                prop_assert_eq!(&stored, &list);
            }
        }
    }

    #[test]
    fn what_is_taken_shares_its_full_pages() {
        let mut pages: IdPages = (0..2 * PAGE_IDS as u64 + 5).map(|number| known(number, 7)).collect();
        let taken = pages.take_new();
        assert!(
            taken.closed.len() == 2
                && taken.closed.iter().zip(&pages.closed).all(|(one, other)| Arc::ptr_eq(one, other))
        );
        pages.extend([known(1_000, 8)]);
        assert_eq!(pages.take_new(), [known(1_000, 8)].into_iter().collect());
    }
}
