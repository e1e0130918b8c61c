//! What each rule is for: without it, the promise breaks.
//!
//! Each rule is switched off alone, in the code that runs in the service (or in the drivers of this world, where it
//! is theirs), and seeds are lived through until one breaks. How many it took stands in `docs/protocol.md`.

use std::sync::Mutex;

use super::plan::Shape;
use super::seeds::live;
use crate::Rule;

/// How many seeds a rule gets to show what it is for.
const SEEDS_MAX: u64 = 40_000;

/// In this order: most rules are for bad weather.
const SHAPES: [Shape; 5] = [Shape::Storm, Shape::Faults, Shape::Tight, Shape::Calm, Shape::Shaky];

/// All but the backstops, `nonce`, `count`, `read-epoch` and `poll-gaps`: see `scenarios`.
pub(super) const RULES: [Rule; 50] = [
    Rule::Confirm,
    Rule::MarkerLast,
    Rule::CutAck,
    Rule::ResyncJoin,
    Rule::Hold,
    Rule::HoldCuts,
    Rule::HoldPartition,
    Rule::ResyncFill,
    Rule::ResyncUpToCut,
    Rule::ResyncLast,
    Rule::ResyncLastPrev,
    Rule::UnknownFloor,
    Rule::Tag,
    Rule::Deadlines,
    Rule::CutEpoch,
    Rule::CutOff,
    Rule::ShardBreak,
    Rule::Lazy,
    Rule::LazyQueued,
    Rule::JoinRestart,
    Rule::Epoch,
    Rule::Ident,
    Rule::EnsureInBarrier,
    Rule::EpochResume,
    Rule::EpochTails,
    Rule::Merge,
    Rule::Last,
    Rule::Chain,
    Rule::Floor,
    Rule::FloorPrev,
    Rule::OneConnection,
    Rule::Idempotency,
    Rule::Connected,
    Rule::ConnectedAll,
    Rule::GapId,
    Rule::TailFrom,
    Rule::TailReset,
    Rule::PatchId,
    Rule::List,
    Rule::Beacon,
    Rule::CutAtMarker,
    Rule::AckReplica,
    Rule::PollFull,
    Rule::Kept,
    Rule::PurgeLast,
    Rule::PurgeTail,
    Rule::FanoutOrder,
    Rule::FanoutCursor,
    Rule::FanoutPatch,
    Rule::FanoutGap,
];

/// The seed that breaks first, and how.
fn first_broken(rule: Rule) -> Option<(u64, Shape, String)> {
    (1..=SEEDS_MAX).find_map(|seed| {
        let shape = SHAPES[seed as usize % SHAPES.len()];
        live(seed, shape, &[rule], false).broken.map(|broken| (seed, shape, broken))
    })
}

#[test]
fn without_any_one_rule_the_promise_breaks() {
    let left = Mutex::new(RULES.iter().rev().copied().collect::<Vec<_>>());
    let harmless = Mutex::new(Vec::new());
    let work = || {
        while let Some(rule) = { left.lock().expect("no panic").pop() } {
            match first_broken(rule) {
                Some((seed, shape, broken)) => println!("{rule:?}: seed {seed}, {}: {broken}", shape.name()),
                None => harmless.lock().expect("no panic").push(rule),
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let harmless = harmless.into_inner().expect("no panic");
    assert!(harmless.is_empty(), "without these, {SEEDS_MAX} seeds hold: {harmless:?}");
}
