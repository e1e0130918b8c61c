//! One wheel for the heartbeats of all connections of a shard, instead of a timer for each.

use std::mem;

use fanfare_protocol::ConnectionKey;

/// A connection that is to be looked at. The generation tells whether the number still means the same connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Visit {
    pub(super) key: ConnectionKey,
    pub(super) generation: u32,
}

/// A ring of slots, one for each tick. Every connection waits in one slot and is put into another when visited; one
/// that has left is found out at its visit.
#[derive(Debug)]
pub(super) struct Wheel {
    slots: Vec<Vec<Visit>>,
    now: u32,
}

impl Wheel {
    /// A wheel that reaches so many ticks ahead.
    pub(super) fn new(reach: u32) -> Self {
        Self { slots: (0..=reach.max(1)).map(|_| Vec::new()).collect(), now: 0 }
    }

    /// The current tick.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// A visit in so many ticks, at least one and at most the wheel's reach.
    pub(super) fn visit_in(&mut self, ticks: u32, visit: Visit) {
        let len = self.slots.len();
        let ahead = (ticks as usize).clamp(1, len - 1);
        self.slots[(self.now as usize + ahead) % len].push(visit);
    }

    /// A tick passes: the visits that are due.
    pub(super) fn tick(&mut self) -> Vec<Visit> {
        self.now = self.now.wrapping_add(1);
        let len = self.slots.len();
        // The number of slots may not divide 2^32: that tick, once in years, visits a slot early or late.
        mem::take(&mut self.slots[self.now as usize % len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_comes_when_it_is_due_and_once() {
        let mut wheel = Wheel::new(8);
        let visit = |key| Visit { key, generation: 0 };
        wheel.visit_in(1, visit(1));
        wheel.visit_in(8, visit(8));
        wheel.visit_in(99, visit(99));
        let due: Vec<_> = (1..=20).flat_map(|tick| wheel.tick().into_iter().map(move |v| (tick, v.key))).collect();
        assert_eq!(due, [(1, 1), (8, 8), (8, 99)]);
    }
}
