//! The commands that read files of results.

use std::path::PathBuf;
use std::{fs, io};

use clap::Subcommand;
use fanfare_loadtest::compare::Comparison;
use fanfare_loadtest::page;
use fanfare_loadtest::result::{Results, ResultsError};

#[derive(Subcommand)]
pub(crate) enum Reading {
    /// Makes one HTML file of files of results: plots and tables that need no network.
    Report {
        /// Files that a scenario wrote.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where it goes.
        #[arg(long, short, default_value = "report.html")]
        output: PathBuf,
    },
    /// Puts files of one machine together into one that is small enough to be kept beside code: figures of every run,
    /// latencies of the one in the middle, and of the floor its medians and ratios.
    Merge {
        /// Files that a scenario wrote.
        #[arg(required = true)]
        files: Vec<PathBuf>,
        /// Where it goes.
        #[arg(long, short)]
        output: PathBuf,
    },
    /// Tells what changed from one file of results to another, and whether that is more than chance.
    Compare {
        /// The results before.
        before: PathBuf,
        /// The results after.
        after: PathBuf,
        /// Ends with 1 where a figure got worse, beyond the noise of its runs, by more than so many percent, or where
        /// something went wrong that had not before.
        #[arg(long, value_name = "PERCENT")]
        fail_above: Option<f64>,
    },
}

impl Reading {
    /// Does it; tells whether all is well.
    pub(crate) fn run(self) -> Result<bool, ReadingError> {
        match self {
            Self::Report { files, output } => {
                let named = |path: PathBuf| {
                    let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
                    Ok((name, Results::read(&path)?))
                };
                let files = files.into_iter().map(named).collect::<Result<Vec<_>, ResultsError>>()?;
                fs::write(&output, page(&files)).map_err(|error| ReadingError::Write(output.clone(), error))?;
                eprintln!("{}", output.display());
                Ok(true)
            }
            Self::Merge { files, output } => {
                let mut files = files.iter().map(|path| Results::read(path));
                let mut all = files.next().expect("clap asks for one")?;
                for results in files {
                    let Results { machine, versions, scenarios, .. } = results?;
                    if machine != all.machine {
                        return Err(ReadingError::Machines);
                    }
                    all.versions.extend(versions);
                    scenarios.into_iter().for_each(|result| all.add(result));
                }
                all.write_short(&output)?;
                eprintln!("{}", output.display());
                Ok(true)
            }
            Self::Compare { before, after, fail_above } => {
                let comparison = Comparison::of(&Results::read(&before)?, &Results::read(&after)?);
                anstream::println!("{comparison}");
                Ok(!fail_above.is_some_and(|percent| comparison.is_worse_by(percent)))
            }
        }
    }
}

/// Why results can't be shown.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadingError {
    #[error(transparent)]
    Read(#[from] ResultsError),
    #[error("files of several machines don't belong together")]
    Machines,
    #[error("{} can't be written", .0.display())]
    Write(PathBuf, #[source] io::Error),
}
