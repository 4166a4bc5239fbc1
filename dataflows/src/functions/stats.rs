//! The functions of one cell, or of several that were merged.
//!
//! Invariant: each group says of how many events it is (`events`). A cell has what is asked for where that is its count: events
//! from before a group was kept are missing, which can be told and is never passed over.

use std::{borrow::Cow, sync::Arc};

use differential_dataflow::difference::{IsZero, Semigroup};
use serde::{Deserialize, Serialize};

use super::{
    Kept,
    distinct::{Distinct, REGISTERS},
    quantiles::Quantiles,
    sum::ExactSum,
};
use crate::{
    checkpoint::frame::{FieldReader, Fields},
    prefetch::{prefetch, prefetch_whole},
};

/// What one event adds.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct Detail {
    /// What is kept of it.
    pub kept: Kept,
    /// Its value.
    pub value: Option<f64>,
    /// Its user, by [`crate::identity::user_hash`].
    pub user: Option<u64>,
}

/// What is known beside the count. Also the difference of an update of the index: zero where no events are left, as windows are
/// taken out whole.
///
/// Clones share what they are of until one of them changes: the index copies differences as it merges its batches, and checkpoints
/// take cells that may never change again.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stats(Shape);

/// Invariant (canonical form, so that equal functions are equal bytes): each is as small as it can be.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
enum Shape {
    #[default]
    Nothing,
    /// Most windows have one event.
    One(One),
    Many(#[serde(with = "owned")] Arc<Groups>),
}

/// One event of which all is kept.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct One {
    /// The bits of a finite value, not of the negative zero, or all of them.
    value: u64,
    /// Of a user, or zero.
    user: u64,
}

impl One {
    const NO_VALUE: u64 = u64::MAX;

    fn of(detail: Detail) -> Option<Self> {
        // There is one zero.
        let value = detail.value.map_or(Self::NO_VALUE, |value| (value + 0.0).to_bits());
        (detail.kept == Kept::ALL && detail.user != Some(0)).then_some(Self { value, user: detail.user.unwrap_or(0) })
    }

    fn detail(self) -> Detail {
        let value = (self.value != Self::NO_VALUE).then_some(f64::from_bits(self.value));
        Detail { kept: Kept::ALL, value, user: (self.user != 0).then_some(self.user) }
    }

    fn groups(self) -> Groups {
        let mut groups = Groups::default();
        groups.add(self.detail());
        groups
    }

    fn is_sound(self) -> bool {
        let value = f64::from_bits(self.value);
        self.value == Self::NO_VALUE || value.is_finite() && self.value != (-0.0_f64).to_bits()
    }
}

/// On the way to others, each is by itself.
mod owned {
    use std::sync::Arc;

    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer};

    use super::Groups;

    pub fn serialize<S: Serializer>(groups: &Arc<Groups>, serializer: S) -> Result<S::Ok, S::Error> {
        groups.as_ref().serialize(serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Arc<Groups>, D::Error> {
        Groups::deserialize(deserializer).map(Arc::new)
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Groups {
    values: Option<Of<Values>>,
    distinct: Option<Of<Distinct>>,
    quantiles: Option<Of<Quantiles>>,
}

impl Groups {
    fn add(&mut self, detail: Detail) {
        let Self { values, distinct, quantiles } = self;
        add(values, detail.kept.values, detail.value, Values::add);
        add(distinct, detail.kept.distinct, detail.user, Distinct::add);
        add(quantiles, detail.kept.quantiles, detail.value, Quantiles::add);
    }

    fn merge(&mut self, other: &Self) {
        let Self { values, distinct, quantiles } = self;
        merge(values, &other.values, Values::merge);
        merge(distinct, &other.distinct, Distinct::merge);
        merge(quantiles, &other.quantiles, Quantiles::merge);
    }

    /// The one event that this is of, where it is of one.
    fn one(&self) -> Option<One> {
        let (values, distinct) = (self.values.as_ref()?, self.distinct.as_ref()?);
        if values.events != 1 || distinct.events != 1 || self.quantiles.as_ref()?.events != 1 {
            return None;
        }
        let users = match &distinct.group {
            Distinct::Exact(users) => users,
            Distinct::Sketch(_) => return None,
        };
        let value = values.group.range().map(|(least, _)| least);
        let one = One::of(Detail { kept: Kept::ALL, value, user: users.first().copied() })?;
        // Events that were taken out again, or of which not all was kept, may leave what no event has.
        (one.groups() == *self).then_some(one)
    }
}

/// A group with the number of events that went through it; negative where they are taken out.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Of<T> {
    events: i64,
    group: T,
}

/// Of the events that have a value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Values {
    /// How many there are.
    pub number: u64,
    /// What they come to.
    pub sum: ExactSum,
    least: Ordered,
    greatest: Ordered,
}

impl Default for Values {
    fn default() -> Self {
        let (least, greatest) = (Ordered::of(f64::INFINITY), Ordered::of(f64::NEG_INFINITY));
        Self { number: 0, sum: ExactSum::default(), least, greatest }
    }
}

/// A double whose bits sort as it does.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Ordered(u64);

impl Ordered {
    const SIGN: u64 = 1 << 63;

    fn of(value: f64) -> Self {
        // There is one zero.
        let bits = (value + 0.0).to_bits();
        Self(if bits & Self::SIGN == 0 { bits | Self::SIGN } else { !bits })
    }

    fn value(self) -> f64 {
        f64::from_bits(if self.0 & Self::SIGN == 0 { !self.0 } else { self.0 & !Self::SIGN })
    }
}

impl Values {
    fn add(&mut self, value: f64) {
        self.number += 1;
        self.sum.add(&ExactSum::from(value));
        self.least = self.least.min(Ordered::of(value));
        self.greatest = self.greatest.max(Ordered::of(value));
    }

    fn merge(&mut self, other: &Self) {
        self.number += other.number;
        self.sum.add(&other.sum);
        self.least = self.least.min(other.least);
        self.greatest = self.greatest.max(other.greatest);
    }

    /// The least and the greatest, where there are any.
    pub fn range(&self) -> Option<(f64, f64)> {
        (self.number != 0).then(|| (self.least.value(), self.greatest.value()))
    }

    /// The exact sum, rounded, through their number, rounded. `None` where there are none, or the sum is beyond all doubles.
    pub fn mean(&self) -> Option<f64> {
        (self.number != 0).then(|| self.sum.rounded()).flatten().map(|sum| sum / self.number as f64)
    }
}

impl Stats {
    fn of(groups: Arc<Groups>) -> Self {
        match groups.one() {
            Some(one) => Self(Shape::One(one)),
            None if *groups == Groups::default() => Self::default(),
            None => Self(Shape::Many(groups)),
        }
    }

    fn groups(&self) -> Cow<'_, Groups> {
        match &self.0 {
            Shape::Nothing => Cow::Owned(Groups::default()),
            Shape::One(one) => Cow::Owned(one.groups()),
            Shape::Many(groups) => Cow::Borrowed(groups),
        }
    }

    fn change(&mut self, change: impl FnOnce(&mut Groups)) {
        let mut groups = match std::mem::take(&mut self.0) {
            Shape::Nothing => Arc::default(),
            Shape::One(one) => Arc::new(one.groups()),
            Shape::Many(groups) => groups,
        };
        change(Arc::make_mut(&mut groups));
        *self = Self::of(groups);
    }

    /// Adds one event.
    pub fn add(&mut self, detail: Detail) {
        match One::of(detail).filter(|_| self.0 == Shape::Nothing) {
            Some(one) => self.0 = Shape::One(one),
            None => self.change(|groups| groups.add(detail)),
        }
    }

    /// Adds all of another.
    pub fn merge(&mut self, other: &Self) {
        match (&self.0, &other.0) {
            (_, Shape::Nothing) => {}
            (Shape::Nothing, _) => self.0.clone_from(&other.0),
            (_, Shape::One(one)) => self.add(one.detail()),
            (_, Shape::Many(others)) => self.change(|groups| groups.merge(others)),
        }
    }

    /// Only the groups of `kept`.
    pub fn only(&self, kept: Kept) -> Self {
        if kept == Kept::ALL {
            return self.clone();
        }
        let Groups { values, distinct, quantiles } = self.groups().into_owned();
        Self::of(Arc::new(Groups {
            values: values.filter(|_| kept.values),
            distinct: distinct.filter(|_| kept.distinct),
            quantiles: quantiles.filter(|_| kept.quantiles),
        }))
    }

    /// What takes all of this out of the index.
    pub fn taken_out(&self) -> Self {
        fn minus<T: Default>(group: &Option<Of<T>>) -> Option<Of<T>> {
            group.as_ref().map(|of| Of { events: -of.events, group: T::default() })
        }
        let Groups { values, distinct, quantiles } = &*self.groups();
        Self::of(Arc::new(Groups { values: minus(values), distinct: minus(distinct), quantiles: minus(quantiles) }))
    }

    /// The groups that are of exactly `events` events.
    pub fn whole(&self, events: u64) -> Kept {
        fn is_of<T>(group: &Option<Of<T>>, events: u64) -> bool {
            group.as_ref().map_or(0, |of| of.events) == events as i64
        }
        let Groups { values, distinct, quantiles } = &*self.groups();
        Kept { values: is_of(values, events), distinct: is_of(distinct, events), quantiles: is_of(quantiles, events) }
    }

    fn group<T: Clone>(&self, group: impl Fn(&Groups) -> Option<&Of<T>>) -> Option<Cow<'_, T>> {
        match self.groups() {
            Cow::Borrowed(groups) => group(groups).map(|of| Cow::Borrowed(&of.group)),
            Cow::Owned(groups) => group(&groups).map(|of| Cow::Owned(of.group.clone())),
        }
    }

    /// Of the values, where they are kept.
    pub fn values(&self) -> Option<Cow<'_, Values>> {
        self.group(|groups| groups.values.as_ref())
    }

    /// The users, where they are kept.
    pub fn distinct(&self) -> Option<Cow<'_, Distinct>> {
        self.group(|groups| groups.distinct.as_ref())
    }

    /// The quantiles, where they are kept.
    pub fn quantiles(&self) -> Option<Cow<'_, Quantiles>> {
        self.group(|groups| groups.quantiles.as_ref())
    }

    /// The stored bytes, little-endian: which groups there are 4 (1 values, 2 exact users, 4 a sketch of users, 8 quantiles; 16 stands for
    /// all of one event, with the bits of its value 8, ones where it has none, and its user 8, or zero), then of each its events 8
    /// and: values their number 8, least 8 and greatest 8 (bits that sort), the sum's exponent 4 and its mantissa
    /// (length 4, two's complement); users number 4 and hashes 8 each, or 16,384 registers; quantiles number 4, bin 4 and values 8 each.
    pub fn encode(&self, into: &mut Fields) {
        if let Shape::One(one) = self.0 {
            into.word(ONE).long(one.value).long(one.user);
            return;
        }
        let Groups { values, distinct, quantiles } = &*self.groups();
        let users = match distinct {
            None => 0,
            Some(Of { group: Distinct::Exact(_), .. }) => EXACT,
            Some(Of { group: Distinct::Sketch(_), .. }) => SKETCH,
        };
        let flag = |is_there: bool, flag: u32| if is_there { flag } else { 0 };
        into.word(flag(values.is_some(), VALUES) | users | flag(quantiles.is_some(), QUANTILES));
        if let Some(Of { events, group }) = values {
            let (exponent, mantissa) = group.sum.to_parts();
            into.long(*events as u64).long(group.number).long(group.least.0).long(group.greatest.0);
            into.word(exponent as u32).bytes(&mantissa);
        }
        if let Some(Of { events, group }) = distinct {
            into.long(*events as u64);
            match group {
                Distinct::Exact(hashes) => {
                    into.word(hashes.len() as u32);
                    for hash in hashes {
                        into.long(*hash);
                    }
                }
                Distinct::Sketch(registers) => into.0.extend_from_slice(registers),
            }
        }
        if let Some(Of { events, group }) = quantiles {
            into.long(*events as u64).word(group.0.len() as u32);
            for (bin, values) in &group.0 {
                into.word(*bin).long(*values);
            }
        }
    }

    /// Begins to bring into the cache what [`Stats::encode`] reads first.
    #[inline]
    pub fn prefetch(&self) {
        if let Shape::Many(groups) = &self.0 {
            prefetch_whole(&**groups);
        }
    }

    /// And then the lists that it has.
    #[inline]
    pub fn prefetch_lists(&self) {
        let Shape::Many(groups) = &self.0 else { return };
        if let Some(Of { group: Distinct::Exact(users), .. }) = &groups.distinct {
            prefetch(users, 0);
        }
        if let Some(Of { group: Quantiles(bins), .. }) = &groups.quantiles {
            prefetch(bins, 0);
        }
    }

    /// Reads such bytes; `None` if they are no stats.
    pub fn decode(fields: &mut FieldReader<'_>) -> Option<Self> {
        let there = fields.word()?;
        if there == ONE {
            let one = One { value: fields.long()?, user: fields.long()? };
            return one.is_sound().then_some(Self(Shape::One(one)));
        }
        if there & !(VALUES | EXACT | SKETCH | QUANTILES) != 0 || there & EXACT != 0 && there & SKETCH != 0 {
            return None;
        }
        let mut groups = Groups::default();
        if there & VALUES != 0 {
            groups.values = Some(Of { events: fields.long()? as i64, group: decode_values(fields)? });
        }
        if there & (EXACT | SKETCH) != 0 {
            let (events, is_exact) = (fields.long()? as i64, there & EXACT != 0);
            groups.distinct = Some(Of { events, group: decode_distinct(fields, is_exact)? });
        }
        if there & QUANTILES != 0 {
            groups.quantiles = Some(Of { events: fields.long()? as i64, group: decode_quantiles(fields)? });
        }
        Some(Self::of(Arc::new(groups)))
    }
}

const VALUES: u32 = 1;
const EXACT: u32 = 2;
const SKETCH: u32 = 4;
const QUANTILES: u32 = 8;
const ONE: u32 = 16;

fn add<T: Default, V>(group: &mut Option<Of<T>>, is_kept: bool, value: Option<V>, add: impl FnOnce(&mut T, V)) {
    if is_kept {
        let of = group.get_or_insert_default();
        of.events += 1;
        if let Some(value) = value {
            add(&mut of.group, value);
        }
    }
}

fn merge<T: Clone>(ours: &mut Option<Of<T>>, theirs: &Option<Of<T>>, merge: impl FnOnce(&mut T, &T)) {
    match (ours.as_mut(), theirs) {
        (_, None) => {}
        (None, Some(theirs)) => *ours = Some(theirs.clone()),
        (Some(ours), Some(theirs)) => {
            ours.events += theirs.events;
            merge(&mut ours.group, &theirs.group);
        }
    }
}

fn decode_values(fields: &mut FieldReader<'_>) -> Option<Values> {
    let (number, least, greatest) = (fields.long()?, Ordered(fields.long()?), Ordered(fields.long()?));
    let sum = ExactSum::of_parts(fields.word()? as i32, fields.bytes()?)?;
    Some(Values { number, sum, least, greatest })
}

fn decode_distinct(fields: &mut FieldReader<'_>, is_exact: bool) -> Option<Distinct> {
    let distinct = if is_exact {
        let number = fields.word()?;
        Distinct::Exact((0..number).map(|_| fields.long()).collect::<Option<_>>()?)
    } else {
        let (registers, rest) = fields.0.split_at_checked(REGISTERS)?;
        fields.0 = rest;
        Distinct::Sketch(registers.into())
    };
    distinct.is_sound().then_some(distinct)
}

fn decode_quantiles(fields: &mut FieldReader<'_>) -> Option<Quantiles> {
    let number = fields.word()?;
    let bins = (0..number).map(|_| Some((fields.word()?, fields.long()?))).collect::<Option<_>>()?;
    let quantiles = Quantiles(bins);
    quantiles.is_sound().then_some(quantiles)
}

impl IsZero for Stats {
    fn is_zero(&self) -> bool {
        fn is_empty<T>(group: &Option<Of<T>>) -> bool {
            group.as_ref().is_none_or(|of| of.events == 0)
        }
        let Shape::Many(groups) = &self.0 else { return self.0 == Shape::Nothing };
        let Groups { values, distinct, quantiles } = &**groups;
        is_empty(values) && is_empty(distinct) && is_empty(quantiles)
    }
}

impl Semigroup for Stats {
    fn plus_equals(&mut self, other: &Self) {
        self.merge(other);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn of(details: &[Detail]) -> Stats {
        let mut stats = Stats::default();
        details.iter().for_each(|detail| stats.add(*detail));
        stats
    }

    fn details() -> impl Strategy<Value = Detail> {
        let kept = prop_oneof![Just(Kept::ALL), Just(Kept { quantiles: false, ..Kept::ALL }), Just(Kept::NONE)];
        let value = prop::option::of(prop_oneof![-1e3..1e3, Just(0.0), Just(-0.0), Just(1e300)]);
        (kept, value, prop::option::of(0_u64..50)).prop_map(|(kept, value, user)| Detail { kept, value, user })
    }

    #[test]
    fn events_without_value_or_user_are_told_from_events_that_were_not_kept() {
        let kept = Kept { quantiles: false, ..Kept::ALL };
        let stats = of(&[Detail { kept, value: Some(2.0), user: None }, Detail { kept, value: None, user: Some(7) }]);
        assert_eq!(stats.whole(2), kept);
        assert_eq!(stats.whole(3), Kept::NONE);
        assert_eq!(
            stats.values().map(|values| (values.number, values.mean(), values.range())),
            Some((1, Some(2.0), Some((2.0, 2.0))))
        );
        assert_eq!(of(&[Detail { kept, ..Detail::default() }]).values().map(|values| values.mean()), Some(None));
    }

    #[test]
    fn one_event_takes_no_memory_of_its_own_and_little_where_it_is_stored() {
        assert_eq!(size_of::<Stats>(), 24);
        for (value, user) in [(Some(2.5), Some(7)), (Some(-0.0), None), (None, Some(1)), (None, None)] {
            let detail = Detail { kept: Kept::ALL, value, user };
            let one = of(&[detail]);
            assert!(matches!(one.0, Shape::One(_)), "{detail:?}");
            let mut bytes = Fields::default();
            one.encode(&mut bytes);
            assert_eq!(bytes.0.len(), 20);
            // What former builds have stored comes to the same, and so does what comes together from parts of it.
            let kept =
                |values, distinct, quantiles| of(&[Detail { kept: Kept { values, distinct, quantiles }, ..detail }]);
            let mut parts = kept(true, false, true);
            parts.merge(&kept(false, true, false));
            assert_eq!(parts, one);
        }
        for bits in [f64::NAN.to_bits(), f64::INFINITY.to_bits(), (-0.0_f64).to_bits()] {
            let mut bytes = Fields::default();
            bytes.word(ONE).long(bits).long(0);
            assert_eq!(Stats::decode(&mut FieldReader(&bytes.0)), None, "{bits:x}");
        }
    }

    proptest! {
        #[test]
        fn any_grouping_gives_the_same_bytes_which_come_back_as_they_were_stored(
            details in prop::collection::vec(details(), 0..30),
            cut in 0_usize..30,
        ) {
            let (left, right) = details.split_at(cut.min(details.len()));
            let (whole, mut merged) = (of(&details), of(right));
            merged.merge(&of(left));
            prop_assert_eq!(&merged, &whole);
            let mut bytes = Fields::default();
            whole.encode(&mut bytes);
            let mut reader = FieldReader(&bytes.0);
            prop_assert_eq!(Stats::decode(&mut reader), Some(whole.clone()));
            prop_assert!(reader.is_done());
            for length in 0..bytes.0.len() {
                prop_assert_eq!(Stats::decode(&mut FieldReader(&bytes.0[..length])), None);
            }
            let groups: Groups = details.iter().fold(Groups::default(), |mut groups, detail| { groups.add(*detail); groups });
            prop_assert_eq!(&*whole.groups(), &groups, "whatever its shape");
            prop_assert_eq!(Stats::of(Arc::new(groups)), whole.clone());
            // Taken out while it is still in pieces, nothing is left of it.
            let mut rest = of(left);
            rest.plus_equals(&whole.taken_out());
            rest.plus_equals(&of(right));
            prop_assert!(rest.is_zero());
        }
    }
}
