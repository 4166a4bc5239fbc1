#![allow(dead_code)]

mod commands {
    pub mod query;
}
mod http;
mod service;

fn main() {}
