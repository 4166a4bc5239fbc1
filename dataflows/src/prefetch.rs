//! Has memory fetched before it is needed: the one place for that instruction.
#![allow(unsafe_code)]

/// Begins to bring an element into the cache, and waits for nothing. Does nothing where there is no such element.
#[inline]
pub fn prefetch<T>(elements: &[T], at: usize) {
    if let Some(element) = elements.get(at) {
        line(std::ptr::from_ref(element).cast());
    }
}

/// The same for each line of the cache that a value is in.
#[inline]
pub fn prefetch_whole<T>(value: &T) {
    let begin = std::ptr::from_ref(value).cast::<u8>();
    (0..size_of::<T>()).step_by(64).for_each(|offset| line(begin.wrapping_add(offset)));
}

#[inline]
fn line(at: *const u8) {
    #[cfg(target_arch = "x86_64")]
    {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        // SAFETY: a prefetch is a hint that neither reads nor faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}
