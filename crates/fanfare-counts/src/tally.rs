//! What is counted and what isn't: callgrind is told to collect inside of [`section`] alone, and to write down what it
//! has at each [`end_of_round`]. Both are found by their names, so neither is generic nor inlined.
//!
//! What one more of something costs is the difference between rounds of many and of few, so that everything else drops
//! out. There are several rounds of each, since now and then a clock strikes or a table grows.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::allocator::allocations;

/// How the two functions are found.
pub(crate) const SECTION: &str = "fanfare_counts::tally::section";
pub(crate) const END_OF_ROUND: &str = "fanfare_counts::tally::end_of_round";

/// Rounds of each size.
const ROUNDS: usize = 12;

static COUNTED: AtomicU64 = AtomicU64::new(0);

/// A round that has ended, as this program tells it to the one that started it, in a line: what was done how often, and
/// how often memory was asked for meanwhile.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Round {
    pub(crate) path: String,
    pub(crate) times: usize,
    pub(crate) allocations: u64,
}

impl Round {
    fn to_line(&self) -> String {
        format!("{} {} {}", self.path, self.times, self.allocations)
    }

    /// None: it is something else.
    pub(crate) fn of_line(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let path = words.next()?.to_owned();
        let (times, allocations) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
        words.next().is_none().then_some(Self { path, times, allocations })
    }
}

/// Has a path gone `few` and `many` times, some rounds of each.
pub(crate) fn path(name: &str, [few, many]: [usize; 2], mut go: impl FnMut(usize)) {
    for times in [few, many].repeat(ROUNDS) {
        go(times);
        println!("{}", Round { path: name.to_owned(), times, allocations: end_of_round() }.to_line());
    }
}

/// Does something that counts.
#[inline(never)]
pub(crate) fn section(work: &mut dyn FnMut()) {
    let before = allocations();
    work();
    COUNTED.fetch_add(allocations() - before, Relaxed);
}

#[inline(never)]
fn end_of_round() -> u64 {
    COUNTED.swap(0, Relaxed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_sections_count() {
        let outside = vec![1_u8];
        let mut rounds = Vec::new();
        for times in [1, 3] {
            section(&mut || rounds.push(vec![0_u8; times]));
            section(&mut || drop(std::hint::black_box(vec![outside.clone(); times])));
        }
        assert!(end_of_round() >= 2 + 2 + 4);
        assert_eq!(end_of_round(), 0);
    }

    #[test]
    fn a_round_is_a_line() {
        let round = Round { path: "deliver".to_owned(), times: 100, allocations: 7 };
        assert_eq!(Round::of_line(&round.to_line()), Some(round));
        assert_eq!(Round::of_line("==12== Callgrind, a call-graph generating cache profiler"), None);
    }
}
