//! The allocator, and how long it keeps at hand what was freed.
#![allow(unsafe_code)]

use std::ffi::c_long;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// `mi_option_purge_delay` of mimalloc.h.
const PURGE_DELAY: libmimalloc_sys::mi_option_t = 15;

/// Milliseconds: what one checkpoint has freed serves the next, five seconds later. With half a second, a third more of the kernel's time goes into pages.
const KEPT_MS: c_long = 6_000;

/// What merges of the index and checkpoints take comes and goes, and each page that is taken anew is one that the kernel clears. `MIMALLOC_PURGE_DELAY`
/// in the environment, milliseconds, has precedence.
pub fn keep_what_is_freed_for_a_while() {
    // SAFETY: it sets a number in a table of options, which the allocator reads when it frees; no other thread runs yet.
    unsafe { libmimalloc_sys::mi_option_set_default(PURGE_DELAY, KEPT_MS) };
}
