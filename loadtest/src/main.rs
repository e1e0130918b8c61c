//! `fanfare-loadtest`: thousands of clients against a running deployment, and every delivery checked.

mod beside; // The command that runs other servers.
mod cli; // What is typed, and what comes of it.
mod reading; // The commands that read results.

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
