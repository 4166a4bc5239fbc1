//! What was measured, and where: the only numbers of a plan that are not in a format or a setting.
//!
//! "Growth" is docs/growth.md, whose tables `scripts/bench-growth` makes: there these are held against real processes.

/// A process with its threads, HTTP and what the allocator keeps at hand: growth.
pub const PROCESS_BYTES: f64 = 50.0 * MIB;
/// The same once more where there are several, for the links between them: growth, over processes.
pub const LINKED_BYTES: f64 = 20.0 * MIB;
/// Growth, over workers.
pub const WORKER_BYTES: f64 = 5.0 * MIB;
/// Growth, over partitions.
pub const PARTITION_BYTES: f64 = 1.2 * MIB;

/// What is resident of the state's and the index's rows, by what they ask for: room that tables and batches have, batches that are there twice
/// while they are merged, history that is not merged yet. Growth, of counts alone.
pub const WINDOWS_SLACK: f64 = 2.5;
/// The same of functions, which batches share. Growth, all functions over counts.
pub const FUNCTIONS_SLACK: f64 = 1.25;

/// A remembered id, resident: 18 bytes in a page and a place in a table that is between 68 and 85 % full, with up to eight minutes that are
/// forgotten but not swept yet (`dataflows/src/ids.rs`, `pages.rs`, `dedup.rs`), and room for its table to grow. Growth, over events; docs/checkpoint-cost.md.
pub const ID_BYTES: f64 = 45.0;

/// A video and event type, resident: slot, name and numbers, at the worker and at the partition's source (`dataflows/src/series.rs`). Growth,
/// over videos.
pub const SERIES_BYTES: f64 = 410.0;

/// A bucket of the state's map of a window (`dataflows/src/window.rs`), and of the map of functions (`summaries.rs`).
pub const WINDOW_BYTES: f64 = 17.0;
pub const SUMMARY_BYTES: f64 = 33.0;
/// A window in the index, once history is merged: docs/query-latency.md, by the example `memory_per_row`.
pub const INDEX_BYTES: f64 = 24.0;
/// The same at each time that may still be asked for: there.
pub const UPDATE_BYTES: f64 = 17.6;
/// What a window's functions take in the index; those of one event no more than that (`dataflows/src/functions/stats.rs`).
pub const STATS_PLACE_BYTES: f64 = 24.0;
/// What those of more events take on the heap besides their lists, in the allocator's sizes.
pub const STATS_BYTES: f64 = 160.0;
/// Lists grow by doubling: what they have room for, of what they hold, on average.
pub const LIST_SLACK: f64 = 1.4;
/// An hour or a day of a series (`dataflows/src/rollup.rs`).
pub const ROLLED_BYTES: f64 = 48.0;

/// For so long events of one minute travel, s: the minute and the disorder of `tidemark produce`.
pub const WINDOW_TRAVELS_S: f64 = 80.0;

/// What a checkpoint takes until it is written, by the bytes that it writes: cells and names that were copied for it, and a section. Growth.
pub const ENCODED: f64 = 0.3;
/// A row on its way to the sink: growth.
pub const ROW_BYTES: f64 = 140.0;
/// What the store has of a row in memory until it is in a file, beside the row's bytes, and of all at most: growth, and jobs of 2,000 events a
/// second with and without a store.
pub const STORE_HELD_BYTES: f64 = 160.0;
pub const STORE_BYTES_MAX: f64 = 160.0 * MIB;
/// What merging parts takes, by the bytes that are merged: docs/growth.md, "How it was made".
pub const MERGED: f64 = 3.0;
/// How much of a state that still grows was there at the last merge, on average: merges come at 1, 2, 4, … of what the first one was.
pub const LAST_MERGE: f64 = 0.75;

/// Of a row in a part, by its format (ARCHITECTURE.md, "Checkpoint files").
pub const STORED_ID_BYTES: f64 = 18.0;
pub const STORED_WINDOW_BYTES: f64 = 24.0;
/// A name of 8 and a type of 4 bytes with their lengths.
pub const STORED_NAME_BYTES: f64 = 20.3;
/// All of one event, with its series and minute.
pub const STORED_ONE_BYTES: f64 = 28.0;
/// Values: events, number, least, greatest, exponent, and the mantissa with its length: seven bytes where values have a decimal.
pub const STORED_VALUES_BYTES: f64 = 47.0;
/// Frames and sections of empty key groups.
pub const STORED_EMPTY_BYTES: f64 = 12_288.0;

/// Of a record in the log, beside the event: frame and key (ARCHITECTURE.md, "Log").
pub const LOG_RECORD_BYTES: f64 = 36.0;
/// A row in the store, beside its functions: key and value of its format.
pub const STORE_ROW_BYTES: f64 = 56.0;

/// What all readers of Kafka may have fetched, and one at the least and the most: connectors/src/kafka/settings.rs.
pub const KAFKA_QUEUED_BYTES: f64 = 64.0 * MIB;
pub const KAFKA_READER_BYTES_MIN: f64 = MIB;
pub const KAFKA_READER_BYTES_MAX: f64 = 4.0 * MIB;
/// What librdkafka takes for that: a message has a structure, and a fetch is unpacked as a whole. By heaptrack, of the race on Kafka (lz4, four
/// partitions): 85 MB of 16.8.
pub const KAFKA_HELD: f64 = 5.0;

const MIB: f64 = 1_048_576.0;
