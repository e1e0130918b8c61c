//! Runs this program once more, under callgrind where that is there, and reads what it counted.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs, io};

use anyhow::{Context, ensure};

use crate::figures::Figure;
use crate::paths::PATHS;
use crate::tally::{END_OF_ROUND, Round, SECTION};

/// What was counted.
pub(crate) struct Measured {
    /// In the order of [`PATHS`]. Without callgrind no instructions.
    pub(crate) figures: Vec<(&'static str, Figure)>,
    /// Where profiles are, if there are any.
    pub(crate) profiles: Option<PathBuf>,
}

/// Why no instructions can be counted here, that can be held against the committed figures. None: they can.
pub(crate) fn no_instructions() -> Option<&'static str> {
    let version = Command::new("valgrind").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    let is_incremental = option_env!("CARGO_INCREMENTAL").is_some_and(|set| set != "0");
    match version {
        _ if is_incremental => Some("an incremental build inlines otherwise: unset CARGO_INCREMENTAL"),
        _ if !cfg!(target_arch = "x86_64") => Some("the committed figures are of x86-64"),
        Ok(status) if status.success() => None,
        _ => Some("there is no valgrind (scripts/install-test-tools installs it)"),
    }
}

/// Counts everything, which with callgrind takes a minute.
///
/// # Errors
/// A path could not be gone, or callgrind did not write what it should.
pub(crate) fn measure(callgrind: bool) -> anyhow::Result<Measured> {
    let program = env::current_exe()?;
    let directory = program.parent().and_then(Path::parent).context("it is in target")?.join("counts");
    match fs::remove_dir_all(&directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
        _ => fs::create_dir_all(&directory)?,
    }
    let mut command = if callgrind { under_callgrind(&program, &directory) } else { Command::new(&program) };
    let output = command.arg("go").stderr(Stdio::inherit()).output().context("it can't be started again")?;
    ensure!(output.status.success(), "it ended with {}", output.status);
    let rounds = String::from_utf8(output.stdout)?.lines().filter_map(Round::of_line).collect::<Vec<_>>();
    let mut counted = Vec::new();
    for (round, number) in rounds.into_iter().zip(1..) {
        let profile = callgrind.then(|| directory.join(format!("round.{number}")));
        let instructions = profile.as_deref().map(total).transpose()?;
        counted.push(Counted { round, instructions, profile });
    }
    let figures = PATHS.map(|(name, _)| Ok::<_, anyhow::Error>((name, figure(name, &counted, &directory)?)));
    let figures = figures.into_iter().collect::<Result<_, _>>()?;
    for profile in counted.into_iter().filter_map(|counted| counted.profile) {
        fs::remove_file(profile)?;
    }
    Ok(Measured { figures, profiles: callgrind.then_some(directory) })
}

/// A round, and what callgrind wrote at its end.
struct Counted {
    round: Round,
    instructions: Option<u64>,
    profile: Option<PathBuf>,
}

fn under_callgrind(program: &Path, directory: &Path) -> Command {
    let mut command = Command::new("valgrind");
    command.args(["--quiet", "--tool=callgrind", "--collect-atstart=no"]);
    command.arg(format!("--callgrind-out-file={}", directory.join("round").display()));
    command.args([format!("--toggle-collect={SECTION}"), format!("--dump-after={END_OF_ROUND}")]).arg(program);
    command
}

fn total(file: &Path) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("callgrind did not write {}", file.display()))?;
    let total = text.lines().rev().find_map(|line| line.strip_prefix("totals: "));
    total.and_then(|total| total.trim().parse().ok()).with_context(|| format!("no total in {}", file.display()))
}

/// A profile without the calls that were under way when it began: `callgrind_annotate` takes their costs for the callees'.
fn readable(profile: &str) -> String {
    let mut kept = String::with_capacity(profile.len());
    let mut lines = profile.lines();
    while let Some(line) = lines.next() {
        if line.starts_with("calls=0 ") {
            _ = lines.next(); // What it cost.
        } else {
            kept.push_str(line);
            kept.push('\n');
        }
    }
    kept
}

/// What one time more costs, by rounds of each size: the one with the least instructions, since where a clock strikes some
/// are added, and the middle one of all by their allocations, since what grows by doubling may have room left for once.
/// Keeps a profile of the larger size.
fn figure(name: &str, counted: &[Counted], directory: &Path) -> anyhow::Result<Figure> {
    let own: Vec<_> = counted.iter().filter(|counted| counted.round.path == name).collect();
    let times = || own.iter().map(|counted| counted.round.times);
    let (few, many) = times().min().zip(times().max()).with_context(|| format!("{name} was not gone"))?;
    let of = |times: usize| own.iter().filter(move |counted| counted.round.times == times);
    let one_more = |(few_cost, many_cost): (u64, u64)| (many_cost as f64 - few_cost as f64) / (many - few) as f64;
    let instructions = |times| of(times).filter_map(|counted| counted.instructions).min();
    let allocations = |times| {
        let mut allocations: Vec<_> = of(times).map(|counted| counted.round.allocations).collect();
        allocations.sort_unstable();
        allocations.get((allocations.len() - 1) / 2).copied()
    };
    if let Some(profile) = of(many).min_by_key(|counted| counted.instructions).and_then(|least| least.profile.as_ref())
    {
        fs::write(directory.join(format!("{name}-{many}")), readable(&fs::read_to_string(profile)?))?;
    }
    let allocations = allocations(few).zip(allocations(many)).map(one_more).context("every round has allocations")?;
    Ok(Figure {
        instructions: instructions(few).zip(instructions(many)).map(one_more),
        allocations: allocations.max(0.0), // More times nothing may be a little less.
    })
}
