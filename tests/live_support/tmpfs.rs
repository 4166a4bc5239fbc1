//! A disk whose size a test decides.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// A tmpfs, mounted on a folder until this is dropped.
pub struct Tmpfs(PathBuf);

impl Tmpfs {
    /// Makes the folder, and mounts one with so much room.
    #[track_caller]
    pub fn mount(path: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(path).expect("the folder can be made");
        let size = format!("size={bytes},mode=700");
        run(Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tidemark-test"]).arg(path));
        Self(path.to_owned())
    }

    /// Changes its size: what is there must fit.
    #[track_caller]
    pub fn resize(&self, bytes: u64) {
        run(Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(&self.0));
    }

    /// Takes all room but this, as of now.
    #[track_caller]
    pub fn leave(&self, bytes: u64) {
        let used = run(Command::new("df").args(["--output=used", "-B1"]).arg(&self.0));
        let used: u64 = used.lines().last().and_then(|line| line.trim().parse().ok()).expect("df gives a number");
        self.resize(used + bytes);
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        // A panic while another unwinds would hide the first. Lazily, since a process may still be ending there.
        if let Err(error) = Command::new("umount").arg("--lazy").arg(&self.0).status() {
            eprintln!("{} stays mounted: {error}", self.0.display());
        }
    }
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let ran = command.output();
    let output = match ran {
        Ok(output) if output.status.success() => output,
        other => panic!("{command:?} failed; this test needs the right to mount a tmpfs, as root has: {other:?}"),
    };
    String::from_utf8_lossy(&output.stdout).into_owned()
}
