//! A hostile stream through a real Kafka into a real Cassandra while faults come as a seed has drawn them: in the end the rows,
//! every process's answers and ledgers, the dead letters and a replay equal the oracle, cell by cell.
//!
//! `scripts/torture --seed S --minutes M` runs it for longer. The folder that it tells of stays behind when it fails.

#![allow(clippy::unwrap_used)]

mod live_support;
mod server_support;
mod torture_support;

use std::{
    collections::BTreeMap,
    env, fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    time::Duration,
};

use live_support::traffic::PARTITIONS;
use server_support::{feed::Feed, truth::KafkaTruth};
use torture_support::{
    arena::Arena,
    load::Load,
    log::Log,
    schedule::{Fault, Schedule},
};

/// Of CI.
const SEED: u64 = 1;
const MINUTES: f64 = 2.0;

/// More than can be done in a minute.
const STEPS_A_MINUTE: f64 = 12.0;

/// For what is compared in the end.
const COMPARED_WITHIN: Duration = Duration::from_secs(1_800);

fn asked<T: std::str::FromStr>(variable: &str) -> Option<T> {
    let value = env::var(variable).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{variable} is {value:?}, not a number")))
}

#[test]
fn whatever_a_seed_does_to_processes_and_servers_all_comes_to_what_the_oracle_says() {
    let seed = asked("TIDEMARK_TORTURE_SEED").unwrap_or(SEED);
    let minutes = asked("TIDEMARK_TORTURE_MINUTES").unwrap_or(MINUTES);
    let load = Load::of(seed, minutes, asked("TIDEMARK_TORTURE_RATE"));
    let steps = (STEPS_A_MINUTE * minutes) as usize + 1;
    let schedule = match env::var("TIDEMARK_TORTURE_ONLY") {
        Ok(words) => Schedule::draw_of(seed, steps, &words),
        Err(_) => Schedule::draw(seed, steps),
    };
    let wanted = env::var_os("TIDEMARK_TORTURE_DIR").map(PathBuf::from);
    let folder = wanted.clone().unwrap_or_else(|| tempfile::tempdir().unwrap().keep());
    let told = format!("seed {seed}, {minutes} minutes, {} records/s, folder {}", load.rate, folder.display());
    println!("{told}\n{load:?}\nfirst {}, then:", schedule.first);
    for (number, step) in (1..).zip(&schedule.steps) {
        println!("{number:4} {step}");
    }
    let tortured = catch_unwind(AssertUnwindSafe(|| torture(&schedule, load, minutes, &folder)));
    match tortured {
        Ok(wrong) if wrong.is_empty() => {
            fs::remove_dir_all(wanted.map_or(folder, |folder| folder.join("data"))).unwrap();
            println!("as the oracle says: {told}");
        }
        Ok(wrong) => panic!("{told}: these differ: {wrong:?}"),
        Err(_) => panic!("{told}: it did not come to an end, see above"),
    }
}

/// Gives what differs.
fn torture(schedule: &Schedule, load: Load, minutes: f64, folder: &Path) -> Vec<String> {
    fs::create_dir_all(folder).unwrap();
    let log = Log::begin();
    let mut arena = Arena::start(folder, schedule.first, PARTITIONS, log);
    let within = Duration::from_secs_f64(minutes * 180.0) + COMPARED_WITHIN;
    let feed = Feed::new(&arena.place.kafka, &arena.place.topic, within);
    feed.allow(u64::MAX);
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    feed.during_each(load.records(), || {
        for (number, step) in (1..).zip(&schedule.steps) {
            if feed.is_over() {
                break;
            }
            arena.suffer(number, step, &feed);
            *by_kind.entry(kind(&step.fault)).or_default() += 1;
        }
    });
    arena.recover(0, &feed);
    log.say(format_args!("{} records are in the topic: now the oracle reads it", feed.sent()));
    let truth = KafkaTruth::streamed(&arena.place, PARTITIONS);
    let ledger = truth.truth.outcome.ledger.iter().copied().reduce(|sum, ledger| sum + ledger).unwrap();
    log.say(format_args!("the oracle: {ledger:?}"));

    let mut wrong = Vec::new();
    let mut check = |what: &str, check: &mut dyn FnMut()| {
        let same = catch_unwind(AssertUnwindSafe(check)).is_ok();
        log.say(format_args!("{what}: {}", if same { "the same" } else { "NOT the same" }));
        if !same {
            wrong.push(what.to_owned());
        }
    };
    check("as many records as were sent", &mut || assert_eq!(ledger.read, feed.sent()));
    for (process, client) in arena.server().clients.clone().into_iter().enumerate() {
        check(&format!("the ledgers of process {process}"), &mut || truth.assert_status(&client, COMPARED_WITHIN));
        check(&format!("the answers of process {process}"), &mut || truth.truth.assert_index(&client));
    }
    check("the last stop", &mut || arena.stop());
    check("the rows in Cassandra", &mut || truth.assert_rows());
    check("the dead letters", &mut || truth.assert_letters());
    let env = arena.run().env;
    check("a replay of the topic", &mut || truth.assert_replay(folder, &env, COMPARED_WITHIN));

    let seen = &mut arena.seen;
    seen.recovered.sort_unstable();
    let recovered = |after: Option<&Duration>| after.map_or("never".to_owned(), |after| format!("{after:.1?}"));
    let (median, worst) = (recovered(seen.recovered.get(seen.recovered.len() / 2)), recovered(seen.recovered.last()));
    println!("faults: {} {by_kind:?}", seen.faults);
    println!("starts: {}, {} records read again", seen.starts, seen.read_again);
    println!("recovered after {median} (median), {worst} (worst)");
    println!("memory: {} MiB at the most, of all processes; {:.1} minutes in all", seen.memory_mib_max, log.minutes());
    println!("rows: {}, ledger: {ledger:?}", truth.truth.outcome.counts.len());
    wrong
}

fn kind(fault: &Fault) -> String {
    let name = |debug: String| debug.split([' ', '(']).next().unwrap_or_default().to_owned();
    match fault {
        Fault::Strike(blow) => name(format!("{blow:?}")),
        Fault::Outage { server, away, .. } => format!("{server:?}{away:?}"),
        other => name(format!("{other:?}")),
    }
}

#[test]
fn a_seed_gives_one_schedule_and_a_longer_one_begins_like_the_shorter() {
    let (short, long) = (Schedule::draw(7, 20), Schedule::draw(7, 60));
    assert_eq!((short.first, &short.steps[..]), (long.first, &long.steps[..20]));
    assert_ne!(long, Schedule::draw(8, 60));
    for seed in 0..100 {
        let schedule = Schedule::draw(seed, 60);
        let mut processes = schedule.first.processes;
        for step in &schedule.steps {
            match step.fault {
                Fault::Layout(layout) => processes = layout.processes,
                Fault::Stop { process, .. } => assert!(process < processes),
                Fault::Zombie { process, .. } => assert!((1..processes).contains(&process), "not the first"),
                _ => {}
            }
        }
    }
}
