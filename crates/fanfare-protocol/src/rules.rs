//! The rules of `docs/protocol.md`, by name. In the service every rule always holds; the simulator's tests switch
//! single ones off to prove that it would notice.

/// One rule of the protocol. `docs/protocol.md` says what goes wrong without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[expect(missing_docs, reason = "each has its line in docs/protocol.md")]
pub enum Rule {
    Confirm,
    Count,
    MarkerLast,
    CutAck,
    ResyncJoin,
    Hold,
    HoldCuts,
    HoldPartition,
    ResyncFill,
    ResyncUpToCut,
    ResyncLast,
    ResyncLastPrev,
    UnknownFloor,
    Tag,
    Deadlines,
    Nonce,
    CutEpoch,
    CutOff,
    ShardBreak,
    Lazy,
    LazyQueued,
    JoinRestart,
    Epoch,
    Ident,
    EnsureInBarrier,
    EpochResume,
    EpochTails,
    Merge,
    Last,
    Chain,
    Floor,
    FloorPrev,
    OneConnection,
    Idempotency,
    Connected,
    ConnectedAll,
    GapId,
    TailFrom,
    TailReset,
    PatchId,
    List,
    Beacon,
    CutAtMarker,
    ReadEpoch,
    AckReplica,
    PollFull,
    PollGaps,
    BackstopPrev,
    BackstopLast,
    BackstopGapFirst,
    Kept,
    PurgeLast,
    PurgeTail,
    FanoutOrder,
    FanoutCursor,
    FanoutPatch,
    FanoutGap,
}

/// Marks a branch that the simulator is to take. Nothing in the service.
macro_rules! visited {
    ($branch:literal) => {
        #[cfg(test)]
        crate::simulator::hit($branch);
    };
    ($branch:literal, if $condition:expr) => {
        #[cfg(test)]
        if $condition {
            crate::simulator::hit($branch);
        }
    };
}
pub(crate) use visited;

/// Whether the rule holds: always, outside the simulator's tests.
#[cfg(not(test))]
pub(crate) const fn on(_: Rule) -> bool {
    true
}

#[cfg(test)]
pub(crate) use switches::on;

#[cfg(test)]
pub(crate) mod switches {
    use super::Rule;
    use std::cell::Cell;

    thread_local! {
        static OFF: Cell<u64> = const { Cell::new(0) };
    }

    pub(crate) fn on(rule: Rule) -> bool {
        OFF.get() & (1 << rule as u64) == 0
    }

    /// Runs `work` on this thread with some rules switched off.
    pub(crate) fn without<T>(rules: &[Rule], work: impl FnOnce() -> T) -> T {
        OFF.set(rules.iter().fold(0, |off, rule| off | 1 << *rule as u64));
        let result = work();
        OFF.set(0);
        result
    }
}
