//! The daemon's entry point.

use std::process::ExitCode;

/// Small allocations of every request: measurably faster than the system's allocator, with less fragmentation.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    evenkeel::cli::main()
}
