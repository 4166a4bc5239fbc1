//! `tidemark plan`: what a load will take, as a table or as JSON.

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    commands::print,
    config::{Settings, SinkKind, SourceKind},
    exit::{Exit, Failure},
    plan::{Job, Load, Plan, args::PlanArgs, plan},
};

/// Works it out and prints it.
pub fn run(settings: &Settings, args: &PlanArgs) -> Result<(), Failure> {
    let load = load(args);
    let job = Job::of(settings, args.processes);
    let plan = plan(&load, &job).map_err(|error| Failure::new(Exit::Usage, error))?;
    print(&if args.json { json(&plan) } else { table(&plan, &load, &job) })
}

fn load(args: &PlanArgs) -> Load {
    Load {
        rate: args.rate,
        duplicates: args.duplicates,
        videos: args.videos,
        zipf: args.zipf,
        types: args.types.weighted().to_vec(),
        event_bytes: f64::from(args.event_bytes),
        history_s: args.history_ms.map(|ms| ms as f64 / 1_000.0),
        catch_up: args.catch_up,
    }
}

fn json(plan: &Plan) -> String {
    let text = serde_json::to_string(plan).expect("numbers and names always have a JSON form");
    format!("{text}\n")
}

fn table(plan: &Plan, load: &Load, job: &Job) -> String {
    let Plan { holds, memory, disk, cassandra } = plan;
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    let mut row = |what: String, is: String| {
        table.add_row([what, is]);
    };
    row("MEMORY, of all processes".to_owned(), size(memory.total_bytes));
    row("  processes, workers, partitions".to_owned(), size(memory.process_bytes));
    row(format!("  {} remembered ids", number(holds.remembered_ids)), size(memory.ids_bytes));
    row(format!("  {} series (video and event type)", number(holds.series)), size(memory.names_bytes));
    row(
        format!("  {} windows, {} a minute", number(holds.windows), number(holds.windows_a_minute)),
        size(memory.windows_bytes),
    );
    row(format!("  {} updates that may be asked for", number(holds.updates)), size(memory.history_bytes));
    row("  functions of these".to_owned(), size(memory.functions_bytes));
    if job.sink == SinkKind::Cassandra {
        row("  hours and days".to_owned(), size(memory.rollups_bytes));
    }
    if job.source == SourceKind::Kafka {
        row("  fetched from Kafka".to_owned(), size(memory.kafka_bytes));
    }
    if job.sink == SinkKind::Store {
        row("  rows in the store's memory".to_owned(), size(memory.store_bytes));
    }
    row("  a checkpoint under way".to_owned(), size(memory.checkpoint_bytes));
    row("  merging parts of checkpoints".to_owned(), size(memory.merging_bytes));
    row("DISK".to_owned(), String::new());
    row("  a checkpoint, whole".to_owned(), size(disk.checkpoint_bytes));
    row("  what each adds".to_owned(), size(disk.checkpoint_adds_bytes));
    row("  all that are kept, at most".to_owned(), size(disk.checkpoints_bytes));
    row("  log, a day".to_owned(), size(disk.log_bytes_a_day));
    if job.sink == SinkKind::Store {
        row("  store, a day".to_owned(), size(disk.store_bytes_a_day));
    }
    row("CASSANDRA, where it is the sink".to_owned(), String::new());
    row("  upserts a second".to_owned(), number(cassandra.upserts_a_second));
    row("  rows a day, stats_minute".to_owned(), number(cassandra.minute_rows_a_day));
    row("  stats_hour".to_owned(), number(cassandra.hour_rows_a_day));
    row("  stats_day".to_owned(), number(cassandra.day_rows_a_day));
    row("  functions_minute".to_owned(), number(cassandra.functions_rows_a_day));
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let lines = table.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>();
    format!("{}\n{lines}", title(load))
}

/// What is planned for, in words.
fn title(load: &Load) -> String {
    let Load { rate, duplicates, videos, zipf, types, .. } = load;
    let (videos, repeats) = (number(f64::from(*videos)), duplicates * 100.0);
    format!(
        "{} different events a second and {repeats:.0} % of them twice, of {videos} videos (zipf {zipf}) and {} event types",
        number(*rate),
        types.len(),
    )
}

/// Bytes for people, with three figures.
fn size(bytes: f64) -> String {
    const UNITS: [&str; 4] = ["MiB", "GiB", "TiB", "PiB"];
    let (mut of, mut unit) = (bytes / f64::from(1 << 20), 0);
    while 1_000.0 <= of && unit + 1 < UNITS.len() {
        (of, unit) = (of / 1_024.0, unit + 1);
    }
    let decimals = if of < 10.0 { 2 } else { usize::from(of < 100.0) };
    format!("{of:.decimals$} {}", UNITS[unit])
}

/// A number for people: the first three figures of great ones.
fn number(number: f64) -> String {
    const UNITS: [&str; 4] = ["", "k", "M", "G"];
    let (mut of, mut unit) = (number, 0);
    while 10_000.0 <= of && unit + 1 < UNITS.len() {
        (of, unit) = (of / 1_000.0, unit + 1);
    }
    let decimals = if of < 10.0 && of.fract() != 0.0 { 1 } else { 0 };
    format!("{of:.decimals$}{}", UNITS[unit])
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_for_people() {
        for (bytes, expect) in [
            (0.0, "0.00 MiB"),
            (1.5e6, "1.43 MiB"),
            (123e6, "117 MiB"),
            (5e9, "4.66 GiB"),
            (1e15, "909 TiB"),
            (1e20, "88818 PiB"),
        ] {
            assert_eq!(size(bytes), expect);
        }
        for (of, expect) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (12.0, "12"),
            (9_999.0, "9999"),
            (12_345.0, "12k"),
            (1.5e6, "1500k"),
            (3.15e10, "32G"),
        ] {
            assert_eq!(number(of), expect);
        }
    }
}
