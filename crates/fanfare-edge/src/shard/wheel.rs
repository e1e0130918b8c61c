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
    /// A wheel that reaches so many ticks ahead, or further.
    pub(super) fn new(reach: u32) -> Self {
        // A power of two divides 2^32, so that slots keep their order when the ticks begin anew.
        let slots = (reach.max(1) as usize + 1).next_power_of_two();
        Self { slots: (0..slots).map(|_| Vec::new()).collect(), now: 0 }
    }

    /// The current tick.
    pub(super) fn now(&self) -> u32 {
        self.now
    }

    /// A visit in so many ticks, at least one and at most the wheel's reach. Answers at which tick that is.
    pub(super) fn visit_in(&mut self, ticks: u32, visit: Visit) -> u32 {
        let len = self.slots.len();
        let at = self.now.wrapping_add(ticks.clamp(1, len as u32 - 1));
        self.slots[at as usize % len].push(visit);
        at
    }

    /// A tick passes: the visits that are due.
    pub(super) fn tick(&mut self) -> Vec<Visit> {
        self.now = self.now.wrapping_add(1);
        let len = self.slots.len();
        mem::take(&mut self.slots[self.now as usize % len])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_visit_comes_when_it_is_due_and_once() {
        let mut wheel = Wheel::new(7);
        let visit = |key| Visit { key, generation: 0 };
        assert_eq!([(1, 1), (7, 7), (99, 99)].map(|(ticks, key)| wheel.visit_in(ticks, visit(key))), [1, 7, 7]);
        let due: Vec<_> = (1..=20).flat_map(|tick| wheel.tick().into_iter().map(move |v| (tick, v.key))).collect();
        assert_eq!(due, [(1, 1), (7, 7), (7, 99)]);
    }
}
