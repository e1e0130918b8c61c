//! What the hot paths cost, in instructions and in allocations, held against what they cost before.
//!
//! Counts don't depend on how busy a machine is, so a test can say that a path has become dearer. `check` says so,
//! `update` writes down what they cost now. Either starts this program once more, to go the paths; instructions are
//! counted by callgrind, which is valgrind's.

mod paths; // What is done …
mod place; // … and where.

mod allocator; // What is counted …
mod tally;

mod figures;
mod measure; // … how … // … and what it is held against.

use std::process::ExitCode;

use anyhow::bail;
use figures::{Figures, compiler};
use measure::{Measured, measure, no_instructions};

const USAGE: &str = "\
Counts what the hot paths cost, in instructions (under valgrind) and in allocations.

cargo run --release -p fanfare-counts -- check    fails where a path costs more or less than is committed
cargo run --release -p fanfare-counts -- update   commits what they cost now: figures.toml, docs/performance.md
cargo run --release -p fanfare-counts -- go       goes all paths, for a debugger or a profiler
";

fn main() -> anyhow::Result<ExitCode> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match words.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["check"] => check(),
        ["update"] => update(),
        ["go"] => {
            paths::go();
            Ok(ExitCode::SUCCESS)
        }
        _ => {
            eprint!("{USAGE}");
            Ok(ExitCode::from(2))
        }
    }
}

fn check() -> anyhow::Result<ExitCode> {
    let (committed, compiler) = (Figures::committed()?, compiler()?);
    let other_compiler = (committed.compiler != compiler)
        .then(|| format!("the committed figures are of {}, and this is {compiler}", committed.compiler));
    let lacking = no_instructions().map(str::to_owned).or(other_compiler);
    if let Some(reason) = &lacking {
        println!("skipped: the instructions of the hot paths ({reason}); allocations are checked");
    }
    let Measured { figures, profiles } = measure(lacking.is_none())?;
    let now = Figures::of(&figures)?;
    if committed.compare(&now) {
        return Ok(ExitCode::SUCCESS);
    }
    eprintln!("\nA hot path costs something else than docs/performance.md says.");
    if let Some(profiles) = profiles {
        eprintln!("Where it goes: callgrind_annotate --inclusive=yes {}/PATH-*", profiles.display());
    }
    eprintln!("If that is as it should be, commit what this writes: cargo run --release -p fanfare-counts -- update");
    Ok(ExitCode::FAILURE)
}

fn update() -> anyhow::Result<ExitCode> {
    if let Some(reason) = no_instructions() {
        bail!("instructions can't be counted here: {reason}");
    }
    let now = Figures::of(&measure(true)?.figures)?;
    if let Ok(committed) = Figures::committed() {
        committed.compare(&now);
    }
    now.commit()?;
    Ok(ExitCode::SUCCESS)
}
