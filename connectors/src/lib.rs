pub mod embedded;
pub mod memory;
pub mod partition;
