//! Generated events that meet every rule, and the rules that make a few hundred of them enough.

use std::sync::Arc;

use dataflows::{ledger::Ledger, rules::Rules};
use proptest::prelude::*;

use super::Log;

/// How many videos there are: v0 and on.
pub const VIDEOS: u8 = 6;

/// Short spans, so that a few hundred events meet every rule.
pub fn rules() -> Rules {
    Rules {
        lateness_ms: 60_000,
        remember_ms: 90_000,
        max_future_ms: 30_000,
        max_jump_ms: 300_000,
        tick_ms: 100,
        coarse_ms: 1_000,
        idle_after_ms: 20,
        alignment_ms: 40_000,
        ..Rules::default()
    }
}

pub fn oracle_rules() -> oracle::Rules {
    let rules = rules();
    oracle::Rules {
        lateness_ms: rules.lateness_ms,
        remember_ms: rules.remember_ms,
        max_jump_ms: rules.max_jump_ms,
        max_future_ms: rules.max_future_ms,
    }
}

/// The oracle's ledgers, as the job has them.
pub fn ledgers(outcome: &oracle::Outcome) -> Vec<Ledger> {
    let ledger = |ledger: &oracle::Ledger| Ledger {
        read: ledger.read,
        counted: ledger.counted,
        duplicate: ledger.duplicate,
        late: ledger.late,
        future: ledger.future,
        malformed: ledger.malformed,
        oversize: ledger.oversize,
    };
    outcome.ledger.iter().map(ledger).collect()
}

/// One event to come: which id, which video and type, how far the partition's time goes on and how far this is off it.
#[derive(Clone, Debug)]
pub struct Draft {
    pub id: u8,
    pub video: u8,
    pub kind: u8,
    pub step_ms: u64,
    pub off_ms: i64,
    pub append_ms: Option<i64>,
    pub bad: bool,
    /// Thirds, so that no sum of them is exact in doubles.
    pub value: Option<i16>,
    pub user: Option<u8>,
}

pub fn draft() -> impl Strategy<Value = Draft> {
    let off = prop_oneof![
        6 => -20_000..=20_000_i64,
        2 => -70_000..=-50_000_i64,
        1 => -400_000..=400_000_i64,
        1 => 290_000..=310_000_i64,
        2 => 1_000_000..=1_000_050_i64,
    ];
    let append = prop_oneof![3 => Just(None), 1 => (-40_000..=40_000_i64).prop_map(Some)];
    let more = (prop::option::of(-300..300_i16), prop::option::of(0..20_u8));
    (0..60_u8, 0..VIDEOS, 0..2_u8, 0..4_000_u64, off, append, 0..30_u8, more).prop_map(
        |(id, video, kind, step_ms, off_ms, append_ms, bad, (value, user))| Draft {
            id,
            video,
            kind,
            step_ms,
            off_ms,
            append_ms,
            bad: bad == 0,
            value,
            user,
        },
    )
}

pub fn log(drafts: &[Draft], partitions: usize) -> Log {
    let mut log: Vec<Vec<oracle::Record>> = vec![Vec::new(); partitions];
    let mut times = vec![10_000_000_u64; partitions];
    for draft in drafts {
        // A video stays in its partition, as keyed producers see to, so that every verdict is determined.
        let partition = usize::from(draft.video) % partitions;
        times[partition] += draft.step_ms;
        let time = times[partition].saturating_add_signed(draft.off_ms);
        let payload = if draft.bad {
            b"{".to_vec()
        } else {
            let kind = ["view", "like"][usize::from(draft.kind)];
            let value =
                draft.value.map_or_else(String::new, |thirds| format!(r#","value":{}"#, f64::from(thirds) / 3.0));
            let user = draft.user.map_or_else(String::new, |user| format!(r#","user_id":"u{user}""#));
            format!(
                r#"{{"event_id":"e{}","video_id":"v{}","event_type":"{kind}","timestamp":{time}{value}{user}}}"#,
                draft.id, draft.video
            )
            .into_bytes()
        };
        let append_time_ms = draft.append_ms.map(|off| time.saturating_add_signed(off));
        log[partition].push(oracle::Record { append_time_ms, payload });
    }
    Arc::new(log)
}
