//! `tidemark config`: the configuration as it takes effect.

use crate::{
    cli::{ConfigCommand, Global},
    commands::print,
    config::{self, Overrides},
    exit::Failure,
};

/// Checks or shows. A shown configuration with faults is shown all the same, then refused.
pub fn run(global: &Global, command: &ConfigCommand) -> Result<(), Failure> {
    let effective = config::effective(global, &Overrides::default())?;
    let checked = effective.settings().map_err(|faults| config::refused(&faults));
    match command {
        ConfigCommand::Check => {
            checked?;
            print("ok\n")
        }
        ConfigCommand::Show => {
            print(&effective.to_toml())?;
            checked.map(drop)
        }
    }
}
