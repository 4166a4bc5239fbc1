//! What single pieces cost: `cargo bench --locked --bench micro`, all in a minute or so; a word behind `--` chooses some.
//!
//! Each says its unit: items, and bytes where it reads or writes them. Inputs are seeded, and made before the clock runs.

mod checkpoint;
mod day;
mod decode;
mod dedup;
mod index;
mod inputs;
mod query;
mod window;
mod worker;

// As in the binary: parts of checkpoints and batches of the index are large.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() {
    divan::main();
}
