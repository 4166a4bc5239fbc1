//! Where the processes of one start listen for each other: free ports on loopback.

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::exit::{Exit, Failure, OrExit as _};

/// Writes the hosts file for so many processes. A port may be taken by somebody else before its process has it: then that
/// process ends, and the next start draws again.
pub fn write(data_dir: &Path, processes: usize) -> Result<PathBuf, Failure> {
    let draw = || TcpListener::bind("127.0.0.1:0");
    let listeners: Vec<TcpListener> =
        (0..processes).map(|_| draw()).collect::<Result<_, _>>().context("finding free ports").or_exit(Exit::Failed)?;
    let mut text = String::new();
    for listener in &listeners {
        let address = listener.local_addr().context("finding free ports").or_exit(Exit::Failed)?;
        text += &format!("{address}\n");
    }
    let path = data_dir.join("hosts");
    fs::write(&path, text).with_context(|| format!("writing {}", path.display())).or_exit(Exit::StateUnwritable)?;
    Ok(path)
}
