//! Calls `cli::main` and returns its exit code.

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> std::process::ExitCode {
    labgate::cli::main(std::env::args_os(), std::env::vars_os())
}
