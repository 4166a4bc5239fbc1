//! `tidemark plan` through the binary.
// The whole file is a test: its helpers may unwrap as well.
#![allow(clippy::unwrap_used)]

use std::process::{Command, Output};

use serde_json::Value;

fn tidemark(line: &str, environment: &[(&str, &str)]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
    command.arg("plan").args(line.split_whitespace());
    command.env_clear().envs(environment.iter().copied()).output().unwrap()
}

#[track_caller]
fn plan(line: &str, environment: &[(&str, &str)]) -> Value {
    let Output { status, stdout, stderr } = tidemark(&format!("{line} --json"), environment);
    assert!(status.success(), "{line}: {}", String::from_utf8_lossy(&stderr));
    serde_json::from_slice(&stdout).unwrap()
}

fn at(plan: &Value, pointer: &str) -> f64 {
    plan.pointer(pointer).and_then(Value::as_f64).unwrap_or_else(|| panic!("{pointer} is not in {plan}"))
}

#[test]
fn what_the_configuration_says_is_planned_with_and_a_flag_wins() {
    let ids = |line: &str, environment: &[(&str, &str)]| at(&plan(line, environment), "/holds/remembered_ids");
    // Remembered for the lateness, and on average half a minute more, as their windows end.
    assert_eq!(ids("--rate 1000", &[]), 1_000.0 * 630.0);
    let an_hour = [("TIDEMARK_TIME__LATENESS", "1h")];
    assert_eq!(ids("--rate 1000", &an_hour), 1_000.0 * 3_630.0);
    assert_eq!(ids("--rate 1000 --lateness 5m", &an_hour), 1_000.0 * 330.0);

    let memory = |line: &str, environment: &[(&str, &str)]| at(&plan(line, environment), "/memory/total_bytes");
    let all = memory("--rate 1k", &[]);
    let counts = [("TIDEMARK_FUNCTIONS__DEFAULT", "count")];
    assert!(memory("--rate 1k", &counts) < all / 2.0);
    assert_eq!(memory("--rate 1k --functions count", &[]), memory("--rate 1k", &counts));
    assert_eq!(memory("--rate 1k --functions sum,distinct,p50", &counts), all);
    assert_eq!(memory("--rate 1k --hot 24h", &[]), memory("--rate 1k", &[("TIDEMARK_INDEX__HOT", "24h")]));
    assert!(memory("--rate 1k --hot 24h", &[]) < all);
}

#[test]
fn figures_are_of_what_was_asked_for() {
    let of = plan("--rate 2k --videos 1 --types view --functions count", &[]);
    // One series has every minute, hour and day.
    assert_eq!(at(&of, "/cassandra/minute_rows_a_day").round(), 1_440.0);
    assert_eq!(at(&of, "/cassandra/hour_rows_a_day").round(), 24.0);
    assert_eq!(at(&of, "/cassandra/day_rows_a_day").round(), 1.0);
    assert_eq!(at(&of, "/cassandra/functions_rows_a_day"), 0.0);
    assert_eq!(at(&of, "/holds/windows").round(), 48.0 * 60.0);
    let disk = at(&plan("--rate 2k --duplicates 0.5 --event-bytes 64", &[]), "/disk/log_bytes_a_day");
    assert_eq!(disk, 2_000.0 * 1.5 * 86_400.0 * 100.0);
}

#[test]
fn the_table_has_memory_disk_and_cassandra() {
    let Output { status, stdout, .. } = tidemark("--rate 5k/s --videos 1M --lateness 1h", &[]);
    let text = String::from_utf8(stdout).unwrap();
    assert!(status.success(), "{text}");
    assert!(text.starts_with("5000 different events a second and 5 % of them twice, of 1000k videos"), "{text}");
    for line in
        ["MEMORY", "remembered ids", "a checkpoint under way", "DISK", "log, a day", "CASSANDRA", "stats_minute"]
    {
        assert!(text.contains(line), "{line:?} is not in\n{text}");
    }
    assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
}

#[test]
fn what_can_not_be_is_refused_with_a_reason() {
    for (line, environment, says) in [
        ("--rate 0", ("A", ""), "from 0.001 to 1000M a second"),
        ("--rate much", ("A", ""), "such as 500, 0.5 or 20k/s"),
        ("--rate 1k --zipf 101", ("A", ""), "an exponent is from 0 to 100"),
        ("--rate 1k --duplicates 2", ("A", ""), "a share is from 0 to 1"),
        ("--rate 1k --catch-up 0", ("A", ""), "from 0.001 to 1000M a second"),
        ("--rate 1k --hot 5m", ("A", ""), "index.hot: \"5m\" is less than time.lateness"),
        ("--rate 1k --functions median", ("A", ""), "\"median\" is no function"),
        ("--rate 1k --workers 0", ("A", ""), "workers: 0 is not within 1 to 256"),
        ("--rate 1k", ("TIDEMARK_TIME__LATENESS", "soon"), "time.lateness"),
        (
            "--rate 1k",
            ("TIDEMARK_SINK__KIND", "none"),
            "no window ever leaves memory; say how much is counted, by --history",
        ),
    ] {
        let Output { status, stdout, stderr } = tidemark(line, &[environment]);
        let stderr = String::from_utf8(stderr).unwrap();
        assert_eq!((status.code(), stdout.as_slice()), (Some(2), &b""[..]), "{line}: {stderr}");
        assert!(stderr.contains(says), "{line}: {says:?} is not in\n{stderr}");
    }
    plan("--rate 1k --history 6h", &[("TIDEMARK_SINK__KIND", "none")]);
}

#[test]
fn the_greatest_and_the_least_that_may_be_asked_for_have_figures() {
    for line in [
        "--rate 0.001 --videos 1 --zipf 0",
        "--rate 1000M --videos 4000M --zipf 0 --lateness 3000d --hot 3200d",
        "--rate 1k --zipf 100 --catch-up 1000M",
        "--rate 1k --history 1ms --interval 3650d",
    ] {
        let plan = plan(line, &[]);
        for part in ["holds", "memory", "disk", "cassandra"] {
            for (name, figure) in plan[part].as_object().unwrap() {
                let figure = figure.as_f64().unwrap_or(f64::NAN);
                assert!((0.0..1e22).contains(&figure), "{line}: {name} is {figure} in {plan}");
            }
        }
    }
}
