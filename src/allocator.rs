//! The allocator, and how long it keeps at hand what was freed.
#![allow(unsafe_code)]

use std::{ffi::c_long, time::Duration};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// At full speed a twentieth of the time is lost with a fifth of this, and a tenth of the memory is kept for nothing with twenty times as much.
pub const FOR_A_WHILE: Duration = Duration::from_millis(500);

/// Longer than this nothing is kept.
const LONGEST: Duration = Duration::from_secs(11);

/// How long what a checkpoint frees is kept for the next one: where functions are, each changed window has them twice until they are written, and
/// with [`FOR_A_WHILE`] a third more of the kernel's time goes into pages.
pub fn until_the_next_checkpoint(interval: Duration) -> Duration {
    let next = interval + Duration::from_secs(1);
    if next <= LONGEST { next } else { FOR_A_WHILE }
}

/// What merges of the index and checkpoints take comes and goes, and each page that is taken anew is one that the kernel clears. `MIMALLOC_PURGE_DELAY`
/// in the environment, milliseconds, has precedence. Before there are other threads.
pub fn keep_what_is_freed(time: Duration) {
    let ms = c_long::try_from(time.as_millis()).expect("a few seconds");
    // SAFETY: it sets a number in a table of options, which the allocator reads when it frees; no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, ms) };
}
