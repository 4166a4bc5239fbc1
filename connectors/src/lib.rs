pub mod files;
pub mod json;
