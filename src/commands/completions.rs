//! `tidemark completions`: scripts for shells.

use clap::CommandFactory as _;
use clap_complete::Shell;

use crate::{cli::Cli, commands::print, exit::Failure};

/// Prints the script.
pub fn run(shell: Shell) -> Result<(), Failure> {
    print(&script(shell))
}

fn script(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tidemark", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_shell_gets_every_command() {
        for shell in Shell::value_variants() {
            let script = script(*shell);
            for word in ["dead-letters", "from-start", "granularity", "catch-up"] {
                assert!(script.contains(word), "{shell}: {word}");
            }
        }
    }
}
