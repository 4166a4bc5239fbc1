//! Checkpoints that former builds have written are read by this one. All fixtures were made by `tidemark run --workers 2` from
//! the same 40 events: `whole` before parts were increments, `increments` since then, over two checkpoints, `pages` since ids are stored by
//! the page and functions of one event as that event.

#![allow(clippy::unwrap_used)]

use std::{collections::BTreeMap, path::Path};

use connectors::embedded::checkpoints::CheckpointDir;
use dataflows::{checkpoint::plan, port::CheckpointStore as _, time::Minute};

type Counts = BTreeMap<(String, String, Minute), u64>;

/// Event n was of video n % 3, a view or a like in turn, 20 s after the one before.
fn expected() -> Counts {
    let mut counts = Counts::new();
    for n in 0..40 {
        let cell = (
            format!("v{}", n % 3),
            ["view", "like"][n % 2].to_owned(),
            Minute::of(1_795_000_000_000 + n as u64 * 20_000),
        );
        *counts.entry(cell).or_default() += 1;
    }
    counts
}

#[test]
fn what_former_builds_have_written_is_read() {
    for (name, parts, unwritten) in [("whole", 2, 20), ("increments", 4, 20), ("pages", 4, 20)] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/checkpoints").join(name);
        let mut store = CheckpointDir::look_at(dir).unwrap();
        let newest = store.manifests().unwrap().pop().unwrap();
        let loaded = plan::load(&mut store, newest).unwrap();
        assert_eq!((newest.number, loaded.manifest.parts.len()), (2, parts), "{name}");
        let groups = &loaded.state.groups;
        let mut counts = Counts::new();
        for group in groups {
            for cell in &group.cells {
                let (video, kind) = &group.names[cell.series.0 as usize];
                assert_eq!(
                    counts.insert((video.to_string(), kind.to_string(), cell.minute), cell.count),
                    None,
                    "{name}"
                );
            }
        }
        assert_eq!(counts, expected(), "{name}");
        assert_eq!(groups.iter().map(|group| group.ids.len()).sum::<usize>(), 40, "{name}");
        let cells = groups.iter().flat_map(|group| &group.cells);
        assert_eq!(cells.filter(|cell| cell.unwritten).count(), unwritten, "{name}: of the second checkpoint");
    }
}
