
pub mod json;
