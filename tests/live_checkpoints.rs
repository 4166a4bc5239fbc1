//! What a start finds in its data folder: a last checkpoint, a damaged one, another owner, a log that lost records.

#![allow(clippy::unwrap_used)]

mod live_support;

use std::{
    collections::HashSet,
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
};

use connectors::embedded::{
    log::{Log, NewRecord},
    store::Store,
};
use dataflows::port::{Claim, CountSink as _};
use live_support::{
    Run, SOON,
    client::event,
    now_ms,
    stage::Stage,
    traffic::PARTITIONS,
    truth::{Truth, behind, end_offsets, manifests},
    wait_for,
};

/// One read of a partition.
const READ_RECORDS_MAX: u64 = connectors::embedded::log::READ_RECORDS_MAX as u64;

#[test]
fn sigterm_under_load_writes_a_last_checkpoint_and_the_next_start_reads_nothing_again() {
    let mut stage = Stage::new();
    let server = stage.run().checkpoints_every("1h").start();
    stage.send(&server.client, 20);
    let (stop, client) = (AtomicBool::new(false), server.client.another());
    thread::scope(|scope| {
        let sending = scope.spawn(|| {
            let mut sent = 0;
            while !stop.load(Ordering::Relaxed) {
                let events = [event(&format!("x{sent}"), "under load", "view", stage.start_ms)];
                match client.post("/v1/events", "application/x-ndjson", events.join("\n").as_bytes()) {
                    Ok(answer) if answer.status == 202 => sent += 1,
                    _ => break,
                }
            }
            sent
        });
        wait_for("some of the load counted", SOON, || {
            (20 < server.client.stats("under load", "granularity=all").expect(200)["total"].as_u64()?).then_some(())
        });
        server.stop();
        stop.store(true, Ordering::Relaxed);
        let sent: u64 = sending.join().unwrap();
        let truth = Truth::of(&stage.data_dir());
        let counted: u64 = truth.outcome.counts.iter().filter(|((v, _, _), _)| v == "under load").map(|(_, n)| n).sum();
        // The answer to the last one may have been lost on the way.
        assert!((sent..=sent + 1).contains(&counted), "{sent} acknowledged, {counted} in the log");
    });

    let last_behind =
        || -> Vec<u64> { behind(manifests(&stage.data_dir()).last().unwrap(), &end_offsets(&stage.data_dir())) };
    let under_load = last_behind();
    println!("stopped under load: {under_load:?} records behind the last checkpoint");
    assert!(under_load.iter().all(|records| *records <= READ_RECORDS_MAX), "more than a batch: {under_load:?}");
    let server = stage.run().workers(3).start();
    assert_eq!(server.logged("resumed from a checkpoint", "records_to_read"), Some(under_load.iter().sum()));
    stage.assert_exact(server);

    // Stopped when all was visible, it has all.
    assert_eq!(last_behind(), [0; 4]);
    let server = stage.run().start();
    assert_eq!(server.logged("resumed from a checkpoint", "records_to_read"), Some(0));
    stage.send(&server.client, 5);
    stage.assert_exact(server);
}

#[test]
fn a_second_process_on_the_folder_ends_and_the_first_goes_on() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_over_checkpoints(&server, 1);
    let second = stage.run().start_and_end();
    second.expect(75, &["belongs to another process", "data_dir"]);
    stage.run().flag("--from-start").start_and_end().expect(75, &["belongs to another process"]);
    // It still commits: nobody has claimed the next generation.
    stage.send_over_checkpoints(&server, 2);
    assert_eq!(server.client.status()["checkpoints"]["failed"], 0);
    stage.assert_exact(server);
}

/// One way to damage a stored checkpoint.
#[derive(Copy, Clone, Debug)]
enum Damage {
    PartLost,
    PartFlipped,
    PartCut,
    PartOfAnother,
    ManifestFlipped,
    ManifestCut,
}

impl Damage {
    const ALL: [Self; 6] = [
        Self::PartLost,
        Self::PartFlipped,
        Self::PartCut,
        Self::PartOfAnother,
        Self::ManifestFlipped,
        Self::ManifestCut,
    ];

    /// Damages the checkpoint and gives what stderr must name.
    fn inflict(self, dir: &Path, newest: &dataflows::checkpoint::manifest::Manifest, older_part: &Path) -> String {
        // The other ones are in the checkpoint before as well.
        let part_name = newest.parts.last().unwrap().name.clone();
        let part = dir.join("parts").join(&part_name);
        let manifest = dir.join(format!("{:020}-{:020}.manifest", newest.version.generation, newest.version.number));
        let flip = |path: &Path| {
            let mut bytes = fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(path, bytes).unwrap();
        };
        let cut = |path: &Path| {
            let bytes = fs::read(path).unwrap();
            fs::write(path, &bytes[..bytes.len() - 1]).unwrap();
        };
        match self {
            Self::PartLost => fs::remove_file(&part).unwrap(),
            Self::PartFlipped => flip(&part),
            Self::PartCut => cut(&part),
            Self::PartOfAnother => drop(fs::copy(older_part, &part).unwrap()),
            Self::ManifestFlipped => flip(&manifest),
            Self::ManifestCut => cut(&manifest),
        }
        match self {
            Self::ManifestFlipped | Self::ManifestCut => {
                format!("manifest {}-{}", newest.version.generation, newest.version.number)
            }
            _ => part_name,
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_passed_over_for_the_one_before_and_all_ends_exact() {
    let mut stage = Stage::new();
    for (round, damage) in Damage::ALL.into_iter().enumerate() {
        let server = stage.run().workers(1 + round as u32 % 3).start();
        stage.send_over_checkpoints(&server, 3);
        stage.send(&server.client, 3);
        if round % 2 == 0 {
            // Half of them with a last checkpoint, so that store and letters are ahead of what is resumed.
            server.stop();
        } else {
            server.kill();
        }
        let manifests = manifests(&stage.data_dir());
        let [.., before, newest] = &manifests[..] else { panic!("two checkpoints are kept") };
        let older_part = stage.checkpoint_dir().join("parts").join(&before.parts.last().unwrap().name);
        let named = damage.inflict(&stage.checkpoint_dir(), newest, &older_part);

        let server = stage.run().workers(1 + (round as u32 + 1) % 3).start();
        let number = format!("number={}", newest.version.number);
        let stderr = server.stderr();
        let says = stderr.lines().find(|line| line.contains("damaged"));
        assert!(says.is_some_and(|line| line.contains(&named) && line.contains(&number)), "{damage:?}: {stderr}");
        assert_eq!(server.logged("resumed from a checkpoint", "checkpoint"), Some(before.version.number), "{damage:?}");
        assert_eq!(server.logged("resumed from a checkpoint", "frontier"), Some(before.frontier), "{damage:?}");
        let lost: u64 = behind(before, &end_offsets(&stage.data_dir())).iter().sum();
        assert_eq!(server.logged("resumed from a checkpoint", "records_to_read"), Some(lost), "{damage:?}");
        println!("{damage:?}: {named} passed over, {lost} records read again");
        stage.send(&server.client, 3);
        stage.assert_exact(server);
    }
}

#[test]
fn parts_are_merged_and_one_that_goes_bad_takes_no_more_with_it_than_the_checkpoints_that_share_it() {
    let mut stage = Stage::new();
    let server = stage.run().workers(4).start();
    stage.send_over_checkpoints(&server, 20);
    server.stop();
    let kept = manifests(&stage.data_dir());
    let (oldest, newest) = (kept.first().unwrap(), kept.last().unwrap());
    let first = &newest.parts[0].name;
    println!("{} parts after {} checkpoints, the first is {first}", newest.parts.len(), newest.version.number);
    assert!(first.contains("merged") && newest.parts.len() < 60, "20 checkpoints of 4 workers have made 80 parts");
    assert_ne!(&oldest.parts[0].name, first, "one from before the merge is kept");
    let stored = fs::read_dir(stage.checkpoint_dir().join("parts")).unwrap().count();
    let named: HashSet<&String> = kept.iter().flat_map(|manifest| &manifest.parts).map(|part| &part.name).collect();
    assert!(stored <= named.len() + 1, "what no checkpoint needs is dropped, but for a merge that nobody waited for");

    fs::write(stage.checkpoint_dir().join("parts").join(first), "bad").unwrap();
    let server = stage.run().workers(3).start();
    assert_eq!(server.logged("resumed from a checkpoint", "checkpoint"), Some(oldest.version.number));
    stage.send(&server.client, 3);
    stage.assert_exact(server);
}

#[test]
fn without_a_good_checkpoint_only_a_start_from_the_start_goes_on() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_over_checkpoints(&server, 4);
    server.stop();
    let parts = fs::read_dir(stage.checkpoint_dir().join("parts")).unwrap();
    for part in parts.map(|entry| entry.unwrap().path()) {
        fs::write(part, "not a checkpoint").unwrap();
    }
    let refused = stage.run().start_and_end();
    refused.expect(66, &["no checkpoint is good", "--from-start"]);
    for manifest in manifests(&stage.data_dir()) {
        assert!(refused.stderr.contains(&manifest.parts[0].name), "{refused}");
    }
    let server = stage.run().workers(3).flag("--from-start").start();
    stage.send(&server.client, 5);
    stage.assert_exact(server);
    // And from there on as ever.
    let server = stage.run().start();
    assert_eq!(server.logged("resumed from a checkpoint", "records_to_read"), Some(0));
    stage.send(&server.client, 5);
    stage.assert_exact(server);

    // The same where the checkpoints are gone altogether.
    fs::remove_dir_all(stage.checkpoint_dir()).unwrap();
    stage.run().start_and_end().expect(66, &["--from-start"]);
    let server = stage.run().flag("--from-start").start();
    stage.send(&server.client, 5);
    stage.assert_exact(server);
}

/// Generations began anew at 1 in a fresh folder, so that letters under them passed for ones that were published already.
#[test]
fn regression_letters_are_published_after_the_checkpoints_were_lost() {
    let mut stage = Stage::new();
    for round in 0..3 {
        let server = stage.run().env("TIDEMARK_SINK__KIND", "none").start();
        stage.send_over_checkpoints(&server, 2);
        stage.send_and_see(&server, 20);
        server.stop();
        let truth = Truth::of(&stage.data_dir());
        assert!(0 < truth.outcome.ledger[0].late, "round {round}");
        truth.assert_letters(&stage.data_dir());
        fs::remove_dir_all(stage.checkpoint_dir()).unwrap();
    }
}

/// The checkpoint after a fallback held the letters that the damaged one had published; the start after it published them
/// once more.
#[test]
fn regression_a_letter_published_before_a_fallback_is_not_published_again() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_over_checkpoints(&server, 1);
    stage.send_and_see(&server, 20);
    server.stop();
    let newest = manifests(&stage.data_dir()).pop().unwrap();
    fs::remove_file(stage.checkpoint_dir().join("parts").join(&newest.parts.last().unwrap().name)).unwrap();
    for round in 0..2 {
        let server = stage.run().start();
        let truth = Truth::of(&stage.data_dir());
        server.client.wait_until_visible(&truth.end_offsets(), SOON);
        server.stop();
        assert!(0 < truth.outcome.ledger[0].late, "round {round}");
        truth.assert_letters(&stage.data_dir());
    }
}

/// Where a crash came between the claim of a checkpoint and its rows, and that checkpoint went bad, the store has none of them.
#[test]
fn rows_that_are_held_back_after_a_fallback_are_written_though_another_crash_comes_first() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_over_checkpoints(&server, 2);
    server.stop();
    let frontier = manifests(&stage.data_dir()).pop().unwrap().frontier + 400_000;
    let mut store = Store::open(stage.data_dir().join("store")).unwrap();
    let claim = store.claim().unwrap().unwrap();
    store.set_claim(&Claim { frontier, ..claim }).unwrap();
    drop(store);

    // Five minutes: the first of them are in none but the first checkpoints, and final in none.
    let server = stage.run().start();
    stage.send_over_checkpoints(&server, 15);
    server.kill();
    let resumed = manifests(&stage.data_dir()).pop().unwrap();
    assert!(resumed.frontier < frontier, "rows are still held back");
    let server = stage.run().start();
    stage.send(&server.client, 200);
    stage.assert_exact(server);
}

/// As a crash leaves it that comes between a manifest and its rows.
#[test]
fn a_start_writes_the_rows_that_the_last_checkpoint_did_not_get_to() {
    let mut stage = Stage::new();
    let server = stage.run().checkpoints_every("1h").start();
    stage.send_and_see(&server, 80);
    server.stop();
    let store_dir = stage.data_dir().join("store");
    let claim = Store::open(&store_dir).unwrap().claim().unwrap().unwrap();
    fs::remove_dir_all(&store_dir).unwrap();
    Store::open(&store_dir).unwrap().set_claim(&claim).unwrap();
    let server = stage.run().start();
    stage.assert_exact(server);
}

/// The store kept the rows that only the former meaning had counted.
#[test]
fn regression_counted_anew_under_another_meaning_the_store_has_only_what_that_counts() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    // Five minutes late: in time under the first lateness, and in windows of its own.
    let (at, video) = (stage.start_ms, stage.videos[0].clone());
    let token = server.client.send(&[event("a", &video, "view", at), event("b", &video, "view", at - 300_000)]);
    server.client.stats(&video, &format!("after={token}")).expect(200);
    stage.send_and_see(&server, 5);
    server.stop();
    let shorter = |run: Run| run.env("TIDEMARK_TIME__LATENESS", "1m");
    shorter(stage.run()).start_and_end().expect(66, &["time.lateness"]);
    let server = shorter(stage.run()).flag("--from-start").start();
    stage.send(&server.client, 5);
    let rules = oracle::Rules { lateness_ms: 60_000, remember_ms: 60_000, ..oracle::Rules::default() };
    let truth = Truth::under(rules, &stage.data_dir());
    assert_eq!(truth.outcome.verdicts[0][1], oracle::Verdict::Late);
    let status = server.client.wait_until_visible(&truth.end_offsets(), SOON);
    truth.assert_status(&status);
    truth.assert_index(&server.client);
    server.stop();
    truth.assert_store(&stage.data_dir());
}

/// Only what had changed since was written to a store that came later, or that was new.
#[test]
fn regression_a_store_that_is_new_gets_all_the_rows_of_the_checkpoint() {
    let mut stage = Stage::new();
    let server = stage.run().env("TIDEMARK_SINK__KIND", "none").start();
    stage.send_over_checkpoints(&server, 2);
    stage.send_and_see(&server, 80);
    server.stop();
    let server = stage.run().start();
    stage.send(&server.client, 5);
    stage.assert_exact(server);
    fs::remove_dir_all(stage.data_dir().join("store")).unwrap();
    let server = stage.run().start();
    stage.assert_exact(server);
}

/// The store kept the rows of windows that the log no longer has.
#[test]
fn regression_counted_anew_from_a_shorter_log_the_store_has_only_what_that_has() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_and_see(&server, 80);
    server.stop();
    let segment = stage.segment(2);
    let whole = fs::read(&segment).unwrap();
    fs::write(&segment, &whole[..place_of(&whole, 10)]).unwrap();
    stage.run().start_and_end().expect(65, &["partition 2 was replaced or truncated"]);
    let server = stage.run().flag("--from-start").start();
    let truth = Truth::of(&stage.data_dir());
    truth.assert_status(&server.client.wait_until_visible(&truth.end_offsets(), SOON));
    server.stop();
    truth.assert_store(&stage.data_dir());
}

#[test]
fn a_changed_meaning_is_refused_by_the_name_of_its_setting() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_and_see(&server, 20);
    server.stop();
    for (variable, value, setting) in [
        ("TIDEMARK_TIME__LATENESS", "5m", "time.lateness"),
        ("TIDEMARK_TIME__REMEMBER", "20m", "time.remember"),
        ("TIDEMARK_TIME__MAX_FUTURE", "1m", "time.max_future"),
        ("TIDEMARK_TIME__MAX_JUMP", "2h", "time.max_jump"),
    ] {
        stage.run().env(variable, value).start_and_end().expect(66, &[setting]);
    }
    // What means nothing for the counts may change.
    let server = stage.run().workers(4).env("TIDEMARK_TIME__TICK", "1s").env("TIDEMARK_TIME__ALIGNMENT", "5m").start();
    stage.send(&server.client, 5);
    stage.assert_exact(server);
}

#[test]
fn a_log_that_lost_records_is_refused_with_the_exact_loss() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_and_see(&server, 40);
    server.stop();
    let ends = end_offsets(&stage.data_dir());
    for (partition, cut) in [(0, 1), (1, 7), (2, ends[2]), (3, ends[3] - 1)] {
        let segment = stage.segment(partition);
        let whole = fs::read(&segment).unwrap();
        let end = ends[partition as usize];
        fs::write(&segment, &whole[..place_of(&whole, end - cut)]).unwrap();
        let says = format!(
            "partition {partition} was replaced or truncated: offset {end} is wanted, the log holds 0 to {}, {cut} records are lost",
            end - cut
        );
        stage.run().start_and_end().expect(65, &[&says, "copy"]);
        fs::remove_file(&segment).unwrap();
        let says = format!("offset {end} is wanted, the log holds 0 to 0, {end} records are lost");
        stage.run().start_and_end().expect(65, &[&says]);
        fs::write(&segment, whole).unwrap();
    }
    // Nothing was changed by the refusals: with the log back it goes on.
    let server = stage.run().start();
    assert_eq!(server.logged("resumed from a checkpoint", "records_to_read"), Some(0));
    stage.send(&server.client, 5);
    stage.assert_exact(server);
}

/// Where in a segment the record with this offset begins. Each is its length, its checksum, and as many bytes.
fn place_of(segment: &[u8], offset: u64) -> usize {
    (0..offset).fold(0, |place, _| {
        let length = u32::from_le_bytes(segment[place..place + 4].try_into().unwrap());
        place + 8 + length as usize
    })
}

#[test]
fn a_record_damaged_in_the_middle_of_the_log_is_refused_where_it_is() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send(&server.client, 40);
    server.kill();
    let segment = stage.segment(1);
    let mut bytes = fs::read(&segment).unwrap();
    let place = place_of(&bytes, 17);
    bytes[place + 30] ^= 1;
    fs::write(&segment, bytes).unwrap();
    stage.run().start_and_end().expect(65, &["partition 1 is corrupt at offset 17"]);
}

#[test]
fn another_log_in_its_place_is_refused_even_if_it_is_longer() {
    let mut stage = Stage::new();
    let server = stage.run().start();
    stage.send_and_see(&server, 10);
    server.stop();
    let log_dir = stage.data_dir().join("log");
    let read: u64 = end_offsets(&stage.data_dir()).iter().sum();
    let kept = stage.folder.path().join("kept");
    fs::rename(&log_dir, &kept).unwrap();
    let other = Log::open(&log_dir, PARTITIONS, now_ms).unwrap();
    let record = |n: u32| NewRecord { partition: n % PARTITIONS, key: None, payload: b"{}".to_vec() };
    let (done, told) = std::sync::mpsc::channel();
    let batch = (0..1_000).map(record).collect();
    other.appender().append(batch, Box::new(move |result| done.send(result).unwrap())).unwrap();
    told.recv().unwrap().unwrap();
    other.close();
    stage.run().start_and_end().expect(65, &["the log was replaced", &format!("the {read} records")]);

    // An empty one is no better: never a wait for data that was there already.
    fs::remove_dir_all(&log_dir).unwrap();
    stage.run().start_and_end().expect(65, &["the log was replaced", &format!("the {read} records")]);

    fs::remove_dir_all(&log_dir).unwrap();
    fs::rename(&kept, &log_dir).unwrap();
    let server = stage.run().start();
    stage.send(&server.client, 5);
    stage.assert_exact(server);
}

#[test]
fn a_folder_that_takes_no_state_is_refused_before_anything_else() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("file");
    fs::write(&file, "not a folder").unwrap();
    for data_dir in [file.join("data"), file.clone(), PathBuf::from("/proc/tidemark")] {
        Run::new(&data_dir).start_and_end().expect(73, &[&data_dir.display().to_string()]);
    }
    assert_eq!(fs::read_to_string(&file).unwrap(), "not a folder");

    // One part of it is enough.
    for part in ["log", "checkpoints", "store", "dead-letters"] {
        let data_dir = folder.path().join(format!("without-{part}"));
        fs::create_dir(&data_dir).unwrap();
        fs::write(data_dir.join(part), "not a folder").unwrap();
        Run::new(&data_dir).start_and_end().expect(73, &[part]);
    }
}

#[test]
fn an_unknown_key_is_refused_with_the_nearest_one() {
    let folder = tempfile::tempdir().unwrap();
    let data_dir = folder.path().join("data");
    let config = folder.path().join("tidemark.toml");
    fs::write(&config, "[time]\nlatenes = \"1m\"\n[chekpoint]\ninterval = \"1s\"\n").unwrap();
    let run = Run::new(&data_dir);
    let by_file = run.clone().flag("--config").flag(&config.display().to_string()).start_and_end();
    by_file.expect(2, &["time.latenes", "time.lateness", "chekpoint", "checkpoint"]);
    run.env("TIDEMARK_TIME__MAX_FUTUR", "1m").start_and_end().expect(2, &["time.max_future"]);
    assert!(!data_dir.exists(), "a refused configuration touches nothing");
}
