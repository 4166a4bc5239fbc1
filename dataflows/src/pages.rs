//! A list that never moves what it holds: what grows by doubling touches twice the memory that it needs, and each page of
//! it that is new to the process is one that the kernel has to clear.

/// Items of a full page; a list of fewer grows like a vector.
const PAGE_ITEMS: usize = 1_024;

/// The list.
#[derive(Clone, Debug)]
pub struct Pages<T> {
    full: Vec<Vec<T>>,
    last: Vec<T>,
    len: usize,
}

impl<T> Default for Pages<T> {
    fn default() -> Self {
        Self { full: Vec::new(), last: Vec::new(), len: 0 }
    }
}

impl<T> Pages<T> {
    /// How many items there are.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds one.
    #[inline]
    pub fn push(&mut self, item: T) {
        if self.last.len() == PAGE_ITEMS {
            self.turn();
        }
        self.last.push(item);
        self.len += 1;
    }

    #[cold]
    fn turn(&mut self) {
        self.full.push(std::mem::replace(&mut self.last, Vec::with_capacity(PAGE_ITEMS)));
    }

    /// Adds all of another, behind these.
    pub fn append(&mut self, mut other: Self) {
        self.full.push(std::mem::take(&mut self.last));
        self.full.append(&mut other.full);
        self.last = other.last;
        self.len += other.len;
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.full.iter().flatten().chain(&self.last)
    }
}

impl<T> From<Vec<T>> for Pages<T> {
    /// As one page.
    fn from(items: Vec<T>) -> Self {
        Self { len: items.len(), full: vec![items], last: Vec::new() }
    }
}

impl<T> FromIterator<T> for Pages<T> {
    fn from_iter<I: IntoIterator<Item = T>>(items: I) -> Self {
        let mut pages = Self::default();
        items.into_iter().for_each(|item| pages.push(item));
        pages
    }
}

impl<T: PartialEq> PartialEq for Pages<T> {
    fn eq(&self, other: &Self) -> bool {
        self.len == other.len && self.iter().eq(other.iter())
    }
}

impl<T: Eq> Eq for Pages<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_stay_in_order_over_pages_and_lists() {
        for (one, other) in [(0, 0), (1, 0), (0, 1), (PAGE_ITEMS, 1), (PAGE_ITEMS + 1, 3 * PAGE_ITEMS)] {
            let mut pages: Pages<usize> = (0..one).collect();
            pages.append((one..one + other).collect());
            pages.push(one + other);
            pages.append(Pages::from(vec![one + other + 1]));
            assert_eq!(pages.len(), one + other + 2);
            assert!(pages.iter().copied().eq(0..one + other + 2), "{one} and {other}");
            assert_eq!(pages, Pages::from((0..one + other + 2).collect::<Vec<_>>()), "whatever its pages");
        }
        assert!(Pages::<u8>::default().is_empty());
    }

    #[test]
    fn what_it_holds_is_not_moved_once_there_are_pages() {
        let mut pages: Pages<usize> = (0..=PAGE_ITEMS).collect();
        let places =
            |pages: &Pages<usize>| pages.iter().take(PAGE_ITEMS + 1).map(std::ptr::from_ref).collect::<Vec<_>>();
        let before = places(&pages);
        (0..5 * PAGE_ITEMS).for_each(|item| pages.push(item));
        assert_eq!(places(&pages), before);
    }
}
