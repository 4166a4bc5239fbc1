//! What every [`CheckpointStore`] owes its caller.

use std::{collections::BTreeSet, sync::Barrier, thread};

use crate::port::{CheckpointStore, StoreError, Version};

/// Panics unless the stores that `open` gives, each fresh and empty, keep the contract.
pub fn check<S: CheckpointStore>(mut open: impl FnMut() -> S) {
    what_was_never_written_is_missing(open());
    parts_come_back_as_they_were_written(open());
    manifests_are_exclusive_and_ascend(open());
    generations_strictly_rise(open());
    only_the_newest_generation_commits(open());
    retain_keeps_what_is_named_and_nothing_else(open());
}

/// Panics unless handles of one store, as processes have them, keep the contract. `fresh` gives an empty store: what opens it.
pub fn check_shared<S: CheckpointStore, O: Fn() -> S + Sync>(mut fresh: impl FnMut() -> O) {
    reopened_it_has_everything_and_goes_on_with_the_next_generation(fresh());
    owners_that_claim_at_once_get_different_generations(fresh());
    of_writers_of_one_version_at_once_one_wins_and_its_bytes_stay(fresh());
    a_zombie_commits_nothing_and_drops_nothing_and_a_tool_is_not_fenced(fresh());
    a_zombie_that_repeats_a_commit_is_told_so_although_it_is_its_own(fresh());
}

fn version(generation: u64, number: u64) -> Version {
    Version { generation, number }
}

fn claim<S: CheckpointStore>(store: &mut S) -> u64 {
    store.claim_generation(0).expect("a generation can be claimed")
}

fn commit<S: CheckpointStore>(store: &mut S, version: Version, manifest: &[u8]) {
    store.commit(version, manifest).expect("a free version can be committed");
}

fn what_was_never_written_is_missing<S: CheckpointStore>(mut store: S) {
    assert_eq!(store.manifests().expect("manifests can be listed"), []);
    let manifest = store.manifest(version(1, 1));
    assert!(matches!(manifest, Err(StoreError::Missing { .. })), "{manifest:?}");
    let part = store.part("1-1.w0.part");
    assert!(matches!(part, Err(StoreError::Missing { .. })), "{part:?}");
}

fn parts_come_back_as_they_were_written<S: CheckpointStore>(mut store: S) {
    let large: Vec<u8> = (0..1_000_000_u32).map(|index| (index % 251) as u8).collect();
    let parts: [(&str, &[u8]); 3] = [("1-1.w0.part", &large), ("1-1.w1.part", b""), ("1-10.w0.part", b"\0\xff\n")];
    for (name, bytes) in parts {
        store.put_part(name, bytes).expect("a part can be written");
        store.put_part(name, bytes).expect("the same part can be written again");
    }
    for (name, bytes) in parts {
        assert!(store.part(name).expect("a part can be read") == bytes, "{name}");
    }
    assert_eq!(store.manifests().expect("manifests can be listed"), [], "a part is no checkpoint");
}

fn manifests_are_exclusive_and_ascend<S: CheckpointStore>(mut store: S) {
    let generation = claim(&mut store);
    commit(&mut store, version(generation, 10), b"ten");
    commit(&mut store, version(generation, 9), b"nine");
    let again = store.commit(version(generation, 10), b"another ten");
    assert!(matches!(again, Err(StoreError::Taken { .. })), "{again:?}");
    assert_eq!(store.manifest(version(generation, 10)).expect("a manifest can be read"), b"ten");

    let next = claim(&mut store);
    commit(&mut store, version(next, 2), b"");
    assert_eq!(
        store.manifests().expect("manifests can be listed"),
        [version(generation, 9), version(generation, 10), version(next, 2)]
    );
    assert_eq!(store.manifest(version(next, 2)).expect("a manifest can be read"), b"");
    let missing = store.manifest(version(next, 9));
    assert!(matches!(missing, Err(StoreError::Missing { .. })), "{missing:?}");
}

fn generations_strictly_rise<S: CheckpointStore>(mut store: S) {
    let mut last = claim(&mut store);
    for round in 0..12 {
        if round == 4 {
            // A manifest is proof of a generation too, even if nothing else is left of it.
            commit(&mut store, version(last + 5, 1), b"ahead");
            last += 5;
        }
        if round == 8 {
            store.retain(&[], &[]).expect("everything can be dropped");
        }
        let next = claim(&mut store);
        assert!(last < next, "{next} after {last} in round {round}");
        last = next;
    }
    for above in [last - 1, last, last + 1_000, last] {
        let next = store.claim_generation(above).expect("a generation can be claimed");
        assert!(last.max(above) < next, "{next} after {last} and above {above}");
        last = next;
    }
}

fn only_the_newest_generation_commits<S: CheckpointStore>(mut store: S) {
    let zombie = claim(&mut store);
    commit(&mut store, version(zombie, 1), b"in time");
    let owner = claim(&mut store);
    let late = store.commit(version(zombie, 2), b"too late");
    assert!(matches!(late, Err(StoreError::Fenced { .. })), "{late:?}");
    commit(&mut store, version(owner, 2), b"in time");
    assert_eq!(store.manifests().expect("manifests can be listed"), [version(zombie, 1), version(owner, 2)]);
}

fn retain_keeps_what_is_named_and_nothing_else<S: CheckpointStore>(mut store: S) {
    let generation = claim(&mut store);
    for number in 1..=4 {
        store.put_part(&format!("{generation}-{number}.w0.part"), &[number as u8]).expect("a part can be written");
        commit(&mut store, version(generation, number), &[number as u8]);
    }
    let part = |number: u64| format!("{generation}-{number}.w0.part");
    let versions = [version(generation, 4), version(generation, 3), version(generation, 77)];
    // The second part belongs to a dropped checkpoint and is still in use by a later one.
    let parts = [part(4), part(3), part(2), part(77)];
    for _ in 0..2 {
        store.retain(&versions, &parts).expect("old checkpoints can be dropped");
        assert_eq!(
            store.manifests().expect("manifests can be listed"),
            [version(generation, 3), version(generation, 4)]
        );
        for number in [2, 3, 4] {
            assert_eq!(store.part(&part(number)).expect("a named part stays"), [number as u8]);
        }
        let dropped = store.part(&part(1));
        assert!(matches!(dropped, Err(StoreError::Missing { .. })), "{dropped:?}");
        let dropped = store.manifest(version(generation, 1));
        assert!(matches!(dropped, Err(StoreError::Missing { .. })), "{dropped:?}");
    }
    commit(&mut store, version(generation, 5), b"on it goes");
}

fn reopened_it_has_everything_and_goes_on_with_the_next_generation<S: CheckpointStore>(open: impl Fn() -> S) {
    let mut store = open();
    let first = claim(&mut store);
    store.put_part("1-1.w0.part", b"part").expect("a part can be written");
    commit(&mut store, version(first, 1), b"manifest");
    drop(store);
    let mut store = open();
    assert_eq!(store.manifests().expect("manifests can be listed"), [version(first, 1)]);
    assert_eq!(store.manifest(version(first, 1)).expect("a manifest can be read"), b"manifest");
    assert_eq!(store.part("1-1.w0.part").expect("a part can be read"), b"part");
    assert_eq!(claim(&mut store), first + 1);
}

/// Owners in the tests of what happens at once.
const OWNERS: u8 = 8;

fn owners_that_claim_at_once_get_different_generations<S: CheckpointStore, O: Fn() -> S + Sync>(open: O) {
    let start = Barrier::new(usize::from(OWNERS));
    let claim_ten = || {
        let mut store = open();
        start.wait();
        (0..10).map(|_| claim(&mut store)).collect::<Vec<_>>()
    };
    let claimed: Vec<u64> = thread::scope(|scope| {
        let owners: Vec<_> = (0..OWNERS).map(|_| scope.spawn(claim_ten)).collect();
        owners.into_iter().flat_map(|owner| owner.join().expect("it claims")).collect()
    });
    assert_eq!(claimed.iter().copied().collect::<BTreeSet<_>>(), (1..=u64::from(OWNERS) * 10).collect());
}

fn of_writers_of_one_version_at_once_one_wins_and_its_bytes_stay<S: CheckpointStore, O: Fn() -> S + Sync>(open: O) {
    let start = Barrier::new(usize::from(OWNERS));
    for round in 0..10 {
        let commit_one = |writer: u8| {
            let mut store = open();
            start.wait();
            match store.commit(version(1, round), &[writer; 1_000]) {
                Ok(()) => Some(writer),
                Err(StoreError::Taken { .. }) => None,
                Err(error) => panic!("{error}"),
            }
        };
        let commit_one = &commit_one;
        let winners: Vec<u8> = thread::scope(|scope| {
            let writers: Vec<_> = (0..OWNERS).map(|writer| scope.spawn(move || commit_one(writer))).collect();
            writers.into_iter().filter_map(|writer| writer.join().expect("it commits")).collect()
        });
        assert_eq!(winners.len(), 1, "round {round}");
        assert_eq!(open().manifest(version(1, round)).expect("a manifest can be read"), [winners[0]; 1_000]);
    }
}

fn a_zombie_commits_nothing_and_drops_nothing_and_a_tool_is_not_fenced<S: CheckpointStore>(open: impl Fn() -> S) {
    let (mut zombie, mut owner) = (open(), open());
    let (old, new) = (claim(&mut zombie), claim(&mut owner));
    owner.put_part("2-1.w0.part", b"part").expect("a part can be written");
    commit(&mut owner, version(new, 1), b"manifest");

    assert!(matches!(zombie.commit(version(old, 1), b"zombie"), Err(StoreError::Fenced { .. })));
    assert!(matches!(zombie.retain(&[], &[]), Err(StoreError::Fenced { .. })));
    assert_eq!(owner.manifests().expect("manifests can be listed"), [version(new, 1)]);
    assert_eq!(owner.part("2-1.w0.part").expect("a part can be read"), b"part");

    open().retain(&[], &[]).expect("who has claimed nothing is no zombie");
    assert_eq!(owner.manifests().expect("manifests can be listed"), []);
}

/// The next owner may have listed before that commit was there: its letters are not the zombie's to publish.
fn a_zombie_that_repeats_a_commit_is_told_so_although_it_is_its_own<S: CheckpointStore>(open: impl Fn() -> S) {
    let (mut zombie, mut owner) = (open(), open());
    let old = claim(&mut zombie);
    commit(&mut zombie, version(old, 1), b"manifest");
    claim(&mut owner);
    let again = zombie.commit(version(old, 1), b"manifest");
    assert!(matches!(again, Err(StoreError::Fenced { .. })), "{again:?}");
}
