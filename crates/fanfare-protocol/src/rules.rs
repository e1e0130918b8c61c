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
    AckReplica,
    BackstopPrev,
    BackstopLast,
    BackstopGapFirst,
}

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
        static OFF: Cell<Option<Rule>> = const { Cell::new(None) };
    }

    pub(crate) fn on(rule: Rule) -> bool {
        OFF.get() != Some(rule)
    }

    /// Runs `work` on this thread with one rule switched off.
    pub(crate) fn without<T>(rule: Option<Rule>, work: impl FnOnce() -> T) -> T {
        OFF.set(rule);
        let result = work();
        OFF.set(None);
        result
    }
}
