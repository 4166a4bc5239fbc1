//! The allocator, and how long it keeps at hand what was freed.
#![allow(unsafe_code)]

use std::ffi::c_long;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Two checkpoints as they are by default, ms.
const KEPT_MS: c_long = 10_000;

/// What a checkpoint takes comes and goes with each one. By default mimalloc gives memory back to the kernel a second after it was
/// freed, and each page that is taken anew is a fault: a third of a worker's time with a checkpoint every second. `MIMALLOC_PURGE_DELAY` in the
/// environment, milliseconds, has precedence.
pub fn keep_what_checkpoints_free() {
    // SAFETY: it sets a number in a table of options, which the allocator reads when it frees; no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT_MS) };
}
