//! What timely does when another process goes away: its network threads panic. That is no fault of ours.

use std::{io::Write as _, panic::PanicHookInfo, thread, time::Duration};

use crate::exit::{Exit, end_at_once};

/// The heartbeats know who it was and why; they end the process within this, if they live.
const HEARTBEATS_FIRST: Duration = Duration::from_secs(2);

/// Whether a panic says that the link to another process is lost. Timely promises to keep this wording.
pub fn is_lost_link(panic: &PanicHookInfo<'_>) -> bool {
    let message = panic.payload_as_str().unwrap_or_default();
    message.starts_with("timely communication error:") || message.contains("MergeQueue poisoned")
}

/// Ends the process as one that has lost another. The panicking thread waits here, so nothing wrong comes of it.
pub fn end_after_lost_link() {
    thread::sleep(HEARTBEATS_FIRST);
    let _ = std::io::stderr().lock().write_all(b"tidemark: the link to another process is lost\n");
    end_at_once(Exit::Failed)
}
