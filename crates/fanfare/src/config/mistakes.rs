//! What is wrong with a configuration, all of it at once.

use std::fmt;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// The variable, the flag, or the file with line and key. Empty: the problem is a whole sentence.
    pub(super) place: String,
    /// What is wrong there, as it follows the place in a sentence.
    pub(super) problem: String,
}

/// Everything that is wrong.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mistakes(Vec<Mistake>);

impl Mistakes {
    pub(super) fn add(&mut self, place: impl Into<String>, problem: impl Into<String>) {
        self.0.push(Mistake { place: place.into(), problem: problem.into() });
    }

    /// A name that nothing has, and one that may have been meant.
    pub(super) fn unknown(&mut self, place: impl Into<String>, name: &str, meant: Option<String>) {
        let place = place.into();
        let is_not = if place == name { "is not a setting".to_owned() } else { format!("{name} is not a setting") };
        let problem = match meant {
            Some(meant) => format!("{is_not}; did you mean {meant}?"),
            None => format!("{is_not}; `fanfare config` lists them all"),
        };
        self.add(place, problem);
    }

    /// A whole sentence, which names the place itself.
    pub(crate) fn tell(&mut self, sentence: impl fmt::Display) {
        self.0.push(Mistake { place: String::new(), problem: sentence.to_string() });
    }

    /// Whether something is wrong there already.
    pub(super) fn has(&self, place: &str) -> bool {
        self.0.iter().any(|mistake| mistake.place.trim_end_matches(':') == place)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.0 {
            [only] => write!(f, "in the configuration, {only}"),
            all => {
                write!(f, "{} mistakes in the configuration", all.len())?;
                all.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
            }
        }
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.place.is_empty() {
            write!(f, "{} ", self.place)?;
        }
        f.write_str(&self.problem)
    }
}

impl std::error::Error for Mistakes {}
