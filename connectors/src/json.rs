//! The default format: one JSON object a record, by the contract's section 1.
//!
//! Two parsers that agree on every input. [`speculate`] verifies, byte for byte, the one layout that
//! `tidemark produce` writes, and gives up at the first surprise; [`general`] takes any JSON and alone says
//! what is wrong with a record. A test holds the first to the second.

mod general;
mod plain;
mod rules;
mod speculate;
mod structure;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
mod words;

use dataflows::{
    event::{Cause, Event},
    port::Decode,
};

/// Decodes events from JSON. An ordinary event costs no allocation.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct JsonEvents;

impl Decode for JsonEvents {
    #[inline]
    fn decode<'a>(&self, payload: &'a [u8]) -> Result<Event<'a>, Cause> {
        match speculate::speculate(payload) {
            Some(event) => Ok(event),
            // The whole record, also the parts that are ignored: what is behind this works on text.
            None => general::parse(std::str::from_utf8(payload).map_err(|_| Cause::Utf8)?),
        }
    }
}
