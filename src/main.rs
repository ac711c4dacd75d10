//! The program `biotope`: the command line of the library, without workers of its own.

use std::process::ExitCode;

use biotope::worker::native::Natives;

fn main() -> ExitCode {
    biotope::cli::main(Natives::none())
}
