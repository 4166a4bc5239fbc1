pub mod memory;
pub mod partition;
