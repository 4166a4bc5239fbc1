//! What is accumulated beside the count: functions of the values and users of a window's events.
//!
//! Each is a value with an associative and commutative merge, and equal sets of events are equal bytes in whatever order and
//! grouping they came. So 1, 2 and 4 workers agree, and a window of any width is the merge of its minutes.

pub mod distinct;
pub mod quantiles;
pub mod stats;
pub mod sum;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use self::stats::Stats;

/// Which of the three groups of functions are kept, or asked for.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Kept {
    /// Sum, mean, least and greatest value.
    pub values: bool,
    /// Different users.
    pub distinct: bool,
    /// Quantiles of the values.
    pub quantiles: bool,
}

impl Kept {
    /// None of them: only counts.
    pub const NONE: Self = Self { values: false, distinct: false, quantiles: false };
    /// All of them.
    pub const ALL: Self = Self { values: true, distinct: true, quantiles: true };

    /// Whether there is any.
    pub fn any(self) -> bool {
        self != Self::NONE
    }

    /// What is in one of the two.
    pub fn or(self, other: Self) -> Self {
        Self {
            values: self.values | other.values,
            distinct: self.distinct | other.distinct,
            quantiles: self.quantiles | other.quantiles,
        }
    }

    /// Whether all of `needed` is in it.
    pub fn holds(self, needed: Self) -> bool {
        self.or(needed) == self
    }
}

/// A function of a window's events.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Function {
    /// How many events.
    #[default]
    Count,
    /// What their values come to.
    Sum,
    /// The sum through the number of values.
    Mean,
    /// The least value.
    Min,
    /// The greatest value.
    Max,
    /// How many different users.
    Distinct,
    /// The median of the values.
    P50,
    /// The value that nine of ten are below.
    P90,
    /// The value that 99 of 100 are below.
    P99,
}

/// What a function gives.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum Value {
    /// A number of events or users.
    Whole(u64),
    /// A number made of values.
    Real(f64),
    /// No event has a value, or a sum is beyond all doubles.
    None,
}

impl Function {
    /// All, in the order of the documents.
    pub const ALL: [Self; 9] =
        [Self::Count, Self::Sum, Self::Mean, Self::Min, Self::Max, Self::Distinct, Self::P50, Self::P90, Self::P99];

    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Count => "count",
            Self::Sum => "sum",
            Self::Mean => "mean",
            Self::Min => "min",
            Self::Max => "max",
            Self::Distinct => "distinct",
            Self::P50 => "p50",
            Self::P90 => "p90",
            Self::P99 => "p99",
        }
    }

    /// The function of a name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|function| function.as_str() == name)
    }

    /// What must be kept for it.
    pub fn needs(self) -> Kept {
        match self {
            Self::Count => Kept::NONE,
            Self::Sum | Self::Mean | Self::Min | Self::Max => Kept { values: true, ..Kept::NONE },
            Self::Distinct => Kept { distinct: true, ..Kept::NONE },
            Self::P50 | Self::P90 | Self::P99 => Kept { quantiles: true, ..Kept::NONE },
        }
    }

    /// What it gives for `count` events, and by how much that may be off: the relative standard error of an estimated number of
    /// users, the greatest relative error of a quantile, else 0.
    pub fn of(self, count: u64, stats: &Stats) -> (Value, f64) {
        let real = |value: Option<f64>| value.map_or(Value::None, Value::Real);
        let quantile = |percent| {
            let value = stats.quantiles().and_then(|quantiles| quantiles.at(percent));
            (real(value), value.map_or(0.0, |_| quantiles::RELATIVE_ERROR))
        };
        match self {
            Self::Count => (Value::Whole(count), 0.0),
            Self::Sum => (real(stats.values().map_or(Some(0.0), |values| values.sum.rounded())), 0.0),
            Self::Mean => (real(stats.values().and_then(|values| values.mean())), 0.0),
            Self::Min => (real(stats.values().and_then(|values| values.range()).map(|(least, _)| least)), 0.0),
            Self::Max => (real(stats.values().and_then(|values| values.range()).map(|(_, greatest)| greatest)), 0.0),
            Self::Distinct => {
                let (users, error) = stats.distinct().map_or((0, 0.0), |users| users.count());
                (Value::Whole(users), error)
            }
            Self::P50 => quantile(50),
            Self::P90 => quantile(90),
            Self::P99 => quantile(99),
        }
    }
}

/// What is kept of each event type.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Functions {
    /// Of types that are not named.
    pub others: Kept,
    /// Of those that are.
    pub by_type: BTreeMap<String, Kept>,
}

impl Functions {
    /// The same for every event type.
    pub fn of_all(kept: Kept) -> Self {
        Self { others: kept, by_type: BTreeMap::new() }
    }

    /// Whether anything is kept of any type.
    pub fn any(&self) -> bool {
        self.others.any() || self.by_type.values().any(|kept| kept.any())
    }

    /// What is kept of an event type.
    #[inline]
    pub fn kept(&self, event_type: &str) -> Kept {
        match self.by_type.is_empty() {
            true => self.others,
            false => self.by_type.get(event_type).copied().unwrap_or(self.others),
        }
    }
}
