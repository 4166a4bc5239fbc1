//! Everything of `connectors::kafka` against a real Kafka, whose address `scripts/test` gives.
#![allow(clippy::unwrap_used)]

mod letters;
mod producing;
mod reading;
mod replaced;
mod support;
mod watching;
