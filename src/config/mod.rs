//! From text to settings: [`Config`] is what people wrote, [`Settings`] is what the program may rely on.
//!
//! Built-in defaults, then the file, then the environment, then flags; each layer is held against the shape of
//! [`Config`] on its own, so that an unknown key can be named together with where it stands. [`Config::check`] does
//! no I/O and reports all faults at once, by key.

mod check;
mod layers;
mod show;
mod text;
mod units;

use std::path::PathBuf;

#[cfg(feature = "cassandra")]
pub use check::CassandraSettings;
#[cfg(feature = "kafka")]
pub use check::KafkaSettings;
pub use check::{CheckpointPlace, Fault, HttpSettings, Settings, SinkKind, SourceKind, TimeSettings};
pub use layers::{Effective, Layers};
pub use text::Config;
pub use units::parse_duration_ms;

use crate::{
    cli::Global,
    exit::{Exit, Failure},
};

/// The keys that flags set; `None` where a flag was not given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `workers`, by `--workers`.
    pub workers: Option<u32>,
    /// `data_dir`, by `--data-dir`.
    pub data_dir: Option<PathBuf>,
    /// `http.listen`, by `--listen`.
    pub listen: Option<String>,
    /// `kafka.on_gap`, by `--on-gap`.
    pub on_gap: Option<String>,
    /// `kafka.skip_batches`, by `--skip-batch`; empty where it was not given.
    pub skip_batches: Vec<String>,
    /// `source.partitions`, by `--partitions`.
    pub partitions: Option<u32>,
    /// `time.lateness`, by `--lateness`.
    pub lateness: Option<String>,
    /// `index.hot`, by `--hot`.
    pub hot: Option<String>,
    /// `index.as_of`, by `--as-of`.
    pub as_of: Option<String>,
    /// `checkpoint.interval`, by `--interval`.
    pub interval: Option<String>,
    /// `functions.default`, by `--functions`: names separated by commas.
    pub functions: Option<String>,
}

/// The effective configuration of this process, with the faults of its shape kept inside.
pub fn effective(global: &Global, overrides: &Overrides) -> Result<Effective, Failure> {
    Ok(Effective::of(&Layers::gather(global.config.as_deref(), overrides)?))
}

/// The settings of this process, or every fault of its configuration.
pub fn settings(global: &Global, overrides: &Overrides) -> Result<Settings, Failure> {
    effective(global, overrides)?.settings().map_err(|faults| refused(&faults))
}

/// All faults as one error, a line each.
pub fn refused(faults: &[Fault]) -> Failure {
    let lines: String = faults.iter().map(|fault| format!("\n  {fault}")).collect();
    let faults = if faults.len() == 1 { "a fault".to_owned() } else { format!("{} faults", faults.len()) };
    Failure::new(Exit::Usage, anyhow::anyhow!("the configuration has {faults}:{lines}"))
}
