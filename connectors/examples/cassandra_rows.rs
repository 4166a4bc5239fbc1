//! How many rows a second a Cassandra takes, for rows alone in their partitions and for 100 rows a partition:
//! `cargo run --release -p connectors --features cassandra --example cassandra_rows -- 127.0.0.1:9042 [rows]`
//!
//! Empties and fills the keyspace `tidemark_rows`.

use std::{env, error::Error, ops::ControlFlow, time::Duration, time::Instant};

use connectors::cassandra::{Settings, Tables};
use dataflows::{
    port::{CountRow, CountSink, Version},
    rollup::Width,
    time::MINUTE_MS,
};

const ROUNDS: u64 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().ok_or("usage: cassandra_rows HOST:PORT [rows]")?;
    let rows: u64 = arguments.next().map_or(Ok(200_000), |rows| rows.parse())?;
    let settings = Settings {
        contact_points: vec![address],
        keyspace: "tidemark_rows".to_owned(),
        local_datacenter: "datacenter1".to_owned(),
        replication_factor: 1,
        username: None,
        password_file: None,
        tls: false,
        ca_file: None,
    };
    let mut tables = Tables::open(&settings, Duration::from_secs(30))?;
    for (what, rows_per_video) in [("one row a partition", 1), ("100 rows a partition", 100)] {
        tables.clear()?;
        for number in 1..=ROUNDS {
            let written = write(&mut tables, number, rows, rows_per_video)?;
            println!(
                "{what}, round {number}: {rows} rows in {written:.2?}, {:.0} rows/s, {:?}",
                rows as f64 / written.as_secs_f64(),
                tables.stats()
            );
        }
        let begun = Instant::now();
        let mut read = 0_u64;
        tables.scan_all(|_| {
            read += 1;
            ControlFlow::Continue(())
        })?;
        println!("{what}: read {read} rows in {:.2?}", begun.elapsed());
    }
    Ok(())
}

fn write(tables: &mut Tables, number: u64, rows: u64, rows_per_video: u64) -> Result<Duration, Box<dyn Error>> {
    let rows: Vec<CountRow> = (0..rows)
        .map(|row| CountRow {
            video_id: format!("v{:08}", row / rows_per_video),
            event_type: "view".to_owned(),
            window_start: 1_767_225_600_000 + row % rows_per_video * MINUTE_MS,
            count: row,
            width: Width::Minute,
            stats: None,
            is_final: false,
            as_of: 1_767_225_600_000,
        })
        .collect();
    let begun = Instant::now();
    tables.write(Version { generation: 1, number }, &rows)?;
    Ok(begun.elapsed())
}
