//! The bearer token: a file of its own, as a command line is for everybody to see.

use std::path::Path;

use anyhow::Context as _;

use crate::exit::{Exit, Failure, OrExit as _};

/// Reads the token, without the white space around it.
pub fn read(path: &Path) -> Result<String, Failure> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("reading the token file {}", path.display()))
        .or_exit(Exit::Usage)?;
    match text.trim() {
        "" => Err(Failure::usage(format!("the token file {} is empty", path.display()))),
        token => Ok(token.to_owned()),
    }
}

/// The `Authorization` header that says it, where there is a token.
pub fn authorization(path: Option<&Path>) -> Result<Option<String>, Failure> {
    path.map(|path| Ok(format!("Bearer {}", read(path)?))).transpose()
}
