//! What a window holds, against the list of its events.

use dataflows::functions::{Function, Kept, Value, quantiles, stats::Stats};
use oracle::functions::Window;

/// Holds what was found of one window, or of several as one, against the list of its events.
pub fn check(count: u64, stats: &Stats, window: &Window) {
    let value = |function: Function| function.of(count, stats).0;
    let real = |value: Option<f64>| value.map_or(Value::None, Value::Real);
    assert!(stats.whole(count) == Kept::ALL && count == window.events, "{stats:?}");
    assert_eq!(value(Function::Sum), Value::Real(window.sum()));
    let mean = (!window.values.is_empty()).then(|| window.sum() / window.values.len() as f64);
    assert_eq!(value(Function::Mean), real(mean));
    assert_eq!(value(Function::Min), real(window.values.first().copied()));
    assert_eq!(value(Function::Max), real(window.values.last().copied()));
    assert_eq!(Function::Distinct.of(count, stats), (Value::Whole(window.users.len() as u64), 0.0));
    for (function, percent) in [(Function::P50, 50), (Function::P90, 90), (Function::P99, 99)] {
        match (value(function), window.quantile(percent)) {
            (Value::None, None) => {}
            (Value::Real(found), Some(right)) => {
                assert!(
                    (found - right).abs() <= quantiles::RELATIVE_ERROR * right.abs() * 1.000_001,
                    "{found} {right}"
                );
            }
            other => panic!("{other:?}"),
        }
    }
}
